//! s_threads, s_sleepers: many threads, few of them at work.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread::{self, Builder, Scope, ScopedJoinHandle};
use std::time::Duration;

use super::super::block::{Block, BlockLayout};
use super::super::mapped::MappedArray;
use super::super::random::Random;
use super::blocks::{Heap, SMALL, Sizes, Slot};
use super::trial::{Done, Trial};
use super::watch::{Unwatched, Watch};

/// Threads of a heap of 64 MiB; four times as many bytes have twice as many.
const THREADS: f64 = 500.0;
const BYTES: f64 = (64 << 20) as f64;
const ABREAST: usize = 16;
const STACK: usize = 128 << 10;

/// A short life: so many blocks allocated and freed, so many times.
const BLOCKS: usize = 1000;
const TIMES: u64 = 2;
/// Before it sleeps, a thread allocates twice this and frees half.
const HELD: usize = 100;
const BOUNDS: (usize, usize) = (16, 1024);

/// What the working thread replaces beside the sleepers.
const LIVE: usize = 50_000;
/// Replacements between two long blocks, and how many times.
const STRIDE: u64 = 1_000_000;
const STRIDES: usize = 16;
const LONG: usize = 1_500_000;

fn count<W: Watch>(trial: &Trial<W>) -> usize {
    trial.repeats((THREADS * (trial.bytes as f64 / BYTES).sqrt()) as usize)
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    life: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, String> {
    let thread = Builder::new().stack_size(STACK).spawn_scoped(scope, life);
    thread.map_err(|error| format!("a thread cannot be started: {error}"))
}

/// Starting and joining is in the time.
pub(super) fn come_and_go<W: Watch>(trial: &mut Trial<W>) -> Result<(), String> {
    let threads = count(trial);
    let sizes = Sizes::new(BOUNDS);
    let life = |thread: usize| {
        let mut watch = W::default();
        let mut heap = Heap::over([const { Slot::EMPTY }; BLOCKS], &sizes);
        let mut sum = 0_u64;
        for time in 0..TIMES {
            let first = (thread as u64 * TIMES + time) * BLOCKS as u64;
            for slot in 0..BLOCKS {
                heap.put(&mut watch, slot, first + slot as u64);
            }
            for slot in 0..BLOCKS {
                sum = sum.wrapping_add(heap.take(&mut watch, slot));
            }
        }
        (watch, sum)
    };
    trial.timed(|watch| {
        let mut sum = 0_u64;
        thread::scope(|scope| {
            let mut alive = VecDeque::with_capacity(ABREAST);
            let mut end = |thread: ScopedJoinHandle<'_, (W, u64)>| {
                let (seen, of_thread) = thread.join().map_err(|_| "a thread panicked")?;
                watch.join(seen);
                sum = sum.wrapping_add(of_thread);
                Ok::<_, String>(())
            };
            for number in 0..threads {
                if alive.len() == ABREAST {
                    alive.pop_front().map_or(Ok(()), &mut end)?;
                }
                alive.push_back(spawn(scope, move || life(number))?);
            }
            alive.into_iter().try_for_each(end)
        })?;
        Ok(Done {
            calls: 2 * TIMES * (threads * BLOCKS) as u64,
            sum,
        })
    })
}

/// Where threads sleep until they may end.
#[derive(Default)]
struct Bed {
    // ORDERING: relaxed everywhere; a count that publishes nothing.
    asleep: AtomicUsize,
    may_end: Mutex<bool>,
    awake: Condvar,
}

impl Bed {
    fn sleep(&self) {
        self.asleep.fetch_add(1, Ordering::Relaxed);
        let may_end = self.may_end.lock().expect("nothing panics under it");
        let end = self.awake.wait_while(may_end, |may_end| !*may_end);
        drop(end.expect("nothing panics under it"));
    }
}

/// Wakes everyone, also where the row ends early.
struct Wake<'a>(&'a Bed);

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        *self.0.may_end.lock().expect("nothing panics under it") = true;
        self.0.awake.notify_all();
    }
}

/// Each sleeper has used the allocator and keeps some blocks; only the working thread is timed.
pub(super) fn sleepers<W: Watch>(trial: &mut Trial<W>) -> Result<(), String> {
    let threads = count(trial);
    let sizes = Sizes::new(BOUNDS);
    let bed = Bed::default();
    let life = |thread: usize| {
        let mut heap = Heap::over([const { Slot::EMPTY }; 2 * HELD], &sizes);
        for slot in 0..2 * HELD {
            heap.put(&mut Unwatched, slot, (thread * 2 * HELD + slot) as u64);
        }
        for slot in (0..2 * HELD).step_by(2) {
            heap.take(&mut Unwatched, slot);
        }
        bed.sleep();
    };
    thread::scope(|scope| {
        let _wake = Wake(&bed);
        for number in 0..threads {
            spawn(scope, move || life(number))?;
        }
        while bed.asleep.load(Ordering::Relaxed) < threads {
            thread::sleep(Duration::from_millis(1));
        }
        work(trial)
    })
}

fn work<W: Watch>(trial: &mut Trial<W>) -> Result<(), String> {
    let sizes = Sizes::new(SMALL);
    let mut heap = Heap::over(MappedArray::new(LIVE)?, &sizes);
    heap.fill();
    let mut random = Random::new(13);
    let long = BlockLayout::new(LONG);
    for _ in 0..trial.repeats(STRIDES) {
        trial.timed(|watch| {
            let sum = heap.replace(watch, &mut random, STRIDE);
            let block = watch.time(|| Block::alloc(long, sum));
            // SAFETY: 1. allocated above. 2. with this layout.
            unsafe { block.touch_pages(long, sum) };
            // SAFETY: 1. live, and not used again. 2. its layout.
            watch.time(|| unsafe { block.free(long) });
            Ok(Done {
                calls: 2 * STRIDE + 2,
                sum,
            })
        })?;
    }
    Ok(())
}
