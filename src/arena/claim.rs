//! Spans from chunks that have room, or from a fresh one.

use super::chunk::{Chunk, Span, UnitKind};
use super::runs::{Want, first_run};
use super::{ARENA, Bins, insert_held, rebin, reserve, set_dirty};
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
    /// The lists of chunks that it shares, and of those that it does not.
    fn bins(self) -> [&'static Bins; 2] {
        let [dense, sparse] = &ARENA.bins;
        if self.is_dense() {
            [dense, sparse]
        } else {
            [sparse, dense]
        }
    }

    /// Units of a run that holds it wherever the run begins.
    fn sure(self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "64")]
        let all = UNITS_PER_CHUNK as u32;
        (self.units.get() + self.step.get() - 1).min(all)
    }
}

/// A run of units, its pages committed, and whether they are zero.
pub(crate) fn claim(units: UnitCount) -> Option<(Span, Zeroed)> {
    claim_wanted(Want {
        units,
        step: UnitCount::new(1),
    })
}

/// The same, aligned to `align`, a power of two; `None` also if that is more than a chunk's own alignment.
pub(crate) fn claim_aligned(units: UnitCount, align: usize) -> Option<(Span, Zeroed)> {
    let step = UnitCount::holding(align.max(UNIT))?;
    claim_wanted(Want { units, step })
}

fn claim_wanted(want: Want) -> Option<(Span, Zeroed)> {
    let [own, others] = want.bins();
    {
        let _held = ARENA.lock.lock();
        if let Some(found) = claim_held(want, own) {
            return Some(found);
        }
    }
    let fresh = reserve::new_chunk(want);
    let _held = ARENA.lock.lock();
    let Some(chunk) = fresh else {
        // Rather beside spans of the other kind than not at all.
        return claim_held(want, others);
    };
    insert_held(chunk);
    claim_in(chunk, want)
}

fn claim_held(want: Want, bins: &Bins) -> Option<(Span, Zeroed)> {
    let unsure = want.units.get().ilog2() as usize;
    let sure = want.sure().next_power_of_two().ilog2() as usize;
    for list in &bins[unsure..sure] {
        let mut candidate = list.get();
        for _ in 0..TRIES {
            let Some(chunk) = candidate else { break };
            if let Some(span) = claim_in(chunk, want) {
                return Some(span);
            }
            candidate = chunk.by_run.next.get();
        }
    }
    // Every chunk of the longer lists has room: the shortest run that is long enough.
    let chunk = bins[sure..].iter().find_map(Link::get)?;
    claim_in(chunk, want)
}

/// Claims in one chunk, where old pages are before where fresh ones are.
fn claim_in(chunk: &'static Chunk, want: Want) -> Option<(Span, Zeroed)> {
    let (free, dirty) = (chunk.free.get(), chunk.dirty.get());
    let first = first_run(free & dirty, want).or_else(|| first_run(free, want))?;
    let units = want.units;
    let mask = first.mask(units);
    chunk.mark(first, units, UnitKind::Claimed);
    failpoints::at(failpoints::Point::Claim);
    chunk.free.set(free & !mask);
    if want.step.get() > 1 {
        chunk.forget_fronts();
    }
    let zeroed = if dirty & mask == 0 {
        Zeroed::Yes
    } else {
        Zeroed::No
    };
    set_dirty(chunk, dirty & !mask);
    rebin(chunk);
    let span = Span {
        chunk,
        first,
        units,
    };
    Some((span, zeroed))
}
