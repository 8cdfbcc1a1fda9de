//! Timing: warm up, then the median of several equal slices.

use std::time::Instant;

use super::setting::{Locks, Setting};

/// One preemption spoils one slice, and the median of five ignores up to two.
const SLICES: usize = 5;
const WARM_UPS: usize = 1;

/// What a time row reports.
pub(crate) struct Reading {
    pub(crate) ns_per_op: f64,
    /// Depends on the work alone, so it is the same under every allocator.
    pub(crate) checksum: u64,
    /// For a million operations: locks taken, and locks waited for.
    pub(crate) locks: Option<(f64, f64)>,
}

/// Measures slices of a fixed number of rounds.
pub(crate) struct Meter {
    scale: f64,
    locks: Option<Locks>,
}

impl Meter {
    pub(crate) fn new(setting: &Setting) -> Self {
        Self {
            scale: setting.scale,
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
        let mut times = [0.0; SLICES];
        for time in &mut times {
            *time = take();
        }
        times.sort_by(f64::total_cmp);
        let ops = rounds as f64 * ops_per_round as f64;
        let per_million = |count: usize| count as f64 * 1e6 / (ops * SLICES as f64);
        let locks = self.locks.zip(before).map(|(locks, (taken, waited))| {
            let now = locks();
            (per_million(now.0 - taken), per_million(now.1 - waited))
        });
        Reading {
            ns_per_op: times[SLICES / 2] / ops,
            checksum,
            locks,
        }
    }
}
