//! Spans from chunks that have room, or from a fresh one.

use super::chunk::{Chunk, UnitKind};
use super::pool::Pool;
use super::runs::{Purpose, Want, first_run};
use super::span::Span;
use super::{ARENA, Bins, Locked, reserve};
use crate::demand::DEMAND;
use crate::os::failpoints;
use crate::sync::Link;
use crate::units::{UNIT, UNITS_PER_CHUNK, UnitCount};

/// Chunks looked at in each list that may or may not hold a long enough run.
const TRIES: usize = 4;

/// Whether a span's recycled pages are known to be zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Zeroed {
    Yes,
    No,
}

impl Want {
    /// Units of a run that holds it wherever the run begins.
    fn sure(self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "64")]
        let all = UNITS_PER_CHUNK as u32;
        (self.units.get() + self.step.get() - 1).min(all)
    }
}

/// A run of units, its pages committed, and whether they are zero.
pub(crate) fn claim(units: UnitCount, purpose: Purpose) -> Option<(Span, Zeroed)> {
    let step = UnitCount::new(1);
    let want = Want {
        units,
        step,
        purpose,
    };
    claim_wanted(want, None)
}

/// The same in a pool, aligned to `align`, a power of two; `None` also if that is more than a chunk's own alignment.
#[cfg(feature = "heaps")]
pub(crate) fn claim_in_pool(
    pool: &'static Pool,
    units: UnitCount,
    align: usize,
) -> Option<(Span, Zeroed)> {
    claim_wanted(aligned(units, align)?, Some(pool))
}

/// The same, aligned to `align`, a power of two; `None` also if that is more than a chunk's own alignment.
pub(crate) fn claim_aligned(units: UnitCount, align: usize) -> Option<(Span, Zeroed)> {
    claim_wanted(aligned(units, align)?, None)
}

fn aligned(units: UnitCount, align: usize) -> Option<Want> {
    Some(Want {
        units,
        step: UnitCount::holding(align.max(UNIT))?,
        purpose: Purpose::More,
    })
}

fn claim_wanted(want: Want, pool: Option<&'static Pool>) -> Option<(Span, Zeroed)> {
    let claim = |arena: &Locked| match pool {
        Some(pool) => arena.claim(want, pool.bins(arena)),
        None => arena.claim(want, arena.bins(want.is_dense())),
    };
    let found = claim(&ARENA.lock());
    if found.is_some() {
        return found;
    }
    let making = ARENA.making.lock();
    // What another thread made meanwhile has room for many.
    let found = claim(&ARENA.lock());
    if found.is_some() {
        return found;
    }
    let fresh = reserve::new_chunk(&making, want, pool);
    let arena = ARENA.lock();
    let Some(chunk) = fresh else {
        // Rather beside spans of the other kind than not at all.
        let others = pool.is_none().then(|| arena.bins(!want.is_dense()))?;
        return arena.claim(want, others);
    };
    arena.insert(chunk);
    arena.claim_in(chunk, want)
}

impl Locked {
    /// Claims in a chunk of these lists.
    fn claim(&self, want: Want, bins: &Bins) -> Option<(Span, Zeroed)> {
        let unsure = want.units.get().ilog2() as usize;
        let sure = want.sure().next_power_of_two().ilog2() as usize;
        for list in &bins[unsure..sure] {
            let mut candidate = list.get();
            for _ in 0..TRIES {
                let Some(chunk) = candidate else { break };
                if let Some(span) = self.claim_in(chunk, want) {
                    return Some(span);
                }
                candidate = chunk.listed(self).by_run.next.get();
            }
        }
        // Every chunk of the longer lists has room: the shortest run that is long enough.
        let chunk = bins[sure..].iter().find_map(Link::get)?;
        self.claim_in(chunk, want)
    }

    /// Claims in one chunk, where old pages are before where fresh ones are.
    fn claim_in(&self, chunk: &'static Chunk, want: Want) -> Option<(Span, Zeroed)> {
        let masks = &chunk.listed(self).masks;
        let (free, dirty) = (masks.free(), masks.dirty());
        let first = first_run(free & dirty, want).or_else(|| first_run(free, want))?;
        let units = want.units;
        let mask = first.mask(units);
        ARENA.under_way.begin_claim(chunk, first, self);
        chunk.mark(first, units, UnitKind::Claimed);
        failpoints::at(failpoints::Point::Claim);
        if want.step.get() > 1 {
            chunk.forget_fronts();
        }
        let is_whole = chunk.is_gigantic();
        let zeroed = if dirty & mask == 0 && !is_whole {
            Zeroed::Yes
        } else {
            Zeroed::No
        };
        let used = self.used_units.get() + units.get() as usize;
        self.used_units.set(used);
        self.growth.note(want.purpose);
        if is_whole {
            self.change(chunk, |masks| masks.claim_whole(mask));
        } else {
            self.change(chunk, |masks| masks.claim(mask));
        }
        DEMAND.note_more_spans(used * UNIT);
        let fresh = mask & !dirty;
        if fresh != 0 {
            DEMAND.note_fresh(fresh.count_ones() as usize * UNIT);
        }
        let span = Span {
            chunk,
            first,
            units,
        };
        Some((span, zeroed))
    }
}
