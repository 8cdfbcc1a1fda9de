//! b_: a batch of blocks allocated, then all freed in a given order.

use std::hint::black_box;

use super::block::{Block, BlockLayout};
use super::meter::{Meter, Reading};
use super::random::{mixed_layout, permutation};

const BATCH: usize = 1000;
const ROUNDS: u64 = 4_000;

/// The order in which a batch is freed.
#[derive(Clone, Copy)]
pub(crate) enum Order {
    /// As allocated.
    Fifo,
    /// The last first.
    Lifo,
    /// One fixed random order.
    Random,
}

/// Blocks of 64 bytes; the compiler does not know the size.
pub(crate) fn same(meter: &Meter, order: Order) -> Reading {
    let layouts = vec![BlockLayout::new(black_box(64)); BATCH];
    batches(meter, order, &layouts)
}

/// Blocks of 16 to 512 bytes.
pub(crate) fn mixed(meter: &Meter, order: Order) -> Reading {
    let layouts: Vec<BlockLayout> = (0..BATCH as u64).map(mixed_layout).collect();
    batches(meter, order, &layouts)
}

fn batches(meter: &Meter, order: Order, layouts: &[BlockLayout]) -> Reading {
    let order: Vec<u32> = match order {
        Order::Fifo => (0..BATCH as u32).collect(),
        Order::Lifo => (0..BATCH as u32).rev().collect(),
        Order::Random => permutation(BATCH, 1),
    };
    let mut blocks: Vec<Block> = Vec::with_capacity(BATCH);
    meter.run(ROUNDS, BATCH, |rounds| {
        let mut sum = 0_u64;
        for round in 0..rounds {
            blocks.clear();
            blocks.extend(layouts.iter().map(|&layout| Block::alloc(layout, round)));
            for &index in &order {
                let block = blocks[index as usize];
                // SAFETY: 1. allocated above; `order` names each block once.
                sum = sum.wrapping_add(unsafe { block.word() });
                // SAFETY: 1. as above, and the handles are cleared before the next use.
                // 2. `layouts` and `blocks` run in parallel.
                unsafe { block.free(layouts[index as usize]) };
            }
        }
        sum
    })
}
