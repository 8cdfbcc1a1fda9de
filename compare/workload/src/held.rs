//! Blocks that find out, when they are freed, whether somebody else wrote to them.

use super::block::{Block, BlockLayout};
use super::mapped::Zeroed;
use super::random::mix;

/// First and last word do not overlap.
pub(crate) const LEAST: usize = 2 * size_of::<u64>();

/// Which pages of a block are written.
#[derive(Clone, Copy)]
pub(crate) enum Touch {
    /// Each of them, as by a program that uses what it asked for.
    All,
    /// The first and the last: address space is all that matters.
    Ends,
}

/// The owner of one block, or of none. Dropping it leaks the block.
#[derive(Default)]
pub(crate) struct Held {
    block: Option<Block>,
    size: u32,
    tag: u32,
}

// SAFETY: 1. no block, size and tag zero. 2. aligned to 8.
unsafe impl Zeroed for Held {}

impl Held {
    /// Allocates `size` bytes and marks their first and last word with `tag`.
    pub(crate) fn alloc(size: usize, tag: u32, touch: Touch) -> Self {
        assert!(size >= LEAST, "a block holds its first and its last word");
        let layout = BlockLayout::new(size);
        let mark = mark(tag);
        let block = Block::alloc(layout, mark);
        if matches!(touch, Touch::All) && size > 4096 {
            // SAFETY: 1. allocated above. 2. with this layout.
            unsafe { block.touch_pages(layout, mark) };
        }
        // SAFETY: 1. the block's last word lies within its `size` bytes.
        let last = unsafe { last_word(block, size) };
        // SAFETY: 1. valid for a word, aligned or not.
        unsafe { last.write_unaligned(!mark) };
        Self {
            block: Some(block),
            size: size as u32,
            tag,
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.size as usize
    }

    /// A number that is unlike those of other blocks.
    pub(crate) fn tag(&self) -> u32 {
        self.tag
    }

    /// Frees the block if there is one, and returns its size.
    pub(crate) fn free(self) -> Result<usize, String> {
        let Some(block) = self.block else {
            return Ok(0);
        };
        let mark = mark(self.tag);
        // SAFETY: 1. `self` owns the block, so it is live.
        let first = unsafe { block.word() };
        // SAFETY: 1. live, and of this size.
        let last = unsafe { last_word(block, self.size()) };
        // SAFETY: 1. within the block. 2. written by `alloc`.
        let last = unsafe { last.read_unaligned() };
        if (first, last) != (mark, !mark) {
            return Err(format!(
                "a live block of {} bytes has been overwritten: {first:#x}, {last:#x}",
                self.size
            ));
        }
        // SAFETY: 1. live, and its owner ends here. 2. the layout of `alloc`.
        unsafe { block.free(BlockLayout::new(self.size())) };
        Ok(self.size())
    }
}

fn mark(tag: u32) -> u64 {
    mix(u64::from(tag))
}

/// # Safety
/// 1. The block is live and of `size` bytes, at least a word.
unsafe fn last_word(block: Block, size: usize) -> *mut u64 {
    let start = block.address().as_ptr();
    // SAFETY: 1. the result lies within the block, a word before its end.
    unsafe { start.byte_add(size - size_of::<u64>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_last_byte_is_found() {
        let held = Held::alloc(77, 1, Touch::All);
        let block = held.block.expect("it was allocated");
        // SAFETY: 1. the block has 77 bytes.
        let last = unsafe { block.address().cast::<u8>().byte_add(76) };
        // SAFETY: 1. within the block, and written by `alloc`.
        let byte = unsafe { last.read() };
        // SAFETY: 1. as above.
        unsafe { last.write(!byte) };
        assert!(held.free().is_err());
        assert_eq!(Held::alloc(77, 1, Touch::All).free(), Ok(77));
    }
}
