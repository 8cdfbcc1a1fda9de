//! What is due goes back, about once in a purge delay for the whole process; without memory, all that nobody uses.

use crate::arena::{self, Age};
use crate::config;
use crate::demand::DEMAND;
use crate::heap::{self, Wrong};
use crate::large;
use crate::os;
use crate::sync::{GuardedU64, OwnLines};
use crate::thread_cache::briefly;
use crate::threads::{self, Part, parked};
use crate::wakeup;

/// When free pages were last looked at, in milliseconds.
static LOOKED_AT: OwnLines<GuardedU64> = OwnLines(GuardedU64::new(0));

/// Whether a purge delay has passed since the last look, which is noted if so: two where there is a background thread that
/// looks by itself. Of two threads at once both may hear so, which costs a second look.
fn is_time() -> bool {
    let (now, delay) = (os::now_ms(), config::purge_delay_ms());
    let patience = if wakeup::is_awake() { 2 * delay } else { delay };
    if now < LOOKED_AT.get() + patience {
        return false;
    }
    LOOKED_AT.set(now);
    true
}

/// Gives back some of what is due: about once in a purge delay for the whole process, and when it
/// `goes_on`. Returns whether it does, at the thread's next slow path.
pub(crate) fn maintain(goes_on: bool) -> Result<bool, Wrong> {
    let begins = is_time();
    if begins {
        DEMAND.look(os::now_ms(), config::purge_delay_ms());
        parked::try_to_empty(Age::Due, 1)?;
    }
    if !begins && !goes_on {
        return Ok(false);
    }
    // Each a part, as much as a call may.
    let units = arena::decay(Age::Due);
    let bytes = large::decay(Age::Due);
    Ok(heap::some_holes(begins) || units || bytes > 0)
}

/// Gives back what is due, wherever it is; about how many bytes went meanwhile. No lock is held.
pub(super) fn maintain_all() -> usize {
    let before = arena::given_back();
    LOOKED_AT.set(os::now_ms());
    DEMAND.look(LOOKED_AT.get(), config::purge_delay_ms());
    let emptied = parked::try_to_empty(Age::Due, usize::MAX);
    emptied.unwrap_or_else(|wrong| wrong.report());
    let mut bytes = heap::old_holes();
    while arena::decay(Age::Due) {}
    loop {
        match large::decay(Age::Due) {
            0 => break,
            more => bytes += more,
        }
    }
    bytes + arena::given_back().wrapping_sub(before)
}

/// Gives the spans to the arena that the calling thread keeps. Those of others wait for a purge.
fn empty_own_stock() {
    briefly(|cache| {
        if let Some(stock) = cache.stock() {
            stock.release(Age::Any);
        }
    });
}

/// What `attempt` gives, or gives once all that nobody uses went back to the kernel: empty chunks and
/// cached mappings of one kind must not be what keeps another from memory.
pub(crate) fn or_reclaim<T>(attempt: impl Fn() -> Option<T>) -> Result<Option<T>, Wrong> {
    if DEMAND.is_tight() {
        // Below the limit of a control group: rather nothing kept than killed.
        empty_own_stock();
        arena::decay(Age::Any);
        large::decay(Age::Any);
        DEMAND.relieved();
    }
    if let Some(found) = attempt() {
        return Ok(Some(found));
    }
    threads::adopt_orphans(Part::Rest);
    parked::try_to_empty(Age::Any, usize::MAX)?;
    heap::spares();
    empty_own_stock();
    arena::decay(Age::Any);
    large::decay(Age::Any);
    Ok(attempt())
}
