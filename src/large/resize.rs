//! Mappings that grow and shrink.

use core::ptr::NonNull;

use super::{Mapping, cache, evict, guarded, hand_out, insert, remove};
use crate::demand::DEMAND;
use crate::os::{self, PageLen};
use crate::units::round_up;

/// What grows by less than one in so many parts has its pages moved by the kernel instead of copied.
const COPIED: usize = 4;

/// Changes the length of a live mapping of whose bytes `used` are in use, moving it if it must; `None` leaves it
/// as it was. The result is aligned to a page only.
///
/// # Safety
/// 1. On success nobody uses the old block any more.
pub(crate) unsafe fn resize(block: NonNull<u8>, used: usize, size: usize) -> Option<NonNull<u8>> {
    let length = round_up(size, os::page_size())?;
    let mapping = remove(block)?;
    if guarded::is_apart() {
        // SAFETY: 1. just removed from the table. 2. that is what this function asks for.
        let moved = unsafe { mapping.resize(length) };
        insert(mapping);
        return moved;
    }
    let old = mapping.length.get();
    if length > old && !cache::absorb(mapping, length - old) {
        // SAFETY: 1. what it moves is the block that this function was given under the same
        // condition.
        return unsafe { grow(mapping, used, length) };
    }
    let rest = if length < old {
        cache::cut(mapping, length)
    } else {
        None
    };
    mapping.asked.set(length);
    insert(mapping);
    if let Some(rest) = rest {
        evict::cache_or_unmap(rest);
    }
    Some(block)
}

/// Lengthens a mapping that was taken out of the table, behind which there is no room.
///
/// # Safety
/// 1. On success nobody uses the old block any more.
unsafe fn grow(mapping: &'static Mapping, used: usize, length: usize) -> Option<NonNull<u8>> {
    let (block, old) = (mapping.base(), mapping.length.get());
    if length - old >= old / COPIED
        && let Some(target) = cache::reuse_fitting(length)
    {
        // Copying to pages that are there costs no more than so many new ones, and keeps fewer.
        // SAFETY: 1. two mappings of this thread's, at least so long.
        unsafe { target.base().copy_from_nonoverlapping(block, used.min(old)) };
        evict::cache_or_unmap(mapping);
        return Some(hand_out(target, length));
    }
    // SAFETY: 1. the mapping is in no list. 2. that is what this function asks for.
    let moved = unsafe { os::remap(block, mapping.pages(), PageLen::kept(length)) };
    if let Some(base) = moved {
        DEMAND.note_fresh(length.saturating_sub(old));
        mapping.set(base, length);
        mapping.is_full.set(0);
        mapping.asked.set(length);
        // What the kernel lengthened, it takes for one.
        mapping.is_joined.set(0);
    }
    insert(mapping);
    moved
}
