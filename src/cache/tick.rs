//! What a slow path in a class begins with, once it has the gate.

use crate::heap::Wrong;
use crate::reclaim;
use crate::size_class::SizeClass;
use crate::thread_cache::LockedCache;
use crate::wakeup;

/// Slow paths of a thread between two looks at what is unused.
const TICK: u64 = 256;

/// Marks the count of a thread whose last look left something due: the next slow path goes on.
const GOES_ON: u64 = 1 << 63;

/// While it lives, a child of `fork` knows which magazine may be half changed.
pub(super) struct Working<'a>(LockedCache<'a>);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.end_work();
    }
}

/// Begins a slow path in a class.
pub(super) fn work_on(cache: LockedCache<'_>, class: SizeClass) -> Result<Working<'_>, Wrong> {
    pass(cache)?;
    cache.work_on(class);
    Ok(Working(cache))
}

/// Counts a slow path. Every so often, looks at what is unused.
#[inline]
pub(super) fn pass(cache: LockedCache<'_>) -> Result<(), Wrong> {
    let ticks = cache.ticks.get().wrapping_add(1);
    cache.ticks.set(ticks);
    if ticks.is_multiple_of(TICK) {
        look(cache, ticks)?;
    }
    Ok(())
}

/// Shows that the thread is alive, without coming closer to its next look.
pub(super) fn show_life(cache: LockedCache<'_>) {
    cache.ticks.set(cache.ticks.get().wrapping_add(TICK));
}

#[inline(never)]
fn look(cache: LockedCache<'_>, ticks: u64) -> Result<(), Wrong> {
    let working = Working(cache);
    let goes_on = ticks & GOES_ON != 0;
    if !goes_on {
        cache.count_sharers();
        cache.shrink_unused()?;
        cache.shrink_stock();
    }
    let ticks = ticks & !GOES_ON;
    let more = reclaim::maintain(goes_on)?;
    // OVERFLOW: as that of `ticks`.
    let next = ticks.wrapping_add(TICK - 1) | GOES_ON;
    cache.ticks.set(if more { next } else { ticks });
    drop(working);
    // Not only a free gives blocks back to slabs.
    wakeup::notice();
    Ok(())
}
