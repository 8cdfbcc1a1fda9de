//! Runs of units: what is wanted, and where there is one in a chunk's word of free units.
#![forbid(unsafe_code)]

use crate::units::{UnitCount, UnitIndex};

/// A run of units that somebody wants.
#[derive(Clone, Copy)]
pub(super) struct Want {
    pub(super) units: UnitCount,
    /// The number of its first unit is a multiple of this, a power of two.
    pub(super) step: UnitCount,
    /// What it is for.
    pub(super) purpose: Purpose,
}

/// What a span is for, as far as that tells whether its neighbours are going to be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The first slab of its class in its heap, which may stay next to empty.
    First,
    /// Another slab, as those before it are full; or a long block.
    More,
}

impl Want {
    /// Whether it shares chunks with spans of one unit. An aligned span does not, however short: between two of
    /// them lie units that are touched by nobody, and huge pages would bring them in.
    pub(super) fn is_dense(self) -> bool {
        self.units.get() == 1 && self.step.get() == 1
    }
}

/// Length of the longest run of ones.
pub(crate) fn longest_run(mut word: u64) -> u32 {
    let mut length = 0;
    while word != 0 {
        word &= word >> 1;
        length += 1;
    }
    length
}

/// The lowest run of ones as wanted.
pub(super) fn first_run(word: u64, want: Want) -> Option<UnitIndex> {
    first_run_of(word, want.units.get(), want.step.get()).map(UnitIndex::new)
}

/// The lowest run of `count` ones that begins at a multiple of `step`, a power of two; both are 1 to 64.
pub(crate) fn first_run_of(word: u64, count: u32, step: u32) -> Option<u32> {
    let mut starts = word;
    let mut have = 1;
    while have < count {
        let more = have.min(count - have);
        starts &= starts >> more;
        have += more;
    }
    // Every multiple of the step: the sum of the powers of `2^step`, below `2^64`.
    starts &= u64::MAX / (u64::MAX >> (64 - step));
    (starts != 0).then(|| starts.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(word: u64, units: u8, step: u8) -> Option<u32> {
        let [units, step] = [units, step].map(UnitCount::new);
        let purpose = Purpose::More;
        let want = Want {
            units,
            step,
            purpose,
        };
        let found = first_run(word, want)?;
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
