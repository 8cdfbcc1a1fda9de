//! s_random: a store that replaces its entries at random.

use super::super::random::Random;
use super::blocks::{Heap, SMALL, Sizes};
use super::trial::{Done, Trial};
use super::watch::Watch;

/// Replacements; of more blocks than that, as many as there are blocks.
const REPLACED: usize = 4_000_000;

pub(super) fn random<W: Watch>(trial: &mut Trial<W>) -> Result<(), String> {
    let sizes = Sizes::new(SMALL);
    let mut heap = Heap::new(trial.bytes, &sizes)?;
    heap.fill();
    let live = heap.len();
    let rounds = trial.repeats(REPLACED.max(live)) as u64;
    let mut random = Random::new(12);
    trial.timed(|watch| {
        Ok(Done {
            calls: 2 * rounds,
            sum: heap.replace(watch, &mut random, rounds),
        })
    })
}
