//! `&Heap` as the allocator of collections.

use core::ptr::{self, NonNull};

use allocator_api2::alloc::{AllocError, Allocator, Layout};

use super::Heap;
use super::blocks::Zeroed;

// SAFETY: 1. blocks do not overlap, are as long and aligned as asked, and stay until they are freed or the heap ends,
// which the borrow outlasts. 2. a copy of the reference is the same allocator.
unsafe impl Allocator for &Heap {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.serve(layout, Zeroed::No)
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.serve(layout, Zeroed::Yes)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() > 0 {
            // SAFETY: 1. and 2. what the trait asks of its caller; blocks of bytes are in the list.
            unsafe { self.blocks().free(block) };
        }
    }

    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: 1. and 2. what the trait asks of its caller.
        unsafe { self.change(block, old, new) }
    }

    unsafe fn grow_zeroed(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: 1. and 2. what the trait asks of its caller.
        let grown = unsafe { self.change(block, old, new) }?;
        // SAFETY: 1. the block is as long as the new layout, which is not shorter than the old one.
        let behind = unsafe { grown.cast::<u8>().add(old.size()) };
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
        unsafe { self.change(block, old, new) }
    }
}

impl Heap {
    fn serve(&self, layout: Layout, wanted: Zeroed) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() == 0 {
            // No bytes are no block.
            let place = NonNull::new(ptr::without_provenance_mut(layout.align()));
            let place = place.unwrap_or(NonNull::dangling());
            return Ok(NonNull::slice_from_raw_parts(place, 0));
        }
        let block = self.alloc(layout, wanted).map_err(|_| AllocError)?;
        Ok(NonNull::slice_from_raw_parts(block, layout.size()))
    }

    /// # Safety
    /// 1. The block is live, of this heap, and `old` fits it.
    /// 2. On success nobody uses the old block any more.
    unsafe fn change(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        if old.size() > 0 && new.size() > 0 && new.align() <= old.align() {
            // SAFETY: 1. and 2. our own; a block of bytes is in the list.
            return match unsafe { self.resize(block, new.size()) } {
                Ok(resized) => Ok(NonNull::slice_from_raw_parts(resized, new.size())),
                // The longer block will do instead.
                Err(_) if new.size() <= old.size() => {
                    Ok(NonNull::slice_from_raw_parts(block, old.size()))
                }
                Err(_) => Err(AllocError),
            };
        }
        let moved = self.allocate(new)?;
        let target = moved.cast::<u8>();
        // SAFETY: 1. both are as long as the shorter of the two layouts, and different.
        unsafe { target.copy_from_nonoverlapping(block, old.size().min(new.size())) };
        // SAFETY: 1. live, and `old` fits it. 2. its contents were moved.
        unsafe { self.deallocate(block, old) };
        Ok(moved)
    }
}
