//! e_: random replacement of big blocks; one word is written in each page of a new block.

use super::block::{Block, BlockLayout};
use super::meter::{Meter, Reading};
use super::random::Random;

/// What a row of this group varies.
pub(crate) struct Shape {
    pub(crate) live: usize,
    pub(crate) min: usize,
    pub(crate) max: usize,
    /// Replacements per slice at scale 1.
    pub(crate) rounds: u64,
}

pub(crate) fn replace(meter: &Meter, shape: &Shape) -> Reading {
    let mut random = Random::new(5);
    let mut make = |word: u64| {
        let layout = BlockLayout::new(shape.min + random.below(shape.max - shape.min + 1));
        let block = Block::alloc(layout, word);
        // SAFETY: 1. allocated above. 2. with this layout.
        unsafe { block.touch_pages(layout, word) };
        (block, layout)
    };
    let mut slots: Vec<(Block, BlockLayout)> = (0..shape.live as u64).map(&mut make).collect();
    let mut victims = Random::new(6);
    let reading = meter.run(shape.rounds, 1, |rounds| {
        let mut sum = 0_u64;
        for round in 0..rounds {
            let slot = &mut slots[victims.below(shape.live)];
            // SAFETY: 1. a slot holds a live block.
            sum = sum.wrapping_add(unsafe { slot.0.word() });
            // SAFETY: 1. the slot is overwritten below. 2. a slot keeps its block's layout.
            unsafe { slot.0.free(slot.1) };
            *slot = make(round);
        }
        sum
    });
    for (block, layout) in slots {
        // SAFETY: 1. a slot holds a live block, and the slots end here. 2. its layout.
        unsafe { block.free(layout) };
    }
    reading
}
