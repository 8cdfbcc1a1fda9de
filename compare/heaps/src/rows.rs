//! The rows: what is done with a heap.

use core::alloc::Layout;
use std::hint::black_box;
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::contestant::{Contestant, layout};

/// Numbers that look random and are the same each time.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new() -> Self {
        Self(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }
}

/// Sizes as requests have them: most short, a few of some KiB.
pub(crate) fn sizes(count: usize) -> Vec<Layout> {
    let mut random = Random::new();
    let size = |_| match random.below(20) {
        0 => 16 + random.below(4_000),
        1..5 => 16 + random.below(1_000),
        _ => 16 + random.below(240),
    };
    (0..count).map(size).map(layout).collect()
}

/// Writes to a block as a program would.
#[inline]
fn touch(block: *mut u8) -> *mut u8 {
    // SAFETY: 1. all blocks have 8 bytes.
    unsafe { block.cast::<u64>().write(1) };
    black_box(block)
}

/// Nanoseconds for each of `count` operations.
fn nanoseconds(time: Duration, count: usize) -> f64 {
    time.as_nanos() as f64 / count as f64
}

/// A block of 64 bytes, allocated and freed.
pub(crate) fn pair<C: Contestant>() -> f64 {
    const PAIRS: usize = 4_000_000;
    let heap = C::new();
    let layout = layout(64);
    let begin = Instant::now();
    for _ in 0..PAIRS {
        let block = touch(heap.alloc(layout));
        // SAFETY: 1. live, not used any more.
        unsafe { heap.free(block, layout) };
    }
    nanoseconds(begin.elapsed(), PAIRS)
}

/// One of `live` blocks of mixed sizes replaced by another, at random.
fn replace<C: Contestant>(heap: &C, live: usize, turns: usize) -> Duration {
    let layouts = sizes(4_096);
    let mut random = Random::new();
    let mut blocks: Vec<_> = (0..live)
        .map(|place| {
            let layout = layouts[place % layouts.len()];
            (touch(heap.alloc(layout)), layout)
        })
        .collect();
    let begin = Instant::now();
    for turn in 0..turns {
        let place = &mut blocks[random.below(live)];
        // SAFETY: 1. live, not used any more.
        unsafe { heap.free(place.0, place.1) };
        let layout = layouts[turn % layouts.len()];
        *place = (touch(heap.alloc(layout)), layout);
    }
    let time = begin.elapsed();
    for (block, layout) in blocks {
        // SAFETY: 1. live, not used any more.
        unsafe { heap.free(block, layout) };
    }
    time
}

pub(crate) fn replaced<C: Contestant>() -> f64 {
    const TURNS: usize = 1_000_000;
    nanoseconds(replace(&C::new(), 1_000, TURNS), TURNS)
}

pub(crate) fn replaced_of_many<C: Contestant>() -> f64 {
    const TURNS: usize = 1_000_000;
    nanoseconds(replace(&C::new(), 100_000, TURNS), TURNS)
}

/// A heap of nothing.
pub(crate) fn empty<C: Contestant>() -> f64 {
    const HEAPS: usize = 100_000;
    let begin = Instant::now();
    for _ in 0..HEAPS {
        black_box(&C::new());
    }
    nanoseconds(begin.elapsed(), HEAPS)
}

/// A heap of 1 000 mixed blocks, dropped as a whole, or freed one by one where there is no other way.
pub(crate) fn request<C: Contestant>() -> f64 {
    requests::<C>(1_000, C::TAKES_ALL)
}

/// A heap of 20.
pub(crate) fn small_request<C: Contestant>() -> f64 {
    requests::<C>(20, C::TAKES_ALL)
}

/// As the first, each block freed, as destructors do.
pub(crate) fn request_freed<C: Contestant>() -> f64 {
    requests::<C>(1_000, false)
}

fn requests<C: Contestant>(count: usize, drops: bool) -> f64 {
    let rounds = 1_000_000 / count;
    let layouts = sizes(count);
    let mut blocks = Vec::with_capacity(count);
    let begin = Instant::now();
    for _ in 0..rounds {
        let heap = C::new();
        if drops {
            for layout in &layouts {
                touch(heap.alloc(*layout));
            }
            continue;
        }
        blocks.extend(layouts.iter().map(|layout| touch(heap.alloc(*layout))));
        for (block, layout) in blocks.drain(..).zip(&layouts) {
            // SAFETY: 1. live, not used any more.
            unsafe { heap.free(block, *layout) };
        }
    }
    nanoseconds(begin.elapsed(), rounds)
}

/// Threads that replace blocks, all in one heap.
fn crowd<C: Contestant>(threads: usize) -> f64 {
    const TURNS: usize = 500_000;
    let heap = C::new();
    let start = Barrier::new(threads + 1);
    let time = thread::scope(|scope| {
        let replace_all = || {
            start.wait();
            replace(&heap, 1_000, TURNS)
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(replace_all)).collect();
        // Before the others are let go: behind it this thread competes with them.
        let begin = Instant::now();
        start.wait();
        for thread in threads {
            // Until it has ended: mimalloc's heap must outlive what a thread does at its end.
            thread.join().expect("no panic");
        }
        begin.elapsed()
    });
    nanoseconds(time, TURNS * threads)
}

pub(crate) fn two_threads<C: Contestant>() -> f64 {
    crowd::<C>(2)
}

pub(crate) fn eight_threads<C: Contestant>() -> f64 {
    crowd::<C>(8)
}

/// One thread allocates, another frees.
pub(crate) fn handed_over<C: Contestant>() -> f64 {
    const BATCH: usize = 100;
    const BATCHES: usize = 5_000;
    struct Blocks(Vec<*mut u8>);
    // SAFETY: 1. one thread at a time has the blocks.
    unsafe impl Send for Blocks {}
    let heap = C::new();
    let layout = layout(64);
    let begin = Instant::now();
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel::<Blocks>(16);
        let (back, empties) = mpsc::channel::<Blocks>();
        let frees = scope.spawn(|| {
            let (receiver, back) = (receiver, back);
            for mut blocks in receiver {
                for block in blocks.0.drain(..) {
                    // SAFETY: 1. live, not used any more.
                    unsafe { heap.free(block, layout) };
                }
                // The other may have ended.
                let _ = back.send(blocks);
            }
        });
        for _ in 0..BATCHES {
            let mut blocks = empties
                .try_recv()
                .unwrap_or(Blocks(Vec::with_capacity(BATCH)));
            blocks
                .0
                .extend((0..BATCH).map(|_| touch(heap.alloc(layout))));
            sender.send(blocks).expect("a receiver");
        }
        drop(sender);
        frees.join().expect("no panic");
    });
    nanoseconds(begin.elapsed(), BATCH * BATCHES)
}
