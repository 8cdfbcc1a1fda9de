//! Tags: one byte for each granule of a chunk that says whether a live block begins there, and of
//! which class. Only in the hardened mode; kept with the other metadata, far from the blocks.
//!
//! A tag is written by who holds the block: on the way out to the user, and back.

use core::ptr::NonNull;

use super::ARENA;
use crate::os::{self, PageLen};
use crate::size_class::{CLASSES, SizeClass};
use crate::sync::{AtomicU8, Ordering};
use crate::units::{CHUNK, UNIT};

/// Bytes of a granule: no two blocks begin in one.
const GRANULE: usize = 16;
/// The tags of one chunk.
const TAGS: usize = CHUNK / GRANULE;
/// The same bytes, in units.
const LENGTH: PageLen = PageLen::units(TAGS / UNIT);

/// All tags of a chunk. All zero is no live block.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Tags([AtomicU8; TAGS]);

impl Tags {
    /// Gives their memory back; if the kernel refuses, they are as they were: without a live block, all zero.
    pub(super) fn discard(&'static self) {
        // SAFETY: 1. our own metadata, whole pages of zeros; who reads them with a stale pointer finds zeros still.
        let _ = unsafe { os::discard(NonNull::from(self).cast(), LENGTH) };
    }
}

static_assertions::const_assert!(LENGTH.bytes() == TAGS);
// A tag holds the class and one bit of the address.
static_assertions::const_assert!(CLASSES < 128);

/// What the tag of a live block is: never 0.
#[inline(always)]
fn live(address: usize, class: SizeClass) -> u8 {
    // Blocks are multiples of 8: that bit tells a block from the middle of its granule.
    #[expect(clippy::cast_possible_truncation, reason = "below 128, and one bit")]
    {
        ((class.index() + 1) | ((address & 8) << 4)) as u8
    }
}

#[inline(always)]
fn tag_of(address: usize) -> Option<&'static AtomicU8> {
    Some(&ARENA.owners.tags(address)?.0[address % CHUNK / GRANULE])
}

/// Marks the block at `address` live; `false` if a live block is there.
#[inline(always)]
#[must_use]
pub(crate) fn mark_live(address: usize, class: SizeClass) -> bool {
    let Some(tag) = tag_of(address) else {
        return false;
    };
    // ORDERING: the block is this thread's; it reaches others by what the user does.
    let was_free = tag.load(Ordering::Relaxed) == 0;
    tag.store(live(address, class), Ordering::Relaxed);
    was_free
}

/// Marks the block at `address` free; `false` if there is no live block of `class`.
#[inline(always)]
#[must_use]
pub(crate) fn mark_free(address: usize, class: SizeClass) -> bool {
    let Some(tag) = tag_of(address) else {
        return false;
    };
    // ORDERING: the caller's block. Of two threads that free it at the very same time both may find it
    // live; then the second that is handed out, or flushed, is found out (an atomic exchange would cost
    // as much as all the rest).
    let was_live = tag.load(Ordering::Relaxed) == live(address, class);
    tag.store(0, Ordering::Relaxed);
    was_live && address.is_multiple_of(8)
}

/// Whether a live block of `class` begins at `address`.
pub(crate) fn is_live(address: usize, class: SizeClass) -> bool {
    // ORDERING: the caller's block; see `mark_live`.
    let tag = tag_of(address).map(|tag| tag.load(Ordering::Relaxed));
    tag == Some(live(address, class)) && address.is_multiple_of(8)
}
