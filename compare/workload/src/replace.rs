//! c_: a working set of live blocks; each step frees a random one and allocates another.
//! f_: the same on several threads at once, each with its own set.

use super::block::{Block, BlockLayout};
use super::meter::{Meter, Reading};
use super::random::{Random, scale, skewed_layout};
use super::team;

/// Sizes are drawn beforehand; a power of two, so that an index is a mask.
const SIZES: usize = 1024;

const THREADED_LIVE: usize = 50_000;

struct Slot {
    block: Block,
    layout: BlockLayout,
}

/// Live blocks of mixed sizes. Every slot always holds one.
struct WorkingSet {
    slots: Vec<Slot>,
    layouts: Vec<BlockLayout>,
    random: Random,
}

impl WorkingSet {
    fn new(live: usize, seed: u64) -> Self {
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

    fn replace(&mut self, rounds: u64) -> u64 {
        let live = self.slots.len();
        let layouts = &self.layouts[..SIZES];
        let mut sum = 0_u64;
        for _ in 0..rounds {
            let word = self.random.next();
            // the upper half picks the victim, the lower bits the size
            let slot = &mut self.slots[scale(word, live)];
            // SAFETY: 1. a slot holds a live block.
            sum = sum.wrapping_add(unsafe { slot.block.word() });
            // SAFETY: 1. the slot is overwritten below. 2. a slot keeps its block's layout.
            unsafe { slot.block.free(slot.layout) };
            let layout = layouts[word as usize % SIZES];
            *slot = Slot {
                block: Block::alloc(layout, word),
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

pub(crate) fn threaded(meter: &Meter, threads: usize) -> Reading {
    team::run(meter, threads, 800_000, threads, |index| {
        let mut set = WorkingSet::new(THREADED_LIVE, 3 + index as u64);
        move |rounds| set.replace(rounds)
    })
}
