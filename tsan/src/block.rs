//! A block that knows its layout: in its first word, so that it can change threads as one pointer.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

use flagstone::Flagstone;

use super::{Random, expect};

/// Size and alignment of every kind of block: small, medium, gated, spans, mappings. The last ones are rarer.
const LAYOUTS: [(usize, usize); 20] = [
    (16, 16),
    (24, 8),
    (40, 8),
    (64, 64),
    (100, 4),
    (256, 8),
    (700, 8),
    (1024, 1024),
    (3_000, 8),
    (4_096, 4_096),
    (9_000, 8),
    (32 << 10, 8),
    (40_000, 8),
    (100_000, 8),
    (256 << 10, 8),
    (300_000, 8),
    (1 << 20, 65_536),
    (1_200_000, 8),
    (3 << 20, 8),
    (1 << 20, 2 << 20),
];
const SMALL: usize = 12;

fn any_layout(random: &mut Random) -> usize {
    if random.below(16) == 0 {
        random.below(LAYOUTS.len())
    } else {
        random.below(SMALL)
    }
}

fn layout(index: usize) -> Layout {
    let (size, align) = LAYOUTS[index];
    Layout::from_size_align(size, align).expect("a valid layout")
}

/// A live block, its index in [`LAYOUTS`] in its first word and in its last byte.
#[must_use]
pub(crate) struct Block(NonNull<usize>);

impl Block {
    pub(crate) fn alloc(allocator: &Flagstone, random: &mut Random) -> Self {
        let index = any_layout(random);
        // SAFETY: 1. the size is not 0.
        Self::mark(unsafe { allocator.alloc(layout(index)) }, index)
    }

    pub(crate) fn alloc_zeroed(allocator: &Flagstone, random: &mut Random) -> Self {
        let index = any_layout(random);
        // SAFETY: 1. the size is not 0.
        let block = unsafe { allocator.alloc_zeroed(layout(index)) };
        expect(!block.is_null(), c"no memory");
        // SAFETY: 1. inside the block.
        let last = unsafe { block.add(layout(index).size() - 1) };
        // SAFETY: 1. zeroed.
        expect(unsafe { last.read() } == 0, c"a block is not zero");
        Self::mark(block, index)
    }

    /// Writes the index into a fresh block.
    fn mark(block: *mut u8, index: usize) -> Self {
        let block = NonNull::new(block);
        expect(block.is_some(), c"no memory");
        let block = Self(block.expect("checked above").cast());
        // SAFETY: 1. the block is longer than a word.
        unsafe { block.0.write_unaligned(index) };
        let index = u8::try_from(index).expect("few layouts");
        // SAFETY: 1. inside the block, and no part of the first word.
        unsafe { block.last(layout(index.into())).write(index) };
        block
    }

    fn last(&self, layout: Layout) -> NonNull<u8> {
        // SAFETY: 1. inside the block.
        unsafe { self.0.cast::<u8>().add(layout.size() - 1) }
    }

    /// The block's layout; its contents are what [`mark`](Self::mark) wrote.
    fn layout(&self) -> Layout {
        // SAFETY: 1. written by `mark`.
        let index = unsafe { self.0.read_unaligned() };
        expect(index < LAYOUTS.len(), c"a block was overwritten");
        let layout = layout(index);
        // SAFETY: 1. written by `mark`.
        let last = unsafe { self.last(layout).read() };
        expect(usize::from(last) == index, c"a block was overwritten");
        layout
    }

    pub(crate) fn realloc(self, allocator: &Flagstone, random: &mut Random) -> Self {
        let old = self.layout();
        let index = (0..LAYOUTS.len())
            .cycle()
            .skip(any_layout(random))
            .find(|index| LAYOUTS[*index].1 == old.align())
            .expect("the old layout is one");
        let (block, size) = (self.0.as_ptr().cast(), LAYOUTS[index].0);
        // SAFETY: 1. a live block of this layout. 2. the new size is in a valid layout.
        Self::mark(unsafe { allocator.realloc(block, old, size) }, index)
    }

    pub(crate) fn free(self, allocator: &Flagstone) {
        let layout = self.layout();
        // SAFETY: 1. a live block of this layout.
        unsafe { allocator.dealloc(self.0.as_ptr().cast(), layout) };
    }

    pub(crate) fn into_raw(self) -> *mut u8 {
        self.0.as_ptr().cast()
    }

    /// The block that `into_raw` gave; `None` for null.
    pub(crate) fn from_raw(block: *mut u8) -> Option<Self> {
        NonNull::new(block.cast()).map(Self)
    }
}
