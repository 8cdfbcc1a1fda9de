//! What may lie in a heap that others open, and the plain types that may.

use core::ptr::NonNull;
use core::sync::atomic as std_atomic;

use super::offset::Off;
use super::shape::Shape;

/// Told of each block that a value holds, by an address in it, and answers whether what lies there is to be looked at, too:
/// for a block that was told before, no.
pub type Visit<'a> = dyn FnMut(NonNull<u8>) -> bool + 'a;

/// How many blocks deep a shape looks: a type that holds blocks of its own type would have no end.
const DEPTH: u32 = 4;

/// A type that may lie in a heap that other processes and programs open: it means the same in each.
///
/// Implemented for numbers, `bool`, `char`, arrays, tuples of up to four, `Option`, atomics, and for what this module has.
/// For structures [`persist!`](crate::persist) implements it.
///
/// # Safety
///
/// 1. A value means the same wherever the heap lies at its address: it holds no reference, pointer or function that
///    leads elsewhere, and no allocator but the heap's.
/// 2. [`shape`](Self::shape) differs for what differs in layout or meaning, in any program.
/// 3. [`visit`](Self::visit) tells of all blocks that the value holds.
#[diagnostic::on_unimplemented(
    message = "`{Self}` may mean something else to another process",
    note = "`flagstone::persist!` declares a structure that may lie in a heap"
)]
pub unsafe trait Persist: Sized + 'static {
    /// The number of what the type looks like. Behind so many blocks it is not looked at any more.
    fn shape(depth: u32) -> u64;

    /// Tells of all blocks that the value holds, for a sweep of what nobody holds.
    ///
    /// # Safety
    ///
    /// 1. Nobody changes the value meanwhile, nor what it holds, by locks or atomics either.
    unsafe fn visit(&self, visit: &mut Visit<'_>);
}

/// The shape of a type, by which [`Mapped::get`](crate::Mapped::get) knows it again.
#[must_use]
pub fn shape_of<T: Persist>() -> u64 {
    T::shape(DEPTH)
}

/// The shape of what a block holds.
pub(super) fn shape_behind<T: Persist>(depth: u32) -> u64 {
    match depth.checked_sub(1) {
        Some(depth) => T::shape(depth),
        None => Shape::of::<T>(core::any::type_name::<T>()).number(),
    }
}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {$(
        // SAFETY: 1. and 2. a number, or as good. 3. holds no block.
        unsafe impl Persist for $type {
            fn shape(_: u32) -> u64 {
                const { Shape::of::<Self>(stringify!($type)).number() }
            }

            unsafe fn visit(&self, _: &mut Visit<'_>) {}
        }
    )*};
}

plain! {
    (), bool, char, f32, f64,
    u8, u16, u32, u64, u128, usize,
    i8, i16, i32, i64, i128, isize,
    std_atomic::AtomicBool,
    std_atomic::AtomicU8, std_atomic::AtomicU16, std_atomic::AtomicU32, std_atomic::AtomicU64, std_atomic::AtomicUsize,
    std_atomic::AtomicI8, std_atomic::AtomicI16, std_atomic::AtomicI32, std_atomic::AtomicI64, std_atomic::AtomicIsize,
}

// SAFETY: 1. and 2. values in a row. 3. those of each.
unsafe impl<T: Persist, const N: usize> Persist for [T; N] {
    fn shape(depth: u32) -> u64 {
        Shape::of::<Self>("array")
            .field(0, T::shape(depth))
            .number()
    }

    unsafe fn visit(&self, visit: &mut Visit<'_>) {
        for value in self {
            // SAFETY: 1. the caller's.
            unsafe { value.visit(visit) };
        }
    }
}

// SAFETY: 1. a value or none. 2. of where the compiler puts which of the two it is only the size is told: the same type has the
// same place, as far as a compiler keeps to it. 3. those of the value.
unsafe impl<T: Persist> Persist for Option<T> {
    fn shape(depth: u32) -> u64 {
        Shape::of::<Self>("Option").with(T::shape(depth)).number()
    }

    unsafe fn visit(&self, visit: &mut Visit<'_>) {
        if let Some(value) = self {
            // SAFETY: 1. the caller's.
            unsafe { value.visit(visit) };
        }
    }
}

macro_rules! tuples {
    ($(($($name:ident $number:tt),*)),* $(,)?) => {$(
        // SAFETY: 1. and 2. values at places that are told. 3. those of each.
        unsafe impl<$($name: Persist),*> Persist for ($($name,)*) {
            fn shape(depth: u32) -> u64 {
                Shape::of::<Self>("tuple")
                    $(.field(core::mem::offset_of!(Self, $number), $name::shape(depth)))*
                    .number()
            }

            unsafe fn visit(&self, visit: &mut Visit<'_>) {
                // SAFETY: 1. the caller's.
                $(unsafe { self.$number.visit(visit) };)*
            }
        }
    )*};
}

tuples! { (A 0), (A 0, B 1), (A 0, B 1, C 2), (A 0, B 1, C 2, D 3) }

// SAFETY: 1. a distance. 2. of what lies there the shape is told. 3. owns no block.
unsafe impl<T: Persist> Persist for Off<T> {
    fn shape(depth: u32) -> u64 {
        Shape::of::<Self>("Off")
            .with(shape_behind::<T>(depth))
            .number()
    }

    unsafe fn visit(&self, _: &mut Visit<'_>) {}
}

/// Declares a structure that may lie in a heap that others open: it implements [`Persist`](crate::mapped::Persist), for
/// which each field must, too. Its layout is C's.
///
/// ```
/// use flagstone::mapped::{Event, Map, Mutex, String};
/// use flagstone::Mapped;
///
/// flagstone::persist! {
///     /// What workers share.
///     pub struct Board {
///         ages: Mutex<Map<String, u32>>,
///         changed: Event,
///     }
/// }
///
/// let heap = Mapped::create(16 << 20)?;
/// let ages = Mutex::new(Map::new_in(heap.handle()));
/// let board = heap.insert("board", Board { ages, changed: Event::new() })?;
/// board.changed.signal();
/// # Ok::<(), flagstone::MappedError>(())
/// ```
#[macro_export]
macro_rules! persist {
    ($(#[$attribute:meta])* $visible:vis struct $name:ident {
        $($(#[$of_field:meta])* $field_visible:vis $field:ident: $type:ty),* $(,)?
    }) => {
        $(#[$attribute])*
        #[repr(C)]
        $visible struct $name {
            $($(#[$of_field])* $field_visible $field: $type,)*
        }

        // SAFETY: 1. to 3. as for each field, at places that are told.
        unsafe impl $crate::mapped::Persist for $name {
            fn shape(depth: u32) -> u64 {
                let shape = $crate::mapped::Shape::of::<Self>(stringify!($name));
                $(let shape = shape.named(stringify!($field)).field(
                    ::core::mem::offset_of!(Self, $field),
                    <$type as $crate::mapped::Persist>::shape(depth),
                );)*
                let _ = depth;
                shape.number()
            }

            unsafe fn visit(&self, visit: &mut $crate::mapped::Visit<'_>) {
                let _ = &visit;
                // SAFETY: 1. the caller's.
                $(unsafe { $crate::mapped::Persist::visit(&self.$field, visit) };)*
            }
        }
    };
}
