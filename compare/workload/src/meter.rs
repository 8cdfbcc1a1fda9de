//! Timing: warm up, then the median of several equal slices.

use std::time::Instant;

/// One preemption spoils one slice, and the median of nine ignores up to four.
const SLICES: usize = 9;
const WARM_UPS: usize = 2;

/// What a time row reports.
pub(crate) struct Reading {
    pub(crate) ns_per_op: f64,
    /// Depends on the work alone, so it is the same under every allocator.
    pub(crate) checksum: u64,
}

/// Measures slices of a fixed number of rounds.
pub(crate) struct Meter {
    scale: f64,
}

impl Meter {
    pub(crate) fn new(scale: f64) -> Self {
        Self { scale }
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
        let mut times = [0.0; SLICES];
        for time in &mut times {
            *time = take();
        }
        times.sort_by(f64::total_cmp);
        let ops = rounds as f64 * ops_per_round as f64;
        Reading {
            ns_per_op: times[SLICES / 2] / ops,
            checksum,
        }
    }
}
