//! One allocation made on the allocator itself, with contents that can be checked later.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use core::slice;

/// Sizes of every kind: classes near and far, gated ones, spans, mappings, one that may have huge pages.
pub(crate) const SIZES: [usize; 9] = [
    24,
    700,
    4_096,
    20_000,
    40_000,
    200_000,
    400_000,
    2 << 20,
    9 << 20,
];

/// The allocator under test. Tests call it directly: the compiler may remove a pair of calls to the
/// global functions, it never removes these.
pub(crate) type Heap = dyn GlobalAlloc + Sync;

/// Length of the pattern: a prime, so that no block size or page size is a multiple of it and contents
/// that moved by a power of two do not compare equal.
const PERIOD: usize = 8191;

static PATTERN: [u8; PERIOD] = pattern();

static ZEROS: [u8; 4096] = [0; 4096];

const fn pattern() -> [u8; PERIOD] {
    let mut bytes = [0; PERIOD];
    let mut state: u32 = 0x9e37_79b9;
    let mut i = 0;
    while i < PERIOD {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes[i] = state.to_le_bytes()[1];
        i += 1;
    }
    bytes
}

/// A live block. It has no `Drop`: whoever forgets one leaks it, and the tests notice.
///
/// Nothing here allocates, so a block can be used where an allocation would spoil the test.
#[derive(Debug)]
#[must_use]
pub(crate) struct Block {
    ptr: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the pointer is the only one to memory that the block owns.
unsafe impl Send for Block {}

impl Block {
    /// Allocates; `None` when the allocator answers null. The size of `layout` is not zero.
    pub(crate) fn alloc(heap: &Heap, layout: Layout) -> Option<Self> {
        assert_ne!(layout.size(), 0, "the size must not be zero");
        // SAFETY: the size is not zero, checked above.
        let ptr = unsafe { heap.alloc(layout) };
        Some(Self {
            ptr: NonNull::new(ptr)?,
            layout,
        })
    }

    /// Allocates memory that has to be zero; see [`Block::is_zero`].
    pub(crate) fn alloc_zeroed(heap: &Heap, layout: Layout) -> Option<Self> {
        assert_ne!(layout.size(), 0, "the size must not be zero");
        // SAFETY: the size is not zero, checked above.
        let ptr = unsafe { heap.alloc_zeroed(layout) };
        Some(Self {
            ptr: NonNull::new(ptr)?,
            layout,
        })
    }

    /// Allocates, checks the alignment and fills: for tests in which failing to allocate is a failure.
    pub(crate) fn filled(heap: &Heap, size: usize, align: usize, tag: usize) -> Self {
        let layout = Layout::from_size_align(size, align).expect("a valid layout");
        let block = Self::alloc(heap, layout).expect("memory for the test");
        assert!(
            block.is_aligned(),
            "{layout:?} came back at {:#x}",
            block.addr()
        );
        block.fill(tag);
        block
    }

    /// Changes the size; null gives the old block back.
    pub(crate) fn realloc(self, heap: &Heap, new_size: usize) -> Result<Self, Self> {
        assert_ne!(new_size, 0, "the size must not be zero");
        let layout =
            Layout::from_size_align(new_size, self.layout.align()).expect("a valid layout");
        // SAFETY: 1. the block is live and this is its layout. 2. the new layout was checked above.
        let ptr = unsafe { heap.realloc(self.ptr.as_ptr(), self.layout, new_size) };
        match NonNull::new(ptr) {
            Some(ptr) => Ok(Self { ptr, layout }),
            None => Err(self),
        }
    }

    pub(crate) fn free(self, heap: &Heap) {
        // SAFETY: the block is live, this is its layout, and `self` ends here.
        unsafe { heap.dealloc(self.ptr.as_ptr(), self.layout) }
    }

    pub(crate) fn addr(&self) -> usize {
        self.ptr.addr().get()
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn size(&self) -> usize {
        self.layout.size()
    }

    pub(crate) fn is_aligned(&self) -> bool {
        self.addr().is_multiple_of(self.layout.align())
    }

    /// Writes the pattern of `tag` over the whole block.
    pub(crate) fn fill(&self, tag: usize) {
        self.fill_first(tag, self.size());
    }

    /// Writes the pattern of `tag` over the first `len` bytes.
    pub(crate) fn fill_first(&self, tag: usize, len: usize) {
        assert!(len <= self.size(), "only the block can be filled");
        let mut done = 0;
        while done < len {
            let piece = piece(tag, done, len);
            // SAFETY: `done` is less than the size of the block.
            let to = unsafe { self.ptr.add(done) };
            // SAFETY: 1. the piece is readable. 2. `piece` ends it within the block. 3. a static
            // and a block do not overlap.
            unsafe { ptr::copy_nonoverlapping(piece.as_ptr(), to.as_ptr(), piece.len()) };
            done += piece.len();
        }
    }

    /// Whether the first `len` bytes, all of them written before, still are the pattern of `tag`.
    pub(crate) fn holds(&self, tag: usize, len: usize) -> bool {
        assert!(len <= self.size(), "only the block can be checked");
        // SAFETY: the bytes belong to the block and were written, by `fill` or before a `realloc`.
        let bytes = unsafe { slice::from_raw_parts(self.ptr.as_ptr(), len) };
        let mut done = 0;
        while done < len {
            let piece = piece(tag, done, len);
            if &bytes[done..done + piece.len()] != piece {
                return false;
            }
            done += piece.len();
        }
        true
    }

    /// Panics unless the whole block still is the pattern of `tag`.
    #[track_caller]
    pub(crate) fn check(&self, tag: usize) {
        assert!(
            self.holds(tag, self.size()),
            "block {:#x} lost its contents",
            self.addr()
        );
    }

    /// Whether every byte is zero. Only for blocks that came from [`Block::alloc_zeroed`].
    pub(crate) fn is_zero(&self) -> bool {
        // SAFETY: the bytes belong to the block and `alloc_zeroed` initialised them.
        let bytes = unsafe { slice::from_raw_parts(self.ptr.as_ptr(), self.size()) };
        bytes
            .chunks(ZEROS.len())
            .all(|chunk| chunk == &ZEROS[..chunk.len()])
    }

    /// Writes and reads the first and the last byte and nothing between.
    pub(crate) fn is_usable_at_both_ends(&self) -> bool {
        let first = self.ptr.as_ptr();
        // SAFETY: the block is not empty, so its last byte belongs to it.
        let last = unsafe { first.add(self.size() - 1) };
        // SAFETY: the first byte belongs to the block.
        unsafe { first.write_volatile(0xa5) };
        // SAFETY: the last byte belongs to the block.
        unsafe { last.write_volatile(0x5a) };
        // SAFETY: written just above.
        let last_byte = unsafe { last.read_volatile() };
        // SAFETY: written just above.
        let first_byte = unsafe { first.read_volatile() };
        last_byte == 0x5a && (first_byte == 0xa5 || self.size() == 1)
    }
}

/// The part of the pattern of `tag` that starts at byte `at` of a block and ends at byte `end` at most.
fn piece(tag: usize, at: usize, end: usize) -> &'static [u8] {
    // The multiplier spreads neighbouring tags over the pattern.
    let start = (tag % PERIOD * 5003 + at % PERIOD) % PERIOD;
    let len = (PERIOD - start).min(end - at);
    &PATTERN[start..start + len]
}

/// Has this thread take slow paths, some by frees and some by allocations: more blocks come and go than a magazine
/// holds.
pub(crate) fn take_slow_paths(heap: &Heap) {
    let blocks = [(); 20].map(|()| Block::filled(heap, 60_000, 8, 1));
    blocks.into_iter().for_each(|block| block.free(heap));
}
