//! Two threads: one allocates and the other frees; and threads that come, allocate and go.
#![expect(missing_docs, reason = "`criterion_group!` makes a public function")]

use core::alloc::GlobalAlloc;
use core::array;
use core::hint::black_box;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};

mod common;

use common::{Block, give, layout, side_by_side, take};

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// Blocks that change hands at once. The channel's own cost is spread over them.
const PARCEL: usize = 64;

/// Parcels under way at most.
const IN_FLIGHT: usize = 64;

/// Blocks that a short-lived thread allocates ...
const LIFE: usize = 1000;

/// ... and one in so many is left for the parent to free.
const LEGACY_ONE_IN: usize = 10;

fn producer_consumer(c: &mut Criterion) {
    let mut group = c.benchmark_group("producer_consumer");
    group.throughput(Throughput::Elements(PARCEL as u64));
    for size in [64, 1024] {
        side_by_side!(hand_over, &mut group, size);
    }
    group.finish();
}

/// An iteration is one parcel, allocated here and freed by another thread.
fn hand_over<A: GlobalAlloc + Sync>(group: &mut Group<'_>, name: &str, allocator: &A, size: usize) {
    let layout = black_box(layout(size));
    group.bench_function(BenchmarkId::new(name, size), |b| {
        b.iter_custom(|parcels| {
            let (sender, receiver) = mpsc::sync_channel::<[Block; PARCEL]>(IN_FLIGHT);
            thread::scope(|scope| {
                let start = Instant::now();
                let consumer = scope.spawn(move || {
                    for block in receiver.into_iter().flatten() {
                        // SAFETY: 1. the producer took it from this same `allocator`.
                        unsafe { give(allocator, block) };
                    }
                });
                for _ in 0..parcels {
                    let parcel = array::from_fn(|_| take(allocator, layout));
                    sender
                        .send(parcel)
                        .expect("the consumer waits for the last parcel");
                }
                drop(sender);
                consumer.join().expect("the consumer does not panic");
                start.elapsed()
            })
        });
    });
}

fn thread_churn(c: &mut Criterion) {
    let mut group = c.benchmark_group("thread_churn");
    group.throughput(Throughput::Elements(LIFE as u64));
    side_by_side!(churn, &mut group);
    group.finish();
}

/// An iteration is one thread's life.
fn churn<A: GlobalAlloc + Sync>(group: &mut Group<'_>, name: &str, allocator: &A) {
    group.bench_function(name, |b| {
        b.iter(|| {
            let legacy = thread::scope(|scope| {
                let life = scope.spawn(|| live(allocator));
                life.join().expect("the thread does not panic")
            });
            for block in legacy {
                // SAFETY: 1. the thread took it from this same `allocator`.
                unsafe { give(allocator, block) };
            }
        });
    });
}

/// Allocates blocks of several sizes, frees most of them and returns the others.
fn live<A: GlobalAlloc>(allocator: &A) -> Vec<Block> {
    let blocks: Vec<Block> = (0..LIFE)
        .map(|n| take(allocator, layout(16 + n % 32 * 16)))
        .collect();
    let mut legacy = Vec::with_capacity(LIFE.div_ceil(LEGACY_ONE_IN));
    for (index, block) in blocks.into_iter().enumerate() {
        if index.is_multiple_of(LEGACY_ONE_IN) {
            legacy.push(block);
        } else {
            // SAFETY: 1. taken from `allocator` at the top of this function.
            unsafe { give(allocator, block) };
        }
    }
    legacy
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = producer_consumer, thread_churn
}
criterion_main!(benches);
