//! From the bitmaps to a magazine: the slow half of an allocation of a block.

use core::ptr;

use crate::config::{self, Config};
use crate::hardening::Hardening;
use crate::heap::{self, Wrong};
use crate::os::failpoints;
use crate::reclaim::or_reclaim;
use crate::size_class::SizeClass;
use crate::sync::{Ordering, Slot};
use crate::thread_cache::Move;
use crate::threads;

/// The magazine of `class` is empty, or gated, or the thread has none at hand.
#[cold]
pub(super) fn refill(class: SizeClass, config: &Config) -> *mut u8 {
    try_to_refill(class, config).unwrap_or_else(|wrong| wrong.report())
}

fn try_to_refill(class: SizeClass, config: &Config) -> Result<*mut u8, Wrong> {
    let Some(cache) = threads::enter_for(class, config) else {
        // Past its clean-up, before it is registered, or without memory for a cache.
        return if threads::is_ready() {
            refill_one(0, class)
        } else {
            Ok(ptr::null_mut())
        };
    };
    let _held = cache.gate.lock();
    cache.come_back();
    let _working = cache.working_on(class)?;
    failpoints::at(failpoints::Point::Gate);
    // After having been held off, the thread finds its magazines as they were.
    let block = cache.magazine(class).pop();
    if !block.is_null() {
        return Ok(block);
    }
    let (record, heap) = (cache.record(class), cache.heap.get() as usize);
    if record.goes_alone(class) {
        return refill_one(heap, class);
    }
    cache.grow(class, Move::Refill);
    record.note(Move::Refill);
    let (slots, _) = cache.contents(class);
    if slots.is_empty() {
        // No memory for slots. There may still be a block.
        return refill_one(heap, class);
    }
    let batch = record.next_batch();
    let Some(blocks) = fill(heap, class, &slots[1..=batch])? else {
        return Ok(ptr::null_mut());
    };
    if let (true, Some(safeguards)) = (
        config::mode().has(Hardening::RANDOM),
        cache.safeguards.get(),
    ) {
        safeguards.shuffle(&slots[1..=blocks], class);
    }
    Ok(cache.magazine(class).load(slots, blocks))
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
