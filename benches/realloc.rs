//! Growing one block to 8 MiB: bare doubling, doubling with every element written as `Vec::push`
//! does, and fixed steps.
#![expect(missing_docs, reason = "`criterion_group!` makes a public function")]

use core::alloc::GlobalAlloc;
use core::hint::black_box;
use core::ptr::NonNull;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};

mod common;

use common::{Block, give, layout, side_by_side, take};

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// Where growth ends, in bytes.
const LARGEST: usize = 8 << 20;

/// Where it begins: four words, as a `Vec<u64>` does.
const SMALLEST: usize = 32;

/// Growth of a buffer that is read into in fixed steps.
const STEP: usize = 64 << 10;

const WORD: usize = size_of::<u64>();

/// Grows `block` to `size` bytes.
///
/// # Safety
///
/// 1. `block` came from `take` with this same allocator.
unsafe fn grow<A: GlobalAlloc>(allocator: &A, block: Block, size: usize) -> Block {
    let new = layout(size);
    // SAFETY: 1. the caller says that it is this allocator's; it is consumed, so not freed before.
    // 2. with this layout. 3. and 4. `layout` checked the size, and no benchmark asks for zero
    // bytes.
    let start = unsafe { allocator.realloc(block.start.as_ptr(), block.layout, size) };
    Block {
        start: NonNull::new(start).expect("out of memory"),
        layout: new,
    }
}

/// Writes one word at byte `at`.
fn write(block: &Block, at: usize, value: u64) {
    assert!(at + WORD <= block.layout.size());
    // SAFETY: the word lies inside the block.
    let place = unsafe { block.start.add(at) }.cast::<u64>();
    // SAFETY: 1. inside the block, asserted above, and the block is ours. 2. needs no alignment.
    unsafe { place.write_unaligned(value) };
}

/// From `SMALLEST` to `LARGEST`; only the last word of each size is written.
fn doubling<A: GlobalAlloc>(allocator: &A) {
    let mut block = take(allocator, layout(SMALLEST));
    while block.layout.size() < LARGEST {
        let size = block.layout.size() * 2;
        // SAFETY: 1. taken from `allocator` above.
        block = unsafe { grow(allocator, block, size) };
        write(&block, size - WORD, 1);
    }
    // SAFETY: 1. taken from `allocator` above.
    unsafe { give(allocator, black_box(block)) };
}

/// The same, with every word written before the next doubling.
fn push<A: GlobalAlloc>(allocator: &A) {
    let mut block = take(allocator, layout(SMALLEST));
    for at in (0..LARGEST).step_by(WORD) {
        if at == block.layout.size() {
            // SAFETY: 1. taken from `allocator` above.
            block = unsafe { grow(allocator, block, at * 2) };
        }
        write(&block, at, 1);
    }
    // SAFETY: 1. taken from `allocator` above.
    unsafe { give(allocator, black_box(block)) };
}

/// By `STEP` each time; the last word is written.
fn steps<A: GlobalAlloc>(allocator: &A) {
    let mut block = take(allocator, layout(STEP));
    for size in (2 * STEP..=LARGEST).step_by(STEP) {
        // SAFETY: 1. taken from `allocator` above.
        block = unsafe { grow(allocator, block, size) };
        write(&block, size - WORD, 1);
    }
    // SAFETY: 1. taken from `allocator` above.
    unsafe { give(allocator, black_box(block)) };
}

fn growth(c: &mut Criterion) {
    let mut group = c.benchmark_group("grow_to_8_MiB");
    group.throughput(Throughput::Bytes(LARGEST as u64));
    side_by_side!(case, &mut group);
    group.finish();
}

fn case<A: GlobalAlloc>(group: &mut Group<'_>, name: &str, allocator: &A) {
    group.bench_function(BenchmarkId::new(name, "doubling"), |b| {
        b.iter(|| doubling(allocator))
    });
    group.bench_function(BenchmarkId::new(name, "push"), |b| {
        b.iter(|| push(allocator))
    });
    group.bench_function(BenchmarkId::new(name, "steps"), |b| {
        b.iter(|| steps(allocator))
    });
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = growth
}
criterion_main!(benches);
