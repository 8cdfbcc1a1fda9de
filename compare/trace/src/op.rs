//! `Op`: one operation of a trace, as a replay reads it.

use std::alloc::Layout;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// `alloc` of a block for the slot, which is empty.
    Alloc,
    /// `alloc_zeroed` of a block for the slot, which is empty.
    AllocZeroed,
    /// `realloc` of the slot's block.
    Realloc,
    /// `dealloc` of the slot's block; the slot is empty then.
    Free,
}

/// One operation. Only the reader of this crate makes them; [`Trace`](crate::Trace) says what holds
/// for all of a trace's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    size: u64,
    slot: u32,
    thread: u16,
    align_log2: u8,
    kind: Kind,
}

// A replay streams through millions of them: four to a cache line.
const _: () = assert!(size_of::<Op>() == 16);

impl Op {
    /// `None` without a layout of this size and alignment, and for size 0, which no `GlobalAlloc` is
    /// asked for.
    pub(crate) fn new(
        kind: Kind,
        thread: u16,
        slot: u32,
        size: u64,
        align_log2: u8,
    ) -> Option<Self> {
        let align = 1_usize.checked_shl(align_log2.into())?;
        let bytes = usize::try_from(size).ok().filter(|&bytes| bytes > 0)?;
        Layout::from_size_align(bytes, align).ok()?;
        Some(Self {
            size,
            slot,
            thread,
            align_log2,
            kind,
        })
    }

    /// What the operation does.
    #[inline]
    pub fn kind(self) -> Kind {
        self.kind
    }

    /// The slot: below [`Trace::slots`](crate::Trace::slots).
    #[inline]
    pub fn slot(self) -> usize {
        self.slot as usize
    }

    /// The thread: below [`Trace::threads`](crate::Trace::threads).
    #[inline]
    pub fn thread(self) -> usize {
        self.thread.into()
    }

    /// Bytes, never 0: of a reallocation the new ones, of a free those that the block has.
    #[inline]
    pub fn size(self) -> usize {
        // `new` saw that it fits.
        self.size as usize
    }

    /// The alignment in bytes, the same for all operations on a block.
    #[inline]
    pub fn align(self) -> usize {
        1 << self.align_log2
    }

    /// Size and alignment. The layout that a reallocation starts from is that of the slot's block
    /// so far, which a replay keeps.
    #[inline]
    pub fn layout(self) -> Layout {
        // SAFETY: 1. and 2. `new` made a layout of the same two numbers.
        unsafe { Layout::from_size_align_unchecked(self.size(), self.align()) }
    }
}
