//! Timing: warm up, then the median of several equal slices.

use std::time::Instant;

use super::setting::{Locks, Setting};

/// One preemption spoils one slice, and the median of five ignores up to two.
const SLICES: usize = 5;
/// Their times lie in an array: the meter allocates nothing.
pub(crate) const MOST_SLICES: usize = 16;
const WARM_UPS: usize = 1;

/// What a time row reports.
pub(crate) struct Reading {
    pub(crate) ns_per_op: f64,
    /// In all slices; the warm-up is one slice more.
    pub(crate) ops: f64,
    /// Depends on the work alone, so it is the same under every allocator.
    pub(crate) checksum: u64,
    /// For a million operations: locks taken, and locks waited for.
    pub(crate) locks: Option<(f64, f64)>,
}

/// Measures slices of a fixed number of rounds.
pub(crate) struct Meter {
    scale: f64,
    slices: usize,
    locks: Option<Locks>,
}

impl Meter {
    pub(crate) fn new(setting: &Setting) -> Self {
        Self {
            scale: setting.scale,
            slices: setting.slices.unwrap_or(SLICES).clamp(1, MOST_SLICES),
            locks: setting.locks,
        }
    }

    /// Times `slice`, which runs as many rounds as it is told and returns their checksum.
    ///
    /// `rounds` is the length of a slice at scale 1 (about 30 ms), `ops_per_round` what one
    /// round counts for in the reading.
    pub(crate) fn run(
        &self,
        rounds: u64,
        ops_per_round: usize,
        mut slice: impl FnMut(u64) -> u64,
    ) -> Reading {
        let rounds = ((rounds as f64 * self.scale).round() as u64).max(1);
        let mut checksum = 0_u64;
        let mut take = || {
            let start = Instant::now();
            let sum = slice(rounds);
            let elapsed = start.elapsed();
            checksum = checksum.rotate_left(7) ^ sum;
            elapsed.as_nanos() as f64
        };
        for _ in 0..WARM_UPS {
            take();
        }
        let before = self.locks.map(|locks| locks());
        let mut times = [0.0; MOST_SLICES];
        let times = &mut times[..self.slices];
        for time in times.iter_mut() {
            *time = take();
        }
        times.sort_by(f64::total_cmp);
        let slice_ops = rounds as f64 * ops_per_round as f64;
        let ops = slice_ops * self.slices as f64;
        let per_million = |count: usize| count as f64 * 1e6 / ops;
        let locks = self.locks.zip(before).map(|(locks, (taken, waited))| {
            let now = locks();
            (per_million(now.0 - taken), per_million(now.1 - waited))
        });
        Reading {
            ns_per_op: times[self.slices / 2] / slice_ops,
            ops,
            checksum,
            locks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::setting::Extent;
    use super::*;

    #[test]
    fn as_many_slices_run_as_are_told_after_the_warm_up() {
        for (slices, expected) in [
            (None, SLICES),
            (Some(1), 1),
            (Some(MOST_SLICES), MOST_SLICES),
        ] {
            let setting = Setting {
                scale: 0.5,
                soak: false,
                extent: Extent::default(),
                slices,
                purge: || {},
                locks: None,
            };
            let mut runs = 0;
            let reading = Meter::new(&setting).run(20, 3, |rounds| {
                runs += 1;
                assert_eq!(rounds, 10);
                0
            });
            assert_eq!(runs, WARM_UPS + expected);
            assert_eq!(reading.ops, (expected * 10 * 3) as f64);
        }
    }
}
