//! Returning memory: dirty units by `madvise` once they are old or too many, empty chunks by
//! `munmap`.

use super::chunk::Chunk;
use super::{ARENA, Locked};
use crate::config;
use crate::demand::{AT_ONCE, Cause, DEMAND};
use crate::os::{self, PageLen, failpoints};
use crate::sync::{AtomicUsize, Ordering, OwnLines};
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
static GIVEN_BACK: OwnLines<AtomicUsize> = OwnLines(AtomicUsize::new(0));

pub(crate) fn given_back() -> usize {
    // ORDERING: statistics.
    GIVEN_BACK.load(Ordering::Relaxed)
}

/// Gives dirty units back to the kernel: all of them, or a part of those that are due. Whether some
/// may be left.
pub(crate) fn decay(age: Age) -> bool {
    let most = if age == Age::Due {
        AT_ONCE / UNIT
    } else {
        super::chunks().for_each(|chunk| ARENA.lock().note_huge(chunk));
        usize::MAX
    };
    let (mut units, mut refused) = (0, 0);
    // A bound that was asked for holds at once.
    while units < most || is_beyond_budget() {
        let Some(work) = next_work(age, refused) else {
            return false;
        };
        let (wanted, cause) = (work.units.count_ones() as usize, work.cause);
        match work.purge() {
            // Not counted: who goes on while some are left would ask a kernel that refuses for ever.
            0 => refused += 1,
            bytes => {
                units += wanted;
                // ORDERING: statistics.
                GIVEN_BACK.fetch_add(bytes, Ordering::Relaxed);
                if age == Age::Due {
                    DEMAND.note_return(bytes, cause);
                }
            }
        }
    }
    true
}

/// Whether more is kept than the option allows, if there is such a bound.
fn is_beyond_budget() -> bool {
    let budget = config::dirty_budget();
    budget != usize::MAX && ARENA.lock().dirty_bytes() > budget
}

/// Units of one chunk claimed for purging. Holding it proves that nobody else can claim them.
struct Work {
    chunk: &'static Chunk,
    /// The dirty units among those claimed.
    units: u64,
    /// What was taken out of the free units: all of them where the addresses go too.
    taken: u64,
    /// Why they are due.
    cause: Cause,
}

/// Claims dirty units that are due, in the chunk not looked at for longest. After `refused` refusals of the
/// kernel the rest waits for the next time.
fn next_work(age: Age, refused: usize) -> Option<Work> {
    const REFUSALS: usize = 3;
    if refused >= REFUSALS {
        return None;
    }
    let arena = ARENA.lock();
    let chunk = arena.oldest.get()?;
    let cause = DEMAND.cause();
    if age == Age::Any || cause == Cause::Budget || arena.dirty_bytes() > config::dirty_budget() {
        return Some(arena.take(chunk, chunk.listed(&arena).masks.dirty(), cause));
    }
    // Without a delay each chunk may be looked at twice.
    let (end, mut turns) = (arena.newest.get()?, 0);
    while turns < 2 {
        let chunk = arena.oldest.get()?;
        turns += usize::from(core::ptr::eq(chunk, end));
        let units = arena.look(chunk)?;
        if units != 0 {
            return Some(arena.take(chunk, units, cause));
        }
    }
    None
}

/// Which dirty units are due `since` milliseconds after the last look: every half a delay those that were dirty
/// then, too, and have not been used since, not those that a program takes and gives back all the time. After two
/// delays, in which next to nothing can have happened, all are.
fn due_of(dirty: u64, old: u64, since: u64, delay: u64) -> Option<u64> {
    let long_ago = since > 2 * delay;
    (since >= delay.div_ceil(2)).then_some(if long_ago { dirty } else { old })
}

impl Locked {
    /// Looks at a chunk if it is time; the units that are due.
    fn look(&self, chunk: &'static Chunk) -> Option<u64> {
        let listed = chunk.listed(self);
        let now = os::now_ms();
        let since = now.saturating_sub(listed.looked_at.get());
        let (dirty, old) = (listed.masks.dirty(), listed.masks.old());
        let delay = config::purge_delay_ms();
        let due = due_of(dirty, old, since, delay)?;
        DEMAND.look(now, delay);
        // What was needed of late stays, however old it is.
        let due = if DEMAND.excess(delay) == 0 { 0 } else { due };
        listed.masks.look();
        listed.looked_at.set(now);
        self.remove_by_age(chunk);
        self.append_by_age(chunk);
        Some(due)
    }

    /// Takes dirty units out of the free ones, or the whole chunk, if there is nothing else in it.
    fn take(&self, chunk: &'static Chunk, units: u64, cause: Cause) -> Work {
        let masks = &chunk.listed(self).masks;
        let whole = masks.is_empty() && units == masks.dirty();
        let taken = if whole { u64::MAX } else { units };
        ARENA.under_way.begin_purge(chunk, self);
        self.change(chunk, |masks| masks.begin_purge(taken, units));
        if whole {
            self.leave(chunk);
        }
        Work {
            chunk,
            units,
            taken,
            cause,
        }
    }

    /// Nobody may find a chunk by its address once that can belong to someone else.
    fn leave(&self, chunk: &'static Chunk) {
        if let Some(base) = chunk.base() {
            ARENA.owners.set(self, base.addr().get(), None);
        }
        ARENA.counts.set_chunks(self, ARENA.counts.chunks() - 1);
    }
}

impl Work {
    /// Purges without a lock, then gives the units back; bytes returned, 0 if the kernel refused what
    /// was wanted.
    fn purge(self) -> usize {
        failpoints::at(failpoints::Point::Purge);
        let whole = self.taken == u64::MAX;
        if whole && self.unmap() {
            return CHUNK;
        }
        self.chunk.stay_small();
        let mut clean = 0_u64;
        for (first, length) in runs(self.units) {
            let base = self.chunk.unit(UnitIndex::new(first));
            // SAFETY: 1. units of our chunk that `next_work` took out of the free ones.
            if unsafe { os::purge(base, PageLen::units(length as usize)) } {
                clean |= (u64::MAX >> (64 - length)) << first;
            }
        }
        let arena = ARENA.lock();
        arena.change(self.chunk, |masks| {
            masks.end_purge(self.taken, self.units, clean)
        });
        ARENA.under_way.end_purge(self.chunk, &arena);
        if whole {
            arena.enter(self.chunk);
            return 0;
        }
        clean.count_ones() as usize * UNIT
    }

    /// Gives an empty chunk's addresses back. `false` at the limit of mappings.
    fn unmap(&self) -> bool {
        let Some(base) = self.chunk.base() else {
            return true;
        };
        // The base goes first: in a child of a fork in between, the chunk is lost, not used.
        self.chunk.set_base(core::ptr::null_mut());
        // SAFETY: 1. an empty chunk that no list and no map leads to any more.
        if !unsafe { self.chunk.unmap(base) } {
            self.chunk.set_base(base.as_ptr());
            return false;
        }
        // The slabs that were here left their tables zero, but for headers that say nothing any more.
        self.chunk.discard_unit_meta();
        if let Some(tags) = self.chunk.tags.get() {
            tags.discard();
        }
        let arena = ARENA.lock();
        self.chunk.listed(&arena).masks.unmapped();
        ARENA.under_way.end_purge(self.chunk, &arena);
        arena.put_unused(self.chunk);
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
