//! k_: false sharing, after Berger et al. ("Hoard", 2000): small objects of two threads on one cache
//! line, because the allocator puts them there.

use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::block::{Block, BlockLayout};
use super::meter::{Meter, Reading};
use super::team;

const THREADS: usize = 2;
const SIZE: usize = 8;
/// Bursts of each thread.
const BURSTS: u64 = 40_000;
const WRITES: u64 = 50;

/// Counts up in the block. The additions are atomic so that each waits until its processor has the
/// cache line; plain ones would wait in the store buffer, and the row would find out how deep that is.
fn burst(block: Block) -> u64 {
    // SAFETY: 1. the caller's block: a word, aligned and written by `Block::alloc`. 2. nobody
    // reads or writes it otherwise until the burst is over.
    let counter = unsafe { AtomicU64::from_ptr(block.address().as_ptr()) };
    for _ in 0..WRITES {
        // ORDERING: relaxed, only this thread uses it.
        counter.fetch_add(1, Ordering::Relaxed);
    }
    // ORDERING: as above.
    counter.load(Ordering::Relaxed)
}

/// Allocates, writes, frees, over and over.
fn bursts(layout: BlockLayout, rounds: u64) -> u64 {
    let mut sum = 0_u64;
    for round in 0..rounds {
        let block = Block::alloc(layout, round);
        sum = sum.wrapping_add(burst(block));
        // SAFETY: 1. allocated above, and this is its last use. 2. its own layout.
        unsafe { block.free(layout) };
    }
    sum
}

/// Active: does the allocator give parts of one line to threads that allocate at the same time?
pub(crate) fn thrash(meter: &Meter) -> Reading {
    let layout = BlockLayout::new(black_box(SIZE));
    team::run(meter, THREADS, BURSTS, THREADS, |_| {
        move |rounds| bursts(layout, rounds)
    })
}

/// Passive: the main thread gives each thread an object, neighbours most likely. Does a thread that
/// has freed its own get it back, and with it a part of another's line?
pub(crate) fn scratch(meter: &Meter) -> Reading {
    let layout = BlockLayout::new(black_box(SIZE));
    let gifts = [const { Mutex::new(None::<Block>) }; THREADS];
    let give = || {
        for (word, gift) in gifts.iter().enumerate() {
            let block = Block::alloc(layout, word as u64);
            *gift.lock().expect("nothing panics under it") = Some(block);
        }
    };
    team::run_prepared(meter, THREADS, BURSTS, THREADS, give, |index| {
        let gift = &gifts[index];
        move |rounds| {
            let gift = gift.lock().expect("nothing panics under it").take();
            let gift = gift.expect("there is one for each slice");
            // SAFETY: 1. only this thread has it.
            let word = unsafe { gift.word() };
            // SAFETY: 1. as above, and this is its last use. 2. both sides use one layout.
            unsafe { gift.free(layout) };
            word.wrapping_add(bursts(layout, rounds))
        }
    })
}
