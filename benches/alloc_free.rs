//! One thread: pairs, batches in three orders, and random replacement among many live blocks.
#![expect(missing_docs, reason = "`criterion_group!` makes a public function")]

use core::alloc::{GlobalAlloc, Layout};
use core::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

mod common;

use common::{Block, give, layout, side_by_side, take};

type Group<'a> = BenchmarkGroup<'a, WallTime>;

const PAIR_SIZES: [usize; 6] = [16, 64, 256, 1024, 8192, 32768];

/// Blocks in a batch.
const BATCH: usize = 1000;

/// Every random choice here comes from this seed.
const SEED: u64 = 1;

fn random() -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(SEED)
}

/// Small sizes as in a program full of strings and nodes.
fn mixed(count: usize) -> Vec<Layout> {
    let mut random = random();
    (0..count)
        .map(|_| layout(random.random_range(16..=512)))
        .collect()
}

fn pairs(c: &mut Criterion) {
    let mut group = c.benchmark_group("pair");
    for size in PAIR_SIZES {
        side_by_side!(pair, &mut group, size);
    }
    group.finish();
}

fn pair<A: GlobalAlloc>(group: &mut Group<'_>, name: &str, allocator: &A, size: usize) {
    let layout = black_box(layout(size));
    group.bench_function(BenchmarkId::new(name, size), |b| {
        b.iter(|| {
            let block = black_box(take(allocator, layout));
            // SAFETY: 1. taken from `allocator` on the line above.
            unsafe { give(allocator, block) };
        });
    });
}

fn batches(c: &mut Criterion) {
    let forward: Vec<usize> = (0..BATCH).collect();
    let backward: Vec<usize> = (0..BATCH).rev().collect();
    let mut shuffled = forward.clone();
    shuffled.shuffle(&mut random());
    for (kind, layouts) in [("equal", vec![layout(64); BATCH]), ("mixed", mixed(BATCH))] {
        let mut group = c.benchmark_group(format!("batch_{kind}"));
        group.throughput(Throughput::Elements(BATCH as u64));
        for (order, indices) in [
            ("fifo", &forward),
            ("lifo", &backward),
            ("random", &shuffled),
        ] {
            side_by_side!(batch, &mut group, order, &layouts, indices);
        }
        group.finish();
    }
}

/// Allocates in the order of `layouts` and frees in that of `indices`.
fn batch<A: GlobalAlloc>(
    group: &mut Group<'_>,
    name: &str,
    allocator: &A,
    order: &str,
    layouts: &[Layout],
    indices: &[usize],
) {
    let mut blocks: Vec<Option<Block>> = layouts.iter().map(|_| None).collect();
    group.bench_function(BenchmarkId::new(name, order), |b| {
        b.iter(|| {
            for (slot, layout) in blocks.iter_mut().zip(layouts) {
                *slot = Some(take(allocator, *layout));
            }
            black_box(&mut blocks);
            for index in indices {
                if let Some(block) = blocks[*index].take() {
                    // SAFETY: 1. taken from `allocator` by the loop above.
                    unsafe { give(allocator, block) };
                }
            }
        });
    });
}

fn replacements(c: &mut Criterion) {
    let mut group = c.benchmark_group("replace");
    for live in [2_000, 100_000] {
        side_by_side!(replace, &mut group, live);
    }
    group.finish();
}

/// Frees a random one of `live` blocks and allocates another of some other size.
fn replace<A: GlobalAlloc>(group: &mut Group<'_>, name: &str, allocator: &A, live: usize) {
    let layouts = mixed(live);
    group.bench_function(BenchmarkId::new(name, live), |b| {
        let mut random = random();
        let mut blocks: Vec<Block> = layouts
            .iter()
            .map(|layout| take(allocator, *layout))
            .collect();
        b.iter(|| {
            let layout = layouts[random.random_range(0..live)];
            let old = &mut blocks[random.random_range(0..live)];
            let old = core::mem::replace(old, take(allocator, layout));
            // SAFETY: 1. every block of the table was taken from `allocator`.
            unsafe { give(allocator, old) };
        });
        for block in blocks {
            // SAFETY: 1. as above.
            unsafe { give(allocator, block) };
        }
    });
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = pairs, batches, replacements
}
criterion_main!(benches);
