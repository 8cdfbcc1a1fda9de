//! Mappings that grow and shrink.

use core::ptr::NonNull;

use super::{back, cache, enter, guarded, hand_out, leave, span};
use crate::os;
use crate::units::round_up;

/// Changes the length of a block whose first `used` bytes are in use to `size`: a mapping, moved if need be, to
/// one of `room` bytes; a span, if its units will do. `None` leaves it as it was. The result is aligned as the
/// block was, to a page at most.
///
/// # Safety
/// 1. On success nobody uses the old block any more.
pub(crate) unsafe fn resize(
    block: NonNull<u8>,
    used: usize,
    size: usize,
    room: usize,
) -> Option<NonNull<u8>> {
    let length = round_up(room, os::page_size())?;
    let Some(mapping) = leave(block) else {
        return span::suits(block, size).then_some(block);
    };
    if guarded::is_apart() {
        // SAFETY: 1. it was just taken out of the table. 2. the caller's 1.
        let moved = unsafe { mapping.resize(length) };
        enter(mapping);
        return moved;
    }
    let old = mapping.length.get();
    if (length <= old && old - length < cache::REST)
        || (length > old && cache::absorb(mapping, length - old))
    {
        mapping.asked.set(length);
        enter(mapping);
        return Some(block);
    }
    if let Some(target) = (length > old)
        .then(|| cache::take_fitting(length))
        .flatten()
    {
        // Copying to pages that are there costs less than new pages, and keeps fewer.
        // SAFETY: 1. two mappings of this thread's, at least so long.
        unsafe { target.base().copy_from_nonoverlapping(block, used.min(old)) };
        back::put(mapping);
        return Some(hand_out(target, length));
    }
    let rest = if length < old {
        cache::cut(mapping, length)
    } else {
        None
    };
    // SAFETY: 1. the mapping was just taken out of the table. 2. the caller's 1.
    let moved = rest.map_or_else(|| unsafe { os::remap(block, old, length) }, |_| Some(block));
    if let Some(base) = moved {
        mapping.set(base, length);
        mapping.asked.set(length);
    }
    enter(mapping);
    if let Some(rest) = rest {
        back::put(rest);
    }
    moved
}
