//! s_drop, s_drop_any, s_holes: nothing but frees, of all blocks or of most.

use super::super::random::mix;
use super::blocks::{Heap, SMALL, Sizes};
use super::trial::{Done, Trial};
use super::watch::Watch;

/// About what all heaps hold together, between so few of them and so many.
const TOTAL: usize = 1 << 30;
const HEAPS: (usize, usize) = (2, 16);

/// One block in so many survives.
const SURVIVES: u64 = 64;

pub(super) fn in_order<W: Watch>(trial: &mut Trial<W>) -> Result<(), String> {
    run(trial, false)
}

pub(super) fn shuffled<W: Watch>(trial: &mut Trial<W>) -> Result<(), String> {
    run(trial, true)
}

/// Building does not count.
fn run<W: Watch>(trial: &mut Trial<W>, shuffled: bool) -> Result<(), String> {
    let sizes = Sizes::new(SMALL);
    let mut heap = Heap::new(trial.bytes, &sizes)?;
    for _ in 0..trial.repeats((TOTAL / trial.bytes).clamp(HEAPS.0, HEAPS.1)) {
        heap.fill();
        if shuffled {
            heap.shuffle();
        }
        trial.timed(|watch| {
            let mut sum = 0_u64;
            for slot in 0..heap.len() {
                sum = sum.wrapping_add(heap.take(watch, slot));
            }
            Ok(Done {
                calls: heap.len() as u64,
                sum,
            })
        })?;
    }
    Ok(())
}

/// Only the frees are timed; what the kernel does in the light life counts.
pub(super) fn holes<W: Watch>(trial: &mut Trial<W>) -> Result<(), String> {
    let sizes = Sizes::new(SMALL);
    let mut heap = Heap::new(trial.bytes, &sizes)?;
    heap.fill();
    trial.timed(|watch| {
        let (mut calls, mut sum) = (0, 0_u64);
        for slot in 0..heap.len() {
            // another sequence than the one the sizes come from
            if !mix(slot as u64 ^ 0xA5A5_5A5A_0000_0000).is_multiple_of(SURVIVES) {
                sum = sum.wrapping_add(heap.take(watch, slot));
                calls += 1;
            }
        }
        Ok(Done { calls, sum })
    })?;
    trial.beside(Trial::live_on)
}
