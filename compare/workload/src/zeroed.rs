//! e_z: memory that must be zero: how much of that does the allocator know without writing it?

use std::hint::black_box;

use super::block::{Block, BlockLayout};
use super::meter::{Meter, Reading};
use super::random::Random;

const SPARSE_LIVE: usize = 4;
const SPARSE_MIN: usize = 256 << 10;
const SPARSE_MAX: usize = 8 << 20;
/// Bytes looked at and written, each most likely in a page of its own.
const TOUCHES: usize = 8;

const SMALL_LIVE: usize = 64;
const SMALL_MIN: usize = 64;
const SMALL_MAX: usize = 4096;

/// Large tables of which little is used, such as bitmaps and sparse matrices.
pub(crate) fn sparse(meter: &Meter) -> Reading {
    let mut random = Random::new(10);
    let mut tables: Vec<Vec<u8>> = vec![Vec::new(); SPARSE_LIVE];
    meter.run(60, 1, |rounds| {
        let mut sum = 0_u64;
        for _ in 0..rounds {
            let table = &mut tables[random.below(SPARSE_LIVE)];
            // freed first, as by a program that has no use for two
            *table = Vec::new();
            *table = vec![0; SPARSE_MIN + random.below(SPARSE_MAX - SPARSE_MIN + 1)];
            // or the compiler, which knows what zeroed means, may not read
            black_box(table.as_mut_ptr());
            for _ in 0..TOUCHES {
                let index = random.below(table.len());
                let byte = &mut table[index];
                sum = sum.wrapping_mul(31).wrapping_add(u64::from(*byte));
                *byte = byte.wrapping_add(1);
            }
        }
        sum
    })
}

struct Slot {
    block: Block,
    layout: BlockLayout,
}

/// Random replacement of small blocks; the first and the last word of each are read and written.
pub(crate) fn small(meter: &Meter) -> Reading {
    let mut random = Random::new(11);
    let make = |random: &mut Random| {
        let size = SMALL_MIN + random.below(SMALL_MAX - SMALL_MIN + 1);
        let layout = BlockLayout::new(size.next_multiple_of(size_of::<u64>()));
        let block = Block::alloc_zeroed(layout);
        // as above
        black_box(block.address());
        Slot { block, layout }
    };
    let mut slots: Vec<Slot> = (0..SMALL_LIVE).map(|_| make(&mut random)).collect();
    let reading = meter.run(400_000, 1, |rounds| {
        let mut sum = 0_u64;
        for _ in 0..rounds {
            let slot = &mut slots[random.below(SMALL_LIVE)];
            // SAFETY: 1. the slot is overwritten below. 2. a slot keeps its block's layout.
            unsafe { slot.block.free(slot.layout) };
            *slot = make(&mut random);
            for offset in [0, slot.layout.size() - size_of::<u64>()] {
                // SAFETY: 1. the word at `offset` ends within the block.
                let word = unsafe { slot.block.address().byte_add(offset) };
                // SAFETY: 1. within the block, zeroed. 2. the size is a multiple of a word, so aligned.
                sum = sum.wrapping_mul(31).wrapping_add(unsafe { word.read() });
                // SAFETY: 1. and 2. as above.
                unsafe { word.write(sum | 1) };
            }
        }
        sum
    });
    for slot in slots {
        // SAFETY: 1. a slot holds a live block, and the slots end here. 2. its layout.
        unsafe { slot.block.free(slot.layout) };
    }
    reading
}
