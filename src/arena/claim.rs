//! Spans from chunks that have room, or from a fresh one.

use super::chunk::{Chunk, Span, UnitKind};
use super::{ARENA, Bins, insert_held, rebin, reserve, set_dirty};
use crate::os::failpoints;
use crate::sync::Link;
use crate::units::{UNIT, UNITS_PER_CHUNK, UnitCount, UnitIndex};

/// Chunks looked at in each list that may or may not hold a long enough run.
const TRIES: usize = 4;

/// Whether a span's recycled pages are known to be zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Zeroed {
    Yes,
    No,
}

/// A run of units that somebody wants.
#[derive(Clone, Copy)]
pub(super) struct Want {
    pub(super) units: UnitCount,
    /// The number of its first unit is a multiple of this, a power of two.
    pub(super) step: UnitCount,
}

impl Want {
    /// Whether it shares chunks with spans of one unit. An aligned span does not, however short: between two of
    /// them lie units that are touched by nobody, and huge pages would bring them in.
    pub(super) fn is_dense(self) -> bool {
        self.units.get() == 1 && self.step.get() == 1
    }

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

/// Length of the longest run of ones.
pub(super) fn longest_run(mut word: u64) -> u32 {
    let mut length = 0;
    while word != 0 {
        word &= word >> 1;
        length += 1;
    }
    length
}

/// The lowest run of ones as wanted.
fn first_run(word: u64, want: Want) -> Option<UnitIndex> {
    let mut starts = word;
    let (mut have, count) = (1, want.units.get());
    while have < count {
        let step = have.min(count - have);
        starts &= starts >> step;
        have += step;
    }
    // Every multiple of the step: the sum of the powers of `2^step`, below `2^64`.
    starts &= u64::MAX / (u64::MAX >> (64 - want.step.get()));
    (starts != 0).then(|| UnitIndex::new(starts.trailing_zeros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(word: u64, units: u8, step: u8) -> Option<u32> {
        let [units, step] = [units, step].map(UnitCount::new);
        let found = first_run(word, Want { units, step })?;
        u32::try_from(found.get()).ok()
    }

    #[test]
    fn runs_of_each_length_are_found_and_no_longer_ones() {
        for length in 1..=64 {
            let count = UnitCount::new(length);
            for first in 0..=64 - u32::from(length) {
                let word = UnitIndex::new(first).mask(count);
                assert_eq!(longest_run(word), u32::from(length));
                assert_eq!(find(word, length, 1), Some(first));
                if length < 64 {
                    assert_eq!(find(word, length + 1, 1), None);
                }
            }
        }
        assert_eq!(longest_run(0), 0);
        assert_eq!(find(0b1011, 2, 1), Some(0));
    }

    #[test]
    fn runs_begin_where_they_are_wanted() {
        for length in 1..=64 {
            for first in 0..=64 - u32::from(length) {
                let word = UnitIndex::new(first).mask(UnitCount::new(length));
                for step in [2, 4, 8, 16, 32, 64] {
                    let aligned = first.next_multiple_of(u32::from(step));
                    let fits = |units: u32| aligned + units <= first + u32::from(length);
                    for units in 1..=length {
                        let expected = fits(u32::from(units)).then_some(aligned);
                        assert_eq!(
                            find(word, units, step),
                            expected,
                            "{word:#x} {units} {step}"
                        );
                    }
                }
            }
        }
    }
}
