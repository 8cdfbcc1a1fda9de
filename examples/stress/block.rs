//! One block under test: allocated, filled, checked, resized and freed through the allocator's own
//! methods, so that the compiler cannot optimise a pair away.

use core::alloc::{GlobalAlloc, Layout};
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::slice;

use crate::{GLOBAL, fail, pattern};

/// Sole owner of one allocation, whose samples carry the pattern of `id`. It has no `Drop`: losing
/// one leaks, and the leak is found at the end.
#[must_use]
pub(crate) struct Block {
    start: NonNull<u8>,
    layout: Layout,
    id: u64,
}

// SAFETY: `start` blocks the auto impl; the block is reachable through this value alone.
unsafe impl Send for Block {}

impl Block {
    /// `None` if the allocator has no memory. `layout` must not be empty.
    pub(crate) fn new(layout: Layout, id: u64) -> Option<Self> {
        assert_ne!(layout.size(), 0, "the mix makes no empty blocks");
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { GLOBAL.alloc(layout) })?;
        let mut block = Self { start, layout, id };
        block.check_alignment("alloc");
        block.fill();
        Some(block)
    }

    /// As `new`, by `alloc_zeroed`; every byte is looked at.
    pub(crate) fn new_zeroed(layout: Layout, id: u64) -> Option<Self> {
        assert_ne!(layout.size(), 0, "the mix makes no empty blocks");
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { GLOBAL.alloc_zeroed(layout) })?;
        let mut block = Self { start, layout, id };
        block.check_alignment("alloc_zeroed");
        block.check_zero();
        block.fill();
        Some(block)
    }

    pub(crate) fn size(&self) -> usize {
        self.layout.size()
    }

    /// Resizes and checks that the common part was kept. `false` if the allocator has no memory;
    /// the block is then as it was. `size` must be valid with the block's alignment and not zero.
    pub(crate) fn resize(&mut self, size: usize) -> bool {
        let align = self.layout.align();
        let layout = Layout::from_size_align(size, align).expect("the mix bounds sizes");
        assert_ne!(size, 0, "the mix makes no empty blocks");
        self.check("before realloc");
        // SAFETY: 1. allocated by GLOBAL and not freed, since `self` owns it. 2. with this layout.
        // 3. the size is not zero. 4. it is valid with this alignment, or `layout` would not exist.
        let moved = unsafe { GLOBAL.realloc(self.start.as_ptr(), self.layout, size) };
        let Some(start) = NonNull::new(moved) else {
            self.check("after a realloc that failed");
            return false;
        };
        let old = self.layout.size();
        *self = Self {
            start,
            layout,
            id: self.id,
        };
        self.check_alignment("realloc");
        self.check_samples(pattern::samples(old), "after realloc");
        self.fill();
        true
    }

    /// Ends the process if a sampled byte is not what was written. `when` is for the message.
    pub(crate) fn check(&self, when: &str) {
        self.check_samples(pattern::samples(self.layout.size()), when);
    }

    /// Checks and frees. Returns the size.
    pub(crate) fn release(self, when: &str) -> usize {
        self.check(when);
        // SAFETY: 1. allocated by GLOBAL and not freed, since `self` owned it until now. 2. with
        // this layout.
        unsafe { GLOBAL.dealloc(self.start.as_ptr(), self.layout) };
        self.layout.size()
    }

    fn fill(&mut self) {
        let start = self.start.as_ptr().cast::<MaybeUninit<u8>>();
        // SAFETY: 1. the block is ours alone. 2. it is `size` bytes long. 3. bytes need no
        // alignment and `MaybeUninit` no initial value.
        let block = unsafe { slice::from_raw_parts_mut(start, self.layout.size()) };
        pattern::fill(block, self.id);
    }

    /// `samples` were filled before the block got its present size; what lies beyond it is gone.
    fn check_samples(&self, samples: impl Iterator<Item = core::ops::Range<usize>>, when: &str) {
        for sample in samples {
            let sample = sample.start..sample.end.min(self.layout.size());
            if sample.is_empty() {
                break;
            }
            // SAFETY: `start` lies inside the block.
            let start = unsafe { self.start.add(sample.start) };
            // SAFETY: 1. the sample lies inside the block. 2. `fill` wrote it, and `realloc` keeps
            // what was written. 3. nobody else writes.
            let bytes = unsafe { slice::from_raw_parts(start.as_ptr(), sample.len()) };
            if let Some((at, expected, found)) = pattern::mismatch(bytes, sample.start, self.id) {
                self.report(at, expected, found, when);
            }
        }
    }

    fn check_zero(&self) {
        // SAFETY: 1. the block is `size` bytes long. 2. `alloc_zeroed` initialised them all. 3.
        // nobody else writes.
        let bytes = unsafe { slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) };
        if bytes.iter().any(|byte| *byte != 0) {
            let at = bytes.iter().position(|byte| *byte != 0).unwrap_or(0);
            self.report(at, 0, bytes[at], "after alloc_zeroed");
        }
    }

    fn check_alignment(&self, method: &str) {
        if !self.start.addr().get().is_multiple_of(self.layout.align()) {
            let Self { start, layout, .. } = self;
            let (size, align) = (layout.size(), layout.align());
            fail(format_args!(
                "{method} of {size} bytes aligned to {align} returned {start:p}"
            ));
        }
    }

    fn report(&self, at: usize, expected: u8, found: u8, when: &str) -> ! {
        let Self { start, layout, .. } = self;
        let (size, align) = (layout.size(), layout.align());
        fail(format_args!(
            "block {start:p} of {size} bytes aligned to {align}: \
             byte {at} is {found:#04x}, not {expected:#04x}, {when}"
        ))
    }
}
