//! As many blocks as there are, remembered without other memory.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use crate::ALLOC;
use crate::program::{free_quietly, layout};

/// Blocks of one size, each of which holds the address of the one before and its own number.
pub(crate) struct Chain {
    layout: Layout,
    last: *mut u8,
    pub(crate) count: usize,
}

impl Chain {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            layout: layout(size, 8),
            last: ptr::null_mut(),
            count: 0,
        }
    }

    /// Allocates at most `most` blocks, until the allocator answers null.
    pub(crate) fn grow(&mut self, most: usize) {
        while self.count < most {
            // SAFETY: the size is not zero.
            let Some(block) = NonNull::new(unsafe { ALLOC.alloc(self.layout) }) else {
                return;
            };
            // SAFETY: the block begins with room for an address, and is aligned for it.
            unsafe { block.cast::<*mut u8>().write(self.last) };
            // SAFETY: the block is longer than a word.
            let end = unsafe { block.add(self.layout.size() - size_of::<usize>()) };
            // SAFETY: the block ends with room for a word.
            unsafe { end.cast::<usize>().write_unaligned(self.count) };
            self.last = block.as_ptr();
            self.count += 1;
        }
    }

    /// How many blocks make so many bytes.
    pub(crate) fn blocks(&self, bytes: usize) -> usize {
        bytes / self.layout.size()
    }

    /// Frees all blocks after a look at their contents.
    pub(crate) fn free(&mut self) {
        while let Some(block) = NonNull::new(self.last) {
            self.count -= 1;
            // SAFETY: `grow` wrote it, and nobody else has the block.
            let before = unsafe { block.cast::<*mut u8>().read() };
            // SAFETY: the block is longer than a word.
            let end = unsafe { block.add(self.layout.size() - size_of::<usize>()) };
            // SAFETY: `grow` wrote it.
            let number = unsafe { end.cast::<usize>().read_unaligned() };
            assert_eq!(number, self.count, "block {block:p} lost its contents");
            // SAFETY: the block is live, has this layout, and is not used again.
            free_quietly(|| unsafe { ALLOC.dealloc(block.as_ptr(), self.layout) });
            self.last = before;
        }
        assert_eq!(self.count, 0, "blocks of the chain are lost");
    }
}
