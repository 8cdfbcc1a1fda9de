//! A live block and what it has to contain.
//!
//! Of a long block only its ends and a few places between are written and looked at: what lies between
//! is as likely right as they are, and looking at all of it would be most of the time.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::slice;

use crate::{HEAP, SHADOW};

const WORD: usize = size_of::<u64>();
/// Bytes at each end that are looked at.
const END: usize = 64;
/// Up to here all bytes are looked at.
const ALL: usize = 2 * END;
/// Places looked at between the ends, this many bytes each.
const INNER: usize = WORD;
/// Pages at most of which the beginning has to be zero, when zeros were asked for.
const PAGES: usize = 256;
const PAGE: usize = 4096;

/// A live block. Its contents are the pattern of `tag`; no two blocks have the same.
#[derive(Debug)]
#[must_use]
pub(crate) struct Block {
    start: NonNull<u8>,
    layout: Layout,
    tag: u64,
}

// SAFETY: the pointer is the only one to memory that the block owns.
unsafe impl Send for Block {}

/// How memory is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Any,
    Zeroed,
}

impl Block {
    /// Allocates, checks and fills. `Ok(None)` is the allocator's null.
    #[inline]
    pub(crate) fn alloc(layout: Layout, wanted: Wanted, tag: u64) -> Result<Option<Self>, String> {
        assert_ne!(layout.size(), 0, "the size must not be zero");
        let start = match wanted {
            // SAFETY: the size is not zero.
            Wanted::Any => unsafe { HEAP.alloc(layout) },
            // SAFETY: the size is not zero.
            Wanted::Zeroed => unsafe { HEAP.alloc_zeroed(layout) },
        };
        let Some(start) = NonNull::new(start) else {
            return Ok(None);
        };
        let block = Self { start, layout, tag };
        block.admit()?;
        if wanted == Wanted::Zeroed {
            block.check_zero()?;
        }
        block.fill();
        Ok(Some(block))
    }

    /// Changes the size, checks what came along and fills anew. Null gives the old block back.
    #[inline]
    pub(crate) fn realloc(self, size: usize, tag: u64) -> Result<(Self, bool), String> {
        assert_ne!(size, 0, "the size must not be zero");
        let layout = Layout::from_size_align(size, self.layout.align()).expect("a valid layout");
        self.dismiss()?;
        // SAFETY: 1. the block is live and this is its layout. 2. the new layout was checked above.
        let moved = unsafe { HEAP.realloc(self.start.as_ptr(), self.layout, size) };
        let Some(start) = NonNull::new(moved) else {
            self.admit()?;
            return Ok((self, false));
        };
        let mut block = Self {
            start,
            layout,
            ..self
        };
        block.admit()?;
        block
            .check(self.layout.size())
            .map_err(|at| block.fault("did not bring its contents along", at))?;
        block.tag = tag;
        block.fill();
        Ok((block, true))
    }

    /// Checks and frees.
    #[inline]
    pub(crate) fn free(self) -> Result<(), String> {
        self.dismiss()?;
        // SAFETY: the block is live, this is its layout, and `self` ends here.
        unsafe { HEAP.dealloc(self.start.as_ptr(), self.layout) };
        Ok(())
    }

    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.layout.size()
    }

    fn address(&self) -> usize {
        self.start.addr().get()
    }

    #[cold]
    fn fault(&self, what: &str, at: usize) -> String {
        let (start, layout) = (self.address(), self.layout);
        format!("block {start:#x}, {layout:?}, {what} (at {at:#x})")
    }

    /// Checks the address before anything is written there.
    #[inline]
    fn admit(&self) -> Result<(), String> {
        let (start, size) = (self.address(), self.size());
        if !start.is_multiple_of(self.layout.align()) {
            return Err(self.fault("is not aligned", start));
        }
        SHADOW
            .insert(start, size)
            .map_err(|at| self.fault("lies in a live block", at))
    }

    /// Checks the contents before the allocator gets the block back.
    #[inline]
    fn dismiss(&self) -> Result<(), String> {
        self.check(self.size())
            .map_err(|at| self.fault("was overwritten", at))?;
        SHADOW
            .remove(self.address(), self.size())
            .map_err(|at| self.fault("was given back by someone else", at))
    }

    /// Writes the pattern.
    #[inline]
    fn fill(&self) {
        for_each_piece(self.size(), |from, to| {
            for at in (from..to).step_by(WORD) {
                let word = pattern(self.tag, at);
                let place = self.start.as_ptr().wrapping_add(at);
                if to - at >= WORD {
                    // SAFETY: a piece lies in the block.
                    unsafe { place.cast::<u64>().write_unaligned(word) };
                } else {
                    let bytes = word.to_le_bytes();
                    // SAFETY: 1. the last bytes of a piece, which lies in the block. 2. ours and apart.
                    unsafe { place.copy_from_nonoverlapping(bytes.as_ptr(), to - at) };
                }
            }
            true
        });
    }

    /// Whether what a block of `size` bytes was filled with is still there, as far as this one goes;
    /// the address where it is not.
    #[inline]
    fn check(&self, size: usize) -> Result<(), usize> {
        let mut wrong = None;
        for_each_piece(size, |from, to| {
            let to = to.min(self.size());
            for at in (from..to).step_by(WORD) {
                let place = self.start.as_ptr().wrapping_add(at);
                let word = pattern(self.tag, at);
                let is_right = if to - at >= WORD {
                    // SAFETY: inside the block, and written by `fill`, or before a `realloc`.
                    unsafe { place.cast::<u64>().read_unaligned() == word }
                } else {
                    // SAFETY: as above.
                    let bytes = unsafe { slice::from_raw_parts(place, to - at) };
                    *bytes == word.to_le_bytes()[..to - at]
                };
                if !is_right {
                    wrong = Some(at);
                    return false;
                }
            }
            true
        });
        wrong.map_or(Ok(()), |at| Err(self.address() + at))
    }

    /// Whether the block is zero: all of it if it is short, else the beginning of many of its pages too.
    fn check_zero(&self) -> Result<(), String> {
        let size = self.size();
        let is_zero = |from: usize, to: usize| {
            let place = self.start.as_ptr().wrapping_add(from);
            // SAFETY: inside the block, which `alloc_zeroed` initialised.
            let bytes = unsafe { slice::from_raw_parts(place, to - from) };
            // Without an early end it is one vector instruction for many bytes.
            bytes.iter().fold(0, |all, byte| all | byte) == 0
        };
        let mut wrong = (size <= PAGE && !is_zero(0, size)).then_some(0);
        for_each_piece(size, |from, to| {
            if !is_zero(from, to) {
                wrong = Some(from);
            }
            true
        });
        let stride = size.div_ceil(PAGES).next_multiple_of(PAGE);
        let pages = (0..size).step_by(stride);
        wrong = wrong.or_else(|| {
            pages
                .into_iter()
                .find(|page| !is_zero(*page, (page + END).min(size)))
        });
        match wrong {
            None => Ok(()),
            Some(at) => Err(self.fault("is not zero", self.address() + at)),
        }
    }
}

/// The pattern's word at `at`, which is where a piece begins, or a number of words after that.
#[inline]
fn pattern(tag: u64, at: usize) -> u64 {
    (tag ^ at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The parts of a block of `size` bytes that are looked at, until `visit` says to stop. They do not
/// overlap, and each is read as it was written: from its beginning on.
#[inline]
fn for_each_piece(size: usize, mut visit: impl FnMut(usize, usize) -> bool) {
    if size <= ALL {
        visit(0, size);
        return;
    }
    if !visit(0, END) {
        return;
    }
    if size >= 4 * ALL {
        for quarter in 1..4 {
            let at = size / 4 * quarter;
            if !visit(at, at + INNER) {
                return;
            }
        }
    }
    visit(size - END, size);
}
