//! Blocks straight from the global allocator, without the bookkeeping of `Box` or `Vec`.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error, realloc};
use std::ptr::NonNull;

const ALIGN: usize = align_of::<u64>();
const PAGE: usize = 4096;

/// The layout of a [`Block`]: at least one word, aligned to a word.
#[derive(Clone, Copy)]
pub(crate) struct BlockLayout(u32);

impl BlockLayout {
    #[inline]
    pub(crate) fn new(size: usize) -> Self {
        assert!(
            size >= size_of::<u64>(),
            "a block holds at least its first word"
        );
        Self(u32::try_from(size).expect("blocks stay below 4 GiB"))
    }

    #[inline(always)]
    pub(crate) fn size(self) -> usize {
        self.0 as usize
    }

    #[inline(always)]
    fn layout(self) -> Layout {
        // SAFETY: 1. ALIGN is a power of two. 2. a u32, rounded up, is far below isize::MAX.
        unsafe { Layout::from_size_align_unchecked(self.size(), ALIGN) }
    }
}

/// A fresh allocation that nobody has written to. Dropping it leaks the block.
pub(crate) struct Unwritten(NonNull<u64>);

impl Unwritten {
    #[inline(always)]
    pub(crate) fn alloc(layout: BlockLayout) -> Self {
        // SAFETY: 1. the size is not zero (`BlockLayout::new`).
        let address = unsafe { alloc(layout.layout()) };
        Self(checked(address, layout))
    }

    /// Writes the first word, as a program would.
    #[inline(always)]
    pub(crate) fn write(self, word: u64) -> Block {
        // SAFETY: 1. valid for the layout's size, which is at least a word. 2. aligned to a word.
        unsafe { self.0.write(word) };
        Block(self.0)
    }
}

/// Ends the program if the allocator had no memory.
#[inline(always)]
fn checked(address: *mut u8, layout: BlockLayout) -> NonNull<u64> {
    NonNull::new(address.cast::<u64>()).unwrap_or_else(|| handle_alloc_error(layout.layout()))
}

/// A handle to an allocated block whose first word has been written. Dropping it leaks the block.
#[derive(Clone, Copy)]
pub(crate) struct Block(NonNull<u64>);

// SAFETY: 1. a block is plain memory with no tie to the thread that allocated it.
unsafe impl Send for Block {}

impl Block {
    /// Allocates a block and writes its first word.
    #[inline(always)]
    pub(crate) fn alloc(layout: BlockLayout, word: u64) -> Self {
        Unwritten::alloc(layout).write(word)
    }

    /// Allocates a block of zeros.
    #[inline(always)]
    pub(crate) fn alloc_zeroed(layout: BlockLayout) -> Self {
        // SAFETY: 1. the size is not zero (`BlockLayout::new`).
        let address = unsafe { alloc_zeroed(layout.layout()) };
        Self(checked(address, layout))
    }

    /// Makes the block larger or smaller; it may move.
    ///
    /// # Safety
    /// 1. The block has not been freed, and no copy of the handle is used again.
    /// 2. `old` is the layout it was allocated with.
    #[inline(always)]
    pub(crate) unsafe fn realloc(self, old: BlockLayout, new: BlockLayout) -> Self {
        let start = self.0.as_ptr().cast::<u8>();
        // SAFETY: 1. live, and 2. of this layout, by the caller's promise. 3. the new size is
        // neither zero nor near isize::MAX (`BlockLayout::new`).
        let address = unsafe { realloc(start, old.layout(), new.size()) };
        Self(checked(address, new))
    }

    #[inline(always)]
    pub(crate) fn address(self) -> NonNull<u64> {
        self.0
    }

    /// # Safety
    /// 1. The block has not been freed.
    #[inline(always)]
    pub(crate) unsafe fn word(self) -> u64 {
        // SAFETY: 1. live by the caller's promise. 2. written by `alloc`.
        unsafe { self.0.read() }
    }

    /// Writes one word in each page that the block covers.
    ///
    /// # Safety
    /// 1. The block has not been freed. 2. `layout` is the one it was allocated with.
    #[inline]
    pub(crate) unsafe fn touch_pages(self, layout: BlockLayout, word: u64) {
        let mut offset = 0;
        while offset + size_of::<u64>() <= layout.size() {
            // SAFETY: 1. the word at `offset` ends within the block.
            let page = unsafe { self.0.byte_add(offset) };
            // SAFETY: 1. within the block. 2. `offset` is a multiple of PAGE, so aligned.
            unsafe { page.write(word) };
            offset += PAGE;
        }
    }

    /// The block's bytes.
    ///
    /// # Safety
    /// 1. The block has not been freed. 2. `layout` is the one it was allocated with. 3. Nobody
    ///    else uses the block during `'a`. 4. Every byte has been written.
    pub(crate) unsafe fn bytes<'a>(self, layout: BlockLayout) -> &'a [u8] {
        // SAFETY: 1.-4. as promised by the caller.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast::<u8>(), layout.size()) }
    }

    /// Writes every byte.
    ///
    /// # Safety
    /// 1. The block has not been freed. 2. `layout` is the one it was allocated with.
    pub(crate) unsafe fn fill(self, layout: BlockLayout, byte: u8) {
        // SAFETY: 1. the block is `layout.size()` bytes, by the caller's promise.
        unsafe { self.0.cast::<u8>().write_bytes(byte, layout.size()) };
    }

    /// # Safety
    /// 1. The block has not been freed, and no copy of the handle is used again.
    /// 2. `layout` is the one it was allocated with.
    #[inline(always)]
    pub(crate) unsafe fn free(self, layout: BlockLayout) {
        // SAFETY: 1. live, and 2. of this layout, by the caller's promise.
        unsafe { dealloc(self.0.as_ptr().cast::<u8>(), layout.layout()) };
    }
}
