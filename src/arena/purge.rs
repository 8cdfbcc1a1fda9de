//! Returning memory: dirty units by `madvise` once they are old or too many, empty chunks by
//! `munmap`.

use super::chunk::Chunk;
use super::{
    ARENA, NO_BIN, append_by_age, dirty_bytes, enter, rebin, remove_by_age, set_dirty, unbin,
};
use crate::config;
use crate::os::{self, failpoints};
use crate::sync::{AtomicUsize, Ordering};
use crate::units::{CHUNK, UNIT, UnitIndex, runs};

/// What to give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// Dirty units past the delay or beyond the budget.
    Due,
    /// All of them.
    Any,
}

/// Bytes given back to the kernel since the process began, modulo 2^64.
static GIVEN_BACK: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn given_back() -> usize {
    // ORDERING: statistics.
    GIVEN_BACK.load(Ordering::Relaxed)
}

/// Gives dirty units back to the kernel.
pub(crate) fn decay(age: Age) {
    let mut kept = 0;
    while let Some(work) = next_work(age, kept) {
        match work.purge() {
            0 => kept += 1,
            purged => {
                // ORDERING: statistics.
                GIVEN_BACK.fetch_add(purged, Ordering::Relaxed);
            }
        }
    }
}

/// Units of one chunk claimed for purging. Holding it proves that nobody else can claim them.
struct Work {
    chunk: &'static Chunk,
    /// The dirty units among those claimed.
    units: u64,
    /// What was taken out of the free units: all of them where the addresses go too.
    claimed: u64,
}

/// Claims dirty units that are due, in the chunk not looked at for longest. After `refused` refusals of the
/// kernel the rest waits for the next time.
fn next_work(age: Age, refused: usize) -> Option<Work> {
    const REFUSALS: usize = 3;
    if refused >= REFUSALS {
        return None;
    }
    let _held = ARENA.lock.lock();
    loop {
        let chunk = ARENA.oldest.get()?;
        let is_any = age == Age::Any || dirty_bytes() > config::dirty_budget();
        let units = if is_any {
            chunk.dirty.get()
        } else {
            look(chunk)?
        };
        if units != 0 {
            return Some(take(chunk, units));
        }
    }
}

/// Looks at a chunk if it is time; the units that are due.
fn look(chunk: &'static Chunk) -> Option<u64> {
    let now = os::now_ms();
    let since = now.saturating_sub(chunk.looked_at.get());
    let (dirty, old) = (chunk.dirty.get(), chunk.old.get());
    let due = due_of(dirty, old, since, config::purge_delay_ms())?;
    chunk.old.set(dirty);
    chunk.looked_at.set(now);
    remove_by_age(chunk);
    append_by_age(chunk);
    Some(due)
}

/// Which dirty units are due `since` milliseconds after the last look: every half a delay those that were dirty
/// then, too, and have not been used since, not those that a program takes and gives back all the time. After two
/// delays, in which next to nothing can have happened, all are.
fn due_of(dirty: u64, old: u64, since: u64, delay: u64) -> Option<u64> {
    let long_ago = since > 2 * delay;
    (since >= delay.div_ceil(2)).then_some(if long_ago { dirty } else { old })
}

/// Takes dirty units out of the free ones, or the whole chunk, if there is nothing else in it. Locked.
fn take(chunk: &'static Chunk, units: u64) -> Work {
    let dirty = chunk.dirty.get();
    let whole = chunk.is_empty() && units == dirty;
    let claimed = if whole { u64::MAX } else { units };
    // Another purger may be at work on other units of the chunk.
    chunk.purging.set(chunk.purging.get() | claimed);
    chunk.free.set(chunk.free.get() & !claimed);
    set_dirty(chunk, dirty & !units);
    if whole {
        // Nobody may find the chunk once its addresses can belong to someone else.
        unbin(chunk);
        if let Some(base) = chunk.base() {
            ARENA.owners.set(base.addr().get(), None);
        }
        ARENA.chunks.set(ARENA.chunks.get() - 1);
    } else {
        rebin(chunk);
    }
    Work {
        chunk,
        units,
        claimed,
    }
}

impl Work {
    /// Purges without a lock, then gives the units back; bytes returned, 0 if the kernel refused what
    /// was wanted.
    fn purge(self) -> usize {
        failpoints::at(failpoints::Point::Purge);
        let whole = self.claimed == u64::MAX;
        if whole && self.unmap() {
            return CHUNK;
        }
        self.chunk.stay_small();
        let mut clean = 0_u64;
        for (first, length) in runs(self.units) {
            let base = self.chunk.unit(UnitIndex::new(first));
            // SAFETY: 1. units of our chunk that `next_work` took out of the free ones.
            if unsafe { os::purge(base, length as usize * UNIT) } {
                clean |= (u64::MAX >> (64 - length)) << first;
            }
        }
        // An empty chunk that the kernel would not unmap stays dirty, so that it is tried again.
        let left = if whole {
            self.units
        } else {
            self.units & !clean
        };
        let _held = ARENA.lock.lock();
        self.chunk.free.set(self.chunk.free.get() | self.claimed);
        // Emptied by others meanwhile: dirty, so that its addresses go too. All that was purged, not a unit of it: what
        // was a span stays together until it is claimed anew (`Span::set_fronts`).
        let empty = if self.chunk.is_empty() { self.units } else { 0 };
        set_dirty(self.chunk, self.chunk.dirty.get() | left | empty);
        // Last: until then a child of a fork takes all of them for dirty.
        self.chunk
            .purging
            .set(self.chunk.purging.get() & !self.claimed);
        if whole {
            enter(self.chunk);
        }
        rebin(self.chunk);
        if whole {
            0
        } else {
            clean.count_ones() as usize * UNIT
        }
    }

    /// Gives an empty chunk's addresses back. `false` at the limit of mappings.
    fn unmap(&self) -> bool {
        let Some(base) = self.chunk.base() else {
            return true;
        };
        // The base goes first: in a child of a fork in between, the chunk is lost, not used.
        self.chunk.set_base(core::ptr::null_mut());
        // SAFETY: 1. an empty chunk that no list and no map leads to any more.
        if !unsafe { os::unmap(base, CHUNK) } {
            self.chunk.set_base(base.as_ptr());
            return false;
        }
        // The slabs that were here left their tables zero, but for headers that say nothing any more.
        self.chunk.discard_unit_meta();
        if let Some(tags) = self.chunk.tags.get() {
            tags.discard();
        }
        let _held = ARENA.lock.lock();
        self.chunk.purging.set(0);
        self.chunk.bin.set(NO_BIN);
        self.chunk.next_unused.set(ARENA.unused.get());
        ARENA.unused.set(Some(self.chunk));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_in_use_are_not_due() {
        let (dirty, old) = (0b1110, 0b0110);
        assert_eq!(due_of(dirty, old, 249, 500), None);
        assert_eq!(due_of(dirty, old, 250, 500), Some(old));
        assert_eq!(due_of(dirty, old, 1000, 500), Some(old));
        assert_eq!(due_of(dirty, old, 1001, 500), Some(dirty));
        // Without a delay, at the second look of a call at the latest.
        assert_eq!(due_of(dirty, dirty, 0, 0), Some(dirty));
        assert_eq!(due_of(dirty, 0, 1, 0), Some(dirty));
    }
}
