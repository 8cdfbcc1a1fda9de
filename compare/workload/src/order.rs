//! b_: a batch of blocks allocated, then all freed in a given order.
//! f_pair8: the same on several threads at once.

use std::hint::black_box;

use super::block::{Block, BlockLayout};
use super::meter::{Meter, Reading};
use super::random::{mix, mixed_layout, permutation, scale};
use super::team;

const BATCH: usize = 1000;
const ROUNDS: u64 = 2_500;

const BIG_BATCH: usize = 200;
const BIG_ROUNDS: u64 = 600;
const BIG_MIN: usize = 1 << 10;
const BIG_MAX: usize = 16 << 10;

/// f_pair8: what a request handler might hold at a time.
const SMALL_BATCH: usize = 64;
const SMALL_MIN: usize = 16;
const SMALL_MAX: usize = 128;
/// Batches of all threads together.
const SMALL_ROUNDS: u64 = 64_000;

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
    batches(meter, ROUNDS, Batch::new(order, layouts))
}

/// Blocks of 16 to 512 bytes.
pub(crate) fn mixed(meter: &Meter, order: Order) -> Reading {
    let layouts = (0..BATCH as u64).map(mixed_layout).collect();
    batches(meter, ROUNDS, Batch::new(order, layouts))
}

/// Blocks of 1 to 16 KiB.
pub(crate) fn big(meter: &Meter, order: Order) -> Reading {
    let layouts = between(BIG_MIN, BIG_MAX, BIG_BATCH);
    batches(meter, BIG_ROUNDS, Batch::new(order, layouts))
}

/// Blocks of 16 to 128 bytes on each of several threads.
pub(crate) fn threaded(meter: &Meter, threads: usize) -> Reading {
    let rounds = SMALL_ROUNDS / threads as u64;
    team::run(meter, threads, rounds, threads * SMALL_BATCH, |_| {
        let layouts = between(SMALL_MIN, SMALL_MAX, SMALL_BATCH);
        let mut batch = Batch::new(Order::Fifo, layouts);
        move |rounds| batch.run(rounds)
    })
}

/// So many sizes, evenly spread.
fn between(min: usize, max: usize, count: usize) -> Vec<BlockLayout> {
    let size = |index| min + scale(mix(index), max - min + 1);
    (0..count as u64)
        .map(|index| BlockLayout::new(size(index)))
        .collect()
}

fn batches(meter: &Meter, rounds: u64, mut batch: Batch) -> Reading {
    let size = batch.layouts.len();
    meter.run(rounds, size, |rounds| batch.run(rounds))
}

struct Batch {
    layouts: Vec<BlockLayout>,
    order: Vec<u32>,
    blocks: Vec<Block>,
}

impl Batch {
    fn new(order: Order, layouts: Vec<BlockLayout>) -> Self {
        let count = layouts.len();
        let order = match order {
            Order::Fifo => (0..count as u32).collect(),
            Order::Lifo => (0..count as u32).rev().collect(),
            Order::Random => permutation(count, 1),
        };
        Self {
            layouts,
            order,
            blocks: Vec::with_capacity(count),
        }
    }

    fn run(&mut self, rounds: u64) -> u64 {
        let Self {
            layouts,
            order,
            blocks,
        } = self;
        let mut sum = 0_u64;
        for round in 0..rounds {
            blocks.clear();
            blocks.extend(layouts.iter().map(|&layout| Block::alloc(layout, round)));
            for &index in order.iter() {
                let block = blocks[index as usize];
                // SAFETY: 1. allocated above; `order` names each block once.
                sum = sum.wrapping_add(unsafe { block.word() });
                // SAFETY: 1. as above, and the handles are cleared before the next use.
                // 2. `layouts` and `blocks` run in parallel.
                unsafe { block.free(layouts[index as usize]) };
            }
        }
        sum
    }
}
