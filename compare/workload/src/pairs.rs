//! a_: one block allocated, written, freed, over and over.
//!
//! `black_box` on the address keeps the compiler from removing the pair (it may remove an
//! allocation that nobody sees); it costs one store to the stack per pair, under every allocator.

use std::hint::black_box;

use super::block::{Block, BlockLayout};
use super::meter::{Meter, Reading};

/// A size that the compiler cannot see.
pub(crate) fn sized(meter: &Meter, size: usize, rounds: u64) -> Reading {
    let layout = BlockLayout::new(black_box(size));
    meter.run(rounds, 1, |rounds| {
        let mut sum = 0_u64;
        for round in 0..rounds {
            let block = Block::alloc(layout, round);
            black_box(block.address());
            // SAFETY: 1. allocated above.
            sum = sum.wrapping_add(unsafe { block.word() });
            // SAFETY: 1. this is the block's only use after the read. 2. its own layout.
            unsafe { block.free(layout) };
        }
        sum
    })
}

/// `Box<[u8; 40]>`: size and alignment are constants at the call site.
pub(crate) fn const40(meter: &Meter) -> Reading {
    meter.run(4_000_000, 1, |rounds| {
        let mut sum = 0_u64;
        for round in 0..rounds {
            let mut block = Box::new([round as u8; 40]);
            black_box(block.as_mut_ptr());
            sum = sum.wrapping_add(u64::from(block[39]));
        }
        sum
    })
}

/// `Box<[u64; 8]>`.
pub(crate) fn const64(meter: &Meter) -> Reading {
    meter.run(4_000_000, 1, |rounds| {
        let mut sum = 0_u64;
        for round in 0..rounds {
            let mut block = Box::new([round; 8]);
            black_box(block.as_mut_ptr());
            sum = sum.wrapping_add(block[7]);
        }
        sum
    })
}
