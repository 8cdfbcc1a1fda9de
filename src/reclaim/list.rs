//! A list in a mapping of its own: how long it becomes is known only at run time, and nothing may be allocated.

use core::ptr::NonNull;

use crate::os::{self, Access, PageLen};

/// Plain values, in the order in which they were pushed.
pub(super) struct List<T: Copy> {
    base: NonNull<T>,
    bytes: PageLen,
    length: usize,
}

impl<T: Copy> List<T> {
    /// An empty list, without room.
    pub(super) const fn new() -> Self {
        Self {
            base: NonNull::dangling(),
            bytes: PageLen::NONE,
            length: 0,
        }
    }

    fn room(&self) -> usize {
        self.bytes.bytes() / size_of::<T>()
    }

    /// Sees to room for `more` values; `false` without memory.
    #[must_use]
    pub(super) fn reserve(&mut self, more: usize) -> bool {
        let wanted = self.length + more;
        wanted <= self.room() || self.grow(wanted.max(2 * self.room())).is_some()
    }

    fn grow(&mut self, room: usize) -> Option<()> {
        let bytes = PageLen::holding(room.checked_mul(size_of::<T>())?)?;
        let base: NonNull<T> = os::map(bytes, os::page_size(), Access::Committed)?.cast();
        // SAFETY: 1. as many values as were pushed, into a longer mapping that is nobody else's.
        unsafe { base.copy_from_nonoverlapping(self.base, self.length) };
        let longer = Self {
            base,
            bytes,
            length: self.length,
        };
        // What was there is unmapped.
        *self = longer;
        Some(())
    }

    /// Adds a value; `false` if there is no [room](Self::reserve).
    #[must_use]
    pub(super) fn push(&mut self, value: T) -> bool {
        if self.length == self.room() {
            return false;
        }
        // SAFETY: 1. inside the mapping.
        let place = unsafe { self.base.add(self.length) };
        // SAFETY: 1. inside the mapping, which is aligned to pages and borrowed by nobody else.
        unsafe { place.write(value) };
        self.length += 1;
        true
    }

    /// Forgets the values, and keeps the room.
    pub(super) fn clear(&mut self) {
        self.length = 0;
    }

    pub(super) fn values(&self) -> &[T] {
        // SAFETY: 1. `push` wrote this many.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), self.length) }
    }

    pub(super) fn values_mut(&mut self) -> &mut [T] {
        // SAFETY: 1. `push` wrote this many.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), self.length) }
    }
}

impl<T: Copy> Drop for List<T> {
    fn drop(&mut self) {
        if self.bytes != PageLen::NONE {
            // SAFETY: 1. mapped by `grow`. What the kernel refuses to unmap is lost.
            let _ = unsafe { os::unmap(self.base.cast(), self.bytes) };
        }
    }
}
