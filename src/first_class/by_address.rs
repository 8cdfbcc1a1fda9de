//! Blocks of a heap that are freed by their address alone, as C frees them.

use core::ptr::{self, NonNull};

use super::Heap;
use crate::arena::Zeroed;
use crate::error::Call;

/// For the C interface, and for whoever keeps no layouts. A block may come from here and be freed as the collections'
/// allocator frees, with a layout that fits, and the reverse; but for blocks of 0 bytes, which are none there and blocks
/// like others here.
impl Heap {
    /// A block of at least `size` bytes aligned to `align`, or null if the heap is refused it: such a heap does not
    /// panic here. A block of 0 bytes is one like others.
    ///
    /// ```
    /// use flagstone::Heap;
    ///
    /// let heap = Heap::new()?;
    /// let block = heap.raw_alloc(100, 16);
    /// assert!(!block.is_null());
    /// // SAFETY: the block is live, and not used after the last call.
    /// unsafe {
    ///     assert!(heap.raw_usable_size(block) >= 100);
    ///     heap.raw_free(block);
    /// }
    /// # Ok::<(), flagstone::HeapError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// In debug builds, if `align` is not a power of two.
    #[must_use]
    pub fn raw_alloc(&self, size: usize, align: usize) -> *mut u8 {
        debug_assert!(align.is_power_of_two());
        if isize::try_from(size).is_err() {
            return ptr::null_mut();
        }
        let found = Self::fallibly(|| self.alloc(size.max(1), align));
        found.map_or(ptr::null_mut(), |block| block.cast().as_ptr())
    }

    /// The same, zeroed.
    #[must_use]
    pub fn raw_alloc_zeroed(&self, size: usize, align: usize) -> *mut u8 {
        debug_assert!(align.is_power_of_two());
        if isize::try_from(size).is_err() {
            return ptr::null_mut();
        }
        let found = Self::fallibly(|| self.alloc_slow(size.max(1), align, Zeroed::Yes));
        found.map_or(ptr::null_mut(), |block| block.cast().as_ptr())
    }

    /// Frees a block, or null.
    ///
    /// # Safety
    /// 1. The block is null, or live and of this heap.
    /// 2. Nobody uses it any more.
    pub unsafe fn raw_free(&self, block: *mut u8) {
        let Some(block) = NonNull::new(block) else {
            return;
        };
        let shared = self.shared();
        // To the bitmap, not to a magazine: C's mistakes are noticed at once.
        match (shared.sub_slab(block), self.part_to_free()) {
            (Some((slab, _)), Some(part)) => shared.free_own(part, slab.class(), block),
            _ => shared.free(block, None),
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
        if isize::try_from(size).is_err() {
            return ptr::null_mut();
        }
        let (shared, size) = (self.shared(), size.max(1));
        let length = shared.length(old, Call::Realloc);
        // SAFETY: 1. live, and any of its bytes fit. 2. our own.
        if let Some(resized) = unsafe { shared.resize(old, (length, align), (size, align)) } {
            return resized.cast().as_ptr();
        }
        let moved = Self::fallibly(|| {
            if size < length {
                let shorter = self.alloc_shorter(size, align)?;
                Ok(shorter.unwrap_or(NonNull::slice_from_raw_parts(old, length)))
            } else {
                self.alloc(size, align)
            }
        });
        let moved = moved.map_or(ptr::null_mut(), |block| block.cast().as_ptr());
        if let Some(target) = NonNull::new(moved).filter(|target| *target != old) {
            // SAFETY: 1. both are as long, and different.
            unsafe { target.copy_from_nonoverlapping(old, length.min(size)) };
            // SAFETY: 1. live, of this heap. 2. its contents were moved.
            unsafe { self.raw_free(block) };
        }
        moved
    }

    /// Bytes of a block that its user may use: at least as many as were asked for.
    ///
    /// # Safety
    /// 1. The block is live and of this heap.
    #[must_use]
    pub unsafe fn raw_usable_size(&self, block: *mut u8) -> usize {
        NonNull::new(block).map_or(0, |block| self.shared().length(block, Call::UsableSize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena;

    #[test]
    fn what_a_heap_gave_back_has_no_tenant() {
        let mut heap = Heap::new().expect("memory");
        let tenant = |block: *mut u8| arena::tenant(block.addr());
        let blocks = |heap: &Heap| [16, 500, 5_000].map(|size| heap.raw_alloc(size, 8));
        for _ in 0..3 {
            let found = blocks(&heap);
            assert!(found.iter().all(|block| !tenant(*block).is_null()));
            heap.reset();
            assert!(found.iter().all(|block| tenant(*block).is_null()));
        }
        let found = blocks(&heap);
        drop(heap);
        assert!(found.iter().all(|block| tenant(*block).is_null()));
    }
}
