//! s_waves: a big heap that empties by half and fills again.

use std::thread;
use std::time::Duration;

use super::blocks::{Heap, Sizes};
use super::trial::{Done, Trial};
use super::watch::Watch;

const BOUNDS: (usize, usize) = (64, 4096);
const WAVES: usize = 8;
const SLOW_WAVES: usize = 4;
/// Longer than any usual delay before memory goes back.
const PAUSE: Duration = Duration::from_millis(1500);

pub(super) fn waves<W: Watch>(trial: &mut Trial<W>) -> Result<(), String> {
    run(trial, WAVES, None)
}

pub(super) fn slow<W: Watch>(trial: &mut Trial<W>) -> Result<(), String> {
    run(trial, SLOW_WAVES, Some(PAUSE))
}

fn run<W: Watch>(
    trial: &mut Trial<W>,
    waves: usize,
    pause: Option<Duration>,
) -> Result<(), String> {
    let sizes = Sizes::new(BOUNDS);
    let mut heap = Heap::new(trial.bytes, &sizes)?;
    let full = heap.len() as u64;
    let half = full.div_ceil(2);
    // The number of the next block, and of the oldest: its slot is the number modulo all slots.
    let (mut next, mut oldest) = (0, 0);
    let mut fill = |trial: &mut Trial<W>, heap: &mut Heap<_>, count: u64| {
        trial.timed(|watch| {
            for number in next..next + count {
                heap.put(watch, (number % full) as usize, number);
            }
            next += count;
            Ok(Done {
                calls: count,
                sum: next,
            })
        })
    };
    fill(trial, &mut heap, full)?;
    for _ in 0..trial.repeats(waves) {
        trial.timed(|watch| {
            let mut sum = 0_u64;
            for number in oldest..oldest + half {
                sum = sum.wrapping_add(heap.take(watch, (number % full) as usize));
            }
            oldest += half;
            Ok(Done { calls: half, sum })
        })?;
        if let Some(pause) = pause {
            trial.beside(|_| thread::sleep(pause));
        }
        fill(trial, &mut heap, half)?;
    }
    Ok(())
}
