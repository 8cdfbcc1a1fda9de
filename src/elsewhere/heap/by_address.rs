//! Blocks of a heap that are freed by their address alone, as C frees them.

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use super::Heap;
use super::blocks::Zeroed;

/// For whoever keeps no layouts. A block may come from here and be freed as the collections' allocator frees, with a layout
/// that fits, and the reverse; but for blocks of 0 bytes, which are none there and blocks like others here.
impl Heap {
    /// A block of at least `size` bytes aligned to `align`, or null if the heap is refused it: such a heap does not
    /// panic here. A block of 0 bytes is one like others.
    ///
    /// # Panics
    ///
    /// In debug builds, if `align` is not a power of two.
    #[must_use]
    pub fn raw_alloc(&self, size: usize, align: usize) -> *mut u8 {
        self.raw(size, align, Zeroed::No)
    }

    /// The same, zeroed.
    #[must_use]
    pub fn raw_alloc_zeroed(&self, size: usize, align: usize) -> *mut u8 {
        self.raw(size, align, Zeroed::Yes)
    }

    fn raw(&self, size: usize, align: usize, wanted: Zeroed) -> *mut u8 {
        debug_assert!(align.is_power_of_two());
        let Ok(layout) = Layout::from_size_align(size.max(1), align) else {
            return ptr::null_mut();
        };
        let found = Self::fallibly(|| self.alloc(layout, wanted));
        found.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    /// Frees a block, or null.
    ///
    /// # Safety
    /// 1. The block is null, or live and of this heap.
    /// 2. Nobody uses it any more.
    pub unsafe fn raw_free(&self, block: *mut u8) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: 1. and 2. our own.
            unsafe { self.blocks().free(block) };
        }
    }

    /// Changes the size of a block, in place or by moving its contents, to one aligned to `align`; null leaves it as it
    /// was. For null it is [`raw_alloc`](Self::raw_alloc).
    ///
    /// # Safety
    /// 1. The block is null, or live, of this heap, and aligned to `align`.
    /// 2. On success nobody uses the old block any more.
    #[must_use]
    pub unsafe fn raw_realloc(&self, block: *mut u8, size: usize, align: usize) -> *mut u8 {
        let Some(old) = NonNull::new(block) else {
            return self.raw_alloc(size, align);
        };
        // SAFETY: 1. our own.
        let layout = unsafe { self.blocks().layout(old) };
        if align <= layout.align() {
            // SAFETY: 1. and 2. our own.
            let resized = Self::fallibly(|| unsafe { self.resize(old, size.max(1)) });
            return resized.map_or(ptr::null_mut(), NonNull::as_ptr);
        }
        // It lay at a fit address by chance.
        let moved = self.raw_alloc(size, align);
        if let Some(target) = NonNull::new(moved) {
            // SAFETY: 1. both are as long, and different.
            unsafe { target.copy_from_nonoverlapping(old, layout.size().min(size)) };
            // SAFETY: 1. live, of this heap. 2. its contents were moved.
            unsafe { self.raw_free(block) };
        }
        moved
    }

    /// Bytes of a block that its user may use: as many as were asked for, and 1 of a block of 0; 0 for null.
    ///
    /// # Safety
    /// 1. The block is null, or live and of this heap.
    #[must_use]
    pub unsafe fn raw_usable_size(&self, block: *mut u8) -> usize {
        // SAFETY: 1. our own.
        NonNull::new(block).map_or(0, |block| unsafe { self.blocks().layout(block) }.size())
    }
}
