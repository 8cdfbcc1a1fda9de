//! `&Heap` as the allocator of collections.

use core::ptr::NonNull;

use allocator_api2::alloc::{AllocError, Allocator, Layout};

use super::Heap;
use crate::arena::Zeroed;

// SAFETY: 1. blocks do not overlap, are as long and aligned as asked, and stay until they are freed or the heap ends,
// which the borrow outlasts. 2. a copy of the reference is the same allocator.
unsafe impl Allocator for &Heap {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.alloc(layout.size(), layout.align())
            .map_err(|_| AllocError)
    }

    #[inline]
    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.alloc_slow(layout.size(), layout.align(), Zeroed::Yes)
            .map_err(|_| AllocError)
    }

    #[inline]
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: 1. and 2. what the trait asks of its caller.
        unsafe { self.free(block, layout.size(), layout.align()) };
    }

    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: 1. and 2. what the trait asks of its caller.
        unsafe { self.resize(block, old, new) }
    }

    unsafe fn grow_zeroed(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: 1. and 2. what the trait asks of its caller.
        let grown = unsafe { self.resize(block, old, new) }?;
        let first = grown.cast::<u8>();
        // SAFETY: 1. the block is as long as the new layout, which is not shorter than the old one.
        let behind = unsafe { crate::ptr::advance::<u8>(first, old.size()) };
        // SAFETY: 1. as above.
        unsafe { behind.write_bytes(0, grown.len() - old.size()) };
        Ok(grown)
    }

    unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: 1. and 2. what the trait asks of its caller.
        unsafe { self.resize(block, old, new) }
    }
}

impl Heap {
    /// # Safety
    /// 1. The block is live, of this heap, and `old` fits it.
    /// 2. On success nobody uses the old block any more.
    unsafe fn resize(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        if old.size() > 0 && new.size() > 0 {
            let (from, to) = ((old.size(), old.align()), (new.size(), new.align()));
            // SAFETY: 1. and 2. our own.
            if let Some(resized) = unsafe { self.shared().resize(block, from, to) } {
                return Ok(resized);
            }
        }
        let moved = if new.size() < old.size() {
            let shorter = self.alloc_shorter(new.size(), new.align());
            match shorter.map_err(|_| AllocError)? {
                Some(moved) => moved,
                None => return Ok(NonNull::slice_from_raw_parts(block, old.size())),
            }
        } else {
            self.allocate(new)?
        };
        let target = moved.cast::<u8>();
        // SAFETY: 1. both are as long as the shorter of the two layouts, and different.
        unsafe { target.copy_from_nonoverlapping(block, old.size().min(new.size())) };
        // SAFETY: 1. live, and `old` fits it. 2. its contents were moved.
        unsafe { self.deallocate(block, old) };
        Ok(moved)
    }
}
