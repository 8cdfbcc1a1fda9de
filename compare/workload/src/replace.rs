//! c_: a working set of live blocks; each step frees a random one and allocates another.
//! f_: the same on several threads at once, each with its own set.
//! h_larson: the same, each set in the hands of one short-lived thread after another.

use std::thread;

use super::block::{Block, BlockLayout};
use super::meter::{Meter, Reading};
use super::random::{Random, scale, skewed_layout};
use super::team;

/// Sizes are drawn beforehand; a power of two, so that an index is a mask.
const SIZES: usize = 1024;

const THREADED_LIVE: usize = 50_000;
/// Replacements of all threads together.
const THREADED_ROUNDS: u64 = 800_000;

/// h_larson: sets, hence threads alive at a time; blocks and replacements of each.
const SECTIONS: usize = 4;
const SECTION_LIVE: usize = 1000;
const SECTION_ROUNDS: u64 = 10_000;
const STACK: usize = 128 << 10;

struct Slot {
    block: Block,
    layout: BlockLayout,
}

/// Live blocks of mixed sizes. Every slot always holds one.
pub(crate) struct WorkingSet {
    slots: Vec<Slot>,
    layouts: Vec<BlockLayout>,
    random: Random,
}

impl WorkingSet {
    pub(crate) fn new(live: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let layouts: Vec<BlockLayout> = (0..SIZES).map(|_| skewed_layout(&mut random)).collect();
        let slots = (0..live)
            .map(|index| {
                let layout = layouts[random.below(SIZES)];
                Slot {
                    block: Block::alloc(layout, index as u64),
                    layout,
                }
            })
            .collect();
        Self {
            slots,
            layouts,
            random,
        }
    }

    pub(crate) fn replace(&mut self, rounds: u64) -> u64 {
        self.replace_by(rounds, Block::alloc, |block, layout| {
            // SAFETY: 1. `replace_by` forgets the block. 2. it gives the block's layout.
            unsafe { block.free(layout) };
        })
    }

    /// Each round hands one block to `free` and stores what `alloc` makes in its place.
    #[inline(always)]
    pub(crate) fn replace_by(
        &mut self,
        rounds: u64,
        mut alloc: impl FnMut(BlockLayout, u64) -> Block,
        mut free: impl FnMut(Block, BlockLayout),
    ) -> u64 {
        let live = self.slots.len();
        let layouts = &self.layouts[..SIZES];
        let mut sum = 0_u64;
        for _ in 0..rounds {
            let word = self.random.next();
            // the upper half picks the victim, the lower bits the size
            let slot = &mut self.slots[scale(word, live)];
            // SAFETY: 1. a slot holds a live block.
            sum = sum.wrapping_add(unsafe { slot.block.word() });
            free(slot.block, slot.layout);
            let layout = layouts[word as usize % SIZES];
            *slot = Slot {
                block: alloc(layout, word),
                layout,
            };
        }
        sum
    }
}

impl Drop for WorkingSet {
    fn drop(&mut self) {
        for slot in &self.slots {
            // SAFETY: 1. a slot holds a live block, and the set ends here. 2. its layout.
            unsafe { slot.block.free(slot.layout) };
        }
    }
}

pub(crate) fn working_set(meter: &Meter, live: usize, rounds: u64) -> Reading {
    let mut set = WorkingSet::new(live, 2);
    meter.run(rounds, 1, |rounds| set.replace(rounds))
}

/// The work is the same for any number of threads, so that a slice is short on many processors.
pub(crate) fn threaded(meter: &Meter, threads: usize) -> Reading {
    let rounds = THREADED_ROUNDS / threads as u64;
    team::run(meter, threads, rounds, threads, |index| {
        let mut set = WorkingSet::new(THREADED_LIVE, 3 + index as u64);
        move |rounds| set.replace(rounds)
    })
}

/// After Larson and Krishnan: each round gives every section to a fresh thread, which frees what
/// threads before it have left and leaves blocks of its own.
pub(crate) fn larson(meter: &Meter) -> Reading {
    let set = |seed| WorkingSet::new(SECTION_LIVE, seed);
    let mut sections: Vec<WorkingSet> = (20..20 + SECTIONS as u64).map(set).collect();
    let ops = SECTIONS * SECTION_ROUNDS as usize;
    meter.run(40, ops, |rounds| {
        let mut sum = 0_u64;
        for _ in 0..rounds {
            let threads: Vec<_> = sections.drain(..).map(start_life).collect();
            for thread in threads {
                let (section, of_thread) = thread.join().expect("a replacement does not panic");
                sum = sum.wrapping_add(of_thread);
                sections.push(section);
            }
        }
        sum
    })
}

fn start_life(mut section: WorkingSet) -> thread::JoinHandle<(WorkingSet, u64)> {
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || {
            let sum = section.replace(SECTION_ROUNDS);
            (section, sum)
        })
        .expect("a thread can be started")
}
