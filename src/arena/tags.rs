//! Tags: one byte for each granule of a chunk that says whether a live block begins there, and of
//! which class. Only in the hardened mode; kept with the other metadata, far from the blocks.
//!
//! A tag is written by who holds the block: on the way out to the user, and back. Taking it back is
//! one atomic exchange, so that of two threads that free one block at once, one finds it gone.

use super::{Chunk, owner};
use crate::size_class::{CLASSES, SizeClass};
use crate::sync::{AtomicU8, Ordering};
use crate::units::CHUNK;

/// Bytes of a granule: no two blocks begin in one.
const GRANULE: usize = 16;
/// The tags of one chunk.
const TAGS: usize = CHUNK / GRANULE;

/// All tags of a chunk. All zero is no live block.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Tags([AtomicU8; TAGS]);

// A tag holds the class and one bit of the address.
static_assertions::const_assert!(CLASSES < 128);

/// What the tag of a live block is: never 0.
#[inline]
fn live(address: usize, class: SizeClass) -> u8 {
    // Blocks are multiples of 8: that bit tells a block from the middle of its granule.
    #[expect(clippy::cast_possible_truncation, reason = "below 128, and one bit")]
    {
        ((class.index() + 1) | ((address & 8) << 4)) as u8
    }
}

#[inline]
fn tag_of(address: usize) -> Option<&'static AtomicU8> {
    let chunk: &'static Chunk = owner(address)?;
    Some(&chunk.tags.get()?.0[address % CHUNK / GRANULE])
}

/// Marks the block at `address` live; `false` if a live block is there.
#[inline]
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
#[inline]
#[must_use]
pub(crate) fn mark_free(address: usize, class: SizeClass) -> bool {
    let Some(tag) = tag_of(address) else {
        return false;
    };
    // ORDERING: an exchange decides between two; what follows is ordered by how the block travels.
    tag.swap(0, Ordering::Relaxed) == live(address, class) && address.is_multiple_of(8)
}

/// Whether a live block of `class` begins at `address`.
pub(crate) fn is_live(address: usize, class: SizeClass) -> bool {
    // ORDERING: the caller's block; see `mark_live`.
    let tag = tag_of(address).map(|tag| tag.load(Ordering::Relaxed));
    tag == Some(live(address, class)) && address.is_multiple_of(8)
}
