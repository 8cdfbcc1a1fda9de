//! From the bitmaps to a magazine: the slow half of an allocation of a block.

use core::ptr;

use super::tick;
use crate::config::{self, Config};
use crate::hardening::Hardening;
use crate::heap::{self, Wrong};
use crate::os::failpoints;
use crate::reclaim::{self, or_reclaim};
use crate::size_class::SizeClass;
use crate::sync::{Ordering, Slot};
use crate::thread_cache::{LockedCache, Move};
use crate::threads;

/// The magazine of `class` is empty, or the thread has none at hand.
#[cold]
pub(super) fn refill(class: SizeClass, config: &Config) -> *mut u8 {
    let block = try_to_refill(class, config).unwrap_or_else(|wrong| wrong.report());
    reclaim::start_if_wanted(config);
    block
}

fn try_to_refill(class: SizeClass, config: &Config) -> Result<*mut u8, Wrong> {
    let Some(gate) = threads::lock_own_for(class, config) else {
        // Past its clean-up, before it is registered, or without memory for a cache.
        return if threads::is_ready() {
            refill_one(0, class)
        } else {
            Ok(ptr::null_mut())
        };
    };
    let cache = gate.cache();
    let _working = tick::work_on(cache, class)?;
    failpoints::at(failpoints::Point::Gate);
    // After having been held off, the thread finds its magazines as they were.
    let block = cache.magazine(class).pop();
    if !block.is_null() {
        return Ok(block);
    }
    if cache.record(class).goes_alone(class) {
        return refill_one(cache.heap.get() as usize, class);
    }
    refill_magazine(cache, class)
}

/// A batch for an empty magazine, one of which is returned.
fn refill_magazine(cache: LockedCache<'_>, class: SizeClass) -> Result<*mut u8, Wrong> {
    let (record, heap) = (cache.record(class), cache.heap.get() as usize);
    cache.grow(class, Move::Refill);
    record.note(Move::Refill);
    let contents = cache.contents(class);
    if contents.capacity() == 0 {
        // No memory for slots. There may still be a block.
        return refill_one(heap, class);
    }
    let places = contents.for_refill(record.next_batch());
    let Some(blocks) = fill(heap, class, places)? else {
        return Ok(ptr::null_mut());
    };
    if let (true, Some(safeguards)) = (
        config::mode().has(Hardening::RANDOM),
        cache.safeguards.get(),
    ) {
        safeguards.shuffle(&places[..blocks], class);
    }
    Ok(cache.magazine(class).load(contents, blocks))
}

/// [`heap::refill`], after all that nobody uses went back if need be; `None` is out of memory.
fn fill(heap: usize, class: SizeClass, out: &[Slot]) -> Result<Option<usize>, Wrong> {
    or_reclaim(|| Some(heap::refill(heap, class, out)).filter(|taken| *taken > 0))
}

/// One block, straight from heap `heap`.
fn refill_one(heap: usize, class: SizeClass) -> Result<*mut u8, Wrong> {
    let slot = Slot::new(ptr::null_mut());
    // Without one, the slot stays null.
    let _ = fill(heap, class, core::slice::from_ref(&slot))?;
    // ORDERING: on this thread's stack.
    Ok(slot.load(Ordering::Relaxed))
}
