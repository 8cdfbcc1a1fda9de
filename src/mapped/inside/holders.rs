//! What holds other values, as what may lie in a heap that others open.

use core::ptr::NonNull;

use super::event::Event;
use super::layouts::{block_of, of_box, of_map, of_vec};
use super::map::Map;
use super::mutex::Mutex;
use super::persist::{Persist, Visit, shape_behind};
use super::shape::Shape;
use super::text::String;
use super::{Box, Vec};

// SAFETY: 1. a block of the heap, with its handle. 2. where its parts lie, and the shape of what is in the block. 3. the
// block, and those of each element.
unsafe impl<T: Persist> Persist for Vec<T> {
    fn shape(depth: u32) -> u64 {
        let shape = Shape::of::<Self>("Vec").with(of_vec::<T>());
        shape.with(shape_behind::<T>(depth)).number()
    }

    unsafe fn visit(&self, visit: &mut Visit<'_>) {
        let has_block = self.capacity() != 0 && size_of::<T>() != 0;
        if has_block && visit(NonNull::from(self.as_slice()).cast()) {
            for value in self {
                // SAFETY: 1. the caller's.
                unsafe { value.visit(visit) };
            }
        }
    }
}

// SAFETY: 1. to 3. as a vector of one.
unsafe impl<T: Persist> Persist for Box<T> {
    fn shape(depth: u32) -> u64 {
        let shape = Shape::of::<Self>("Box").with(of_box::<T>());
        shape.with(shape_behind::<T>(depth)).number()
    }

    unsafe fn visit(&self, visit: &mut Visit<'_>) {
        if size_of::<T>() == 0 || visit(NonNull::from(&**self).cast()) {
            // SAFETY: 1. the caller's.
            unsafe { (**self).visit(visit) };
        }
    }
}

// SAFETY: 1. to 3. as a vector of bytes.
unsafe impl Persist for String {
    fn shape(_: u32) -> u64 {
        Shape::of::<Self>("String").with(of_vec::<u8>()).number()
    }

    unsafe fn visit(&self, visit: &mut Visit<'_>) {
        if self.capacity() != 0 {
            visit(NonNull::from(self.as_bytes()).cast());
        }
    }
}

// SAFETY: 1. a table in the heap, its seed and its handle. 2. where its parts lie, how it looks inside, what keys are hashed
// to, and the shapes of entries with their places. 3. the table, and those of each entry. What a torn map held is nobody's.
unsafe impl<K: Persist, V: Persist> Persist for Map<K, V> {
    fn shape(depth: u32) -> u64 {
        let shape = Shape::of::<Self>("Map").with(of_map::<K, V>());
        shape.with(shape_behind::<(K, V)>(depth)).number()
    }

    unsafe fn visit(&self, visit: &mut Visit<'_>) {
        if let Ok(Some(table)) = self.table()
            && block_of(table).is_some_and(&mut *visit)
        {
            for entry in table {
                // SAFETY: 1. the caller's.
                unsafe { entry.visit(visit) };
            }
        }
    }
}

// SAFETY: 1. words, and a value. 2. the shape of the value; the rest is declared in order. 3. those of the value.
unsafe impl<T: Persist> Persist for Mutex<T> {
    fn shape(depth: u32) -> u64 {
        Shape::of::<Self>("Mutex").with(T::shape(depth)).number()
    }

    unsafe fn visit(&self, visit: &mut Visit<'_>) {
        // SAFETY: 1. nobody changes it, as the caller says.
        let value = unsafe { self.value() };
        // SAFETY: 1. the caller's.
        unsafe { value.visit(visit) };
    }
}

// SAFETY: 1. and 2. two words, declared in order. 3. holds no block.
unsafe impl Persist for Event {
    fn shape(_: u32) -> u64 {
        Shape::of::<Self>("Event").number()
    }

    unsafe fn visit(&self, _: &mut Visit<'_>) {}
}
