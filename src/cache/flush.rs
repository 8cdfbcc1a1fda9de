//! From a magazine to the bitmaps: the slow half of a free of a block.

use core::ptr::NonNull;

use super::tick;
use crate::config::Config;
use crate::error::Misuse;
use crate::heap::{self, Wrong};
use crate::os::failpoints;
use crate::size_class::SizeClass;
use crate::sync::Slot;
use crate::thread_cache::{Move, is_gated};
use crate::threads;

/// The magazine of `class` is full, or the thread has none at hand.
///
/// # Safety
/// 1. The block is one of `class`, and nobody uses it any more.
#[cold]
pub(super) unsafe fn make_room(block: NonNull<u8>, class: SizeClass, config: &Config) {
    // SAFETY: 1. our own: the block is passed on as it is.
    let made = unsafe { try_to_make_room(block, class, config) };
    made.unwrap_or_else(|wrong| wrong.report());
}

/// # Safety
/// 1. As for [`make_room`].
unsafe fn try_to_make_room(
    block: NonNull<u8>,
    class: SizeClass,
    config: &Config,
) -> Result<(), Wrong> {
    let Some(gate) = threads::lock_own_for(class, config) else {
        // SAFETY: 1. our own: no magazine was at hand to take it.
        return unsafe { flush_shared(block, class) };
    };
    let cache = gate.cache();
    let _working = tick::work_on(cache, class)?;
    failpoints::at(failpoints::Point::Gate);
    if is_gated(class) && cache.holds(class, block) {
        let address = block.addr().get();
        return Err(Wrong::new(Misuse::Freed, address, class));
    }
    if cache.magazine(class).push(block) {
        return Ok(());
    }
    if cache.record(class).goes_alone(class) {
        // SAFETY: 1. our own: the magazine was full.
        return unsafe { flush_shared(block, class) };
    }
    if !cache.grow(class, Move::Flush) {
        let blocks = cache.contents(class).blocks();
        cache.flush_oldest(class, cache.record(class).gives(blocks))?;
    }
    cache.record(class).note(Move::Flush);
    if cache.magazine(class).push(block) {
        return Ok(());
    }
    // No memory for slots.
    // SAFETY: 1. our own: the magazine did not take it.
    unsafe { flush_shared(block, class) }
}

/// # Safety
/// 1. The block is one of `class`, and nobody uses it any more.
unsafe fn flush_shared(block: NonNull<u8>, class: SizeClass) -> Result<(), Wrong> {
    // SAFETY: 1. nobody uses it any more, and no magazine holds it: it comes from its user, or from
    // quarantine.
    unsafe { heap::flush(class, &[Slot::new(block.as_ptr())]) }
}
