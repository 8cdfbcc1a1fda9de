//! n_: how the cost of an operation grows with what is alive, and with the number of threads. Run by themselves.

use super::block::{Block, BlockLayout};
use super::mapped::MappedArray;
use super::meter::{Meter, Reading};
use super::outcome::Outcome;
use super::random::{Random, scale};
use super::replace::WorkingSet;
use super::setting::Setting;
use super::team;

/// Bytes of a block where only their number matters.
const SIZE: usize = 32;
/// Replacements of a slice.
const REPLACEMENTS: u64 = 4_000_000;

/// Live blocks of each thread.
const SET: usize = 5_000;
/// Replacements of all threads in a slice.
const SET_ROUNDS: u64 = 1_600_000;

/// Bytes that a thread holds of long blocks, and replacements of all threads in a slice.
const LONG_LIVE: usize = 32 << 20;
const LONG_ROUNDS: u64 = 400_000;
/// Sizes are drawn beforehand; a power of two, so that an index is a mask.
const LONG_SIZES: usize = 256;

/// Blocks that a thread allocates before it frees them all: more than an allocator keeps at hand.
const BURST: usize = 20_000;
const BURST_SIZE: usize = 64;
/// Bursts of all threads in a slice.
const BURSTS: u64 = 64;

fn outcome(reading: &Reading) -> Outcome {
    Outcome {
        figures: vec![("ns", reading.ns_per_op)],
        checksum: Some(reading.checksum),
        ..Outcome::default()
    }
}

/// So many live blocks, of which the oldest is replaced: each comes by in turn, so that the cache's own misses
/// are foreseen and what the allocator does is left.
pub(crate) fn live(setting: &Setting, live: usize) -> Result<Outcome, String> {
    let layout = BlockLayout::new(SIZE);
    let mut blocks = MappedArray::<Option<Block>>::new(live)?;
    for (index, slot) in blocks.iter_mut().enumerate() {
        *slot = Some(Block::alloc(layout, index as u64));
    }
    let mut oldest = 0;
    let reading = Meter::new(setting).run(REPLACEMENTS, 1, |rounds| {
        let mut sum = 0_u64;
        for round in 0..rounds {
            let slot = &mut blocks[oldest];
            if let Some(block) = slot.take() {
                // SAFETY: 1. a live block of the array.
                sum = sum.wrapping_add(unsafe { block.word() });
                // SAFETY: 1. taken out of the array. 2. all have one layout.
                unsafe { block.free(layout) };
            }
            *slot = Some(Block::alloc(layout, round));
            oldest = if oldest + 1 == live { 0 } else { oldest + 1 };
        }
        sum
    });
    // The process ends next: freeing 10^8 blocks takes longer than measuring.
    Ok(outcome(&reading))
}

/// Random replacement on so many threads, each with a small set of its own.
pub(crate) fn sets(setting: &Setting, threads: usize) -> Result<Outcome, String> {
    let rounds = SET_ROUNDS / threads as u64;
    let reading = team::run(&Meter::new(setting), threads, rounds, threads, |index| {
        let mut set = WorkingSet::new(SET, 30 + index as u64);
        move |rounds| set.replace(rounds)
    });
    Ok(outcome(&reading))
}

/// Random replacement of blocks of a quarter less than `size` to a quarter more, of which one word is
/// written: what the allocator does is left, and what its pages cost.
pub(crate) fn long(setting: &Setting, size: usize, threads: usize) -> Result<Outcome, String> {
    let rounds = LONG_ROUNDS / threads as u64;
    let reading = team::run(&Meter::new(setting), threads, rounds, threads, |index| {
        let mut random = Random::new(50 + index as u64);
        let layouts: Vec<_> = (0..LONG_SIZES)
            .map(|_| BlockLayout::new(size / 4 * 3 + random.below(size / 2)))
            .collect();
        let mut slots: Vec<_> = (0..LONG_LIVE / size)
            .map(|index| layouts[index % LONG_SIZES])
            .map(|layout| (Block::alloc(layout, 0), layout))
            .collect();
        move |rounds| {
            let mut sum = 0_u64;
            for _ in 0..rounds {
                let word = random.next();
                let slot = &mut slots[scale(word, LONG_LIVE / size)];
                // SAFETY: 1. a slot holds a live block.
                sum = sum.wrapping_add(unsafe { slot.0.word() });
                // SAFETY: 1. the slot is overwritten below. 2. a slot keeps its block's layout.
                unsafe { slot.0.free(slot.1) };
                let layout = layouts[word as usize % LONG_SIZES];
                *slot = (Block::alloc(layout, word), layout);
            }
            sum
        }
    });
    Ok(outcome(&reading))
}

/// Every thread allocates a burst of blocks of one size and frees them: all are in the allocator's shared part at
/// once, and who holds a lock there loses its processor.
pub(crate) fn bursts(setting: &Setting, threads: usize) -> Result<Outcome, String> {
    let layout = BlockLayout::new(BURST_SIZE);
    let rounds = BURSTS / threads as u64;
    let reading = team::run(
        &Meter::new(setting),
        threads,
        rounds,
        threads * BURST,
        |_| {
            let mut blocks = Vec::with_capacity(BURST);
            move |rounds| {
                let mut sum = 0_u64;
                for _ in 0..rounds {
                    blocks.extend((0..BURST as u64).map(|index| Block::alloc(layout, index)));
                    for block in blocks.drain(..) {
                        // SAFETY: 1. allocated above.
                        sum = sum.wrapping_add(unsafe { block.word() });
                        // SAFETY: 1. drained. 2. all have one layout.
                        unsafe { block.free(layout) };
                    }
                }
                sum
            }
        },
    );
    Ok(outcome(&reading))
}
