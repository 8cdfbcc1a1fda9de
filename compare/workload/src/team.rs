//! Rows on several threads: the threads stay, the meter's slices start and stop them.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::meter::{Meter, Reading};

/// Told to the workers instead of a number of rounds.
const STOP: u64 = 0;

/// Runs `threads` workers; `worker(index)` is called on its thread and returns the slice function.
/// A slice lasts from the common start to the end of the slowest worker.
pub(crate) fn run<Slice: FnMut(u64) -> u64>(
    meter: &Meter,
    threads: usize,
    rounds: u64,
    ops_per_round: usize,
    worker: impl Fn(usize) -> Slice + Sync,
) -> Reading {
    run_prepared(meter, threads, rounds, ops_per_round, || {}, worker)
}

/// The same; `prepare` runs on the calling thread before each slice.
pub(crate) fn run_prepared<Slice: FnMut(u64) -> u64>(
    meter: &Meter,
    threads: usize,
    rounds: u64,
    ops_per_round: usize,
    mut prepare: impl FnMut(),
    worker: impl Fn(usize) -> Slice + Sync,
) -> Reading {
    let barrier = Barrier::new(threads + 1);
    // ORDERING: both words are relaxed; the barrier publishes them.
    let order = AtomicU64::new(STOP);
    let sum = AtomicU64::new(0);
    let attend = |index: usize| {
        let mut slice = worker(index);
        loop {
            barrier.wait();
            let rounds = order.load(Ordering::Relaxed);
            if rounds == STOP {
                break;
            }
            sum.fetch_add(slice(rounds), Ordering::Relaxed);
            barrier.wait();
        }
    };
    thread::scope(|scope| {
        for index in 0..threads {
            let attend = &attend;
            scope.spawn(move || attend(index));
        }
        let reading = meter.run(rounds, ops_per_round, |rounds| {
            prepare();
            order.store(rounds, Ordering::Relaxed);
            barrier.wait();
            barrier.wait();
            sum.swap(0, Ordering::Relaxed)
        });
        order.store(STOP, Ordering::Relaxed);
        barrier.wait();
        reading
    })
}
