//! Blocks of 256 KiB to 8 MiB: allocated, touched page by page, freed; and the same zeroed.
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

const SIZES_KIB: [usize; 6] = [256, 512, 1024, 2048, 4096, 8192];

/// One byte in each of these is touched; no page is smaller.
const PAGE: usize = 4096;

/// As `take`, by `alloc_zeroed`.
fn take_zeroed<A: GlobalAlloc>(allocator: &A, size: usize) -> Block {
    let layout = layout(size);
    // SAFETY: no benchmark asks for zero bytes.
    let start = unsafe { allocator.alloc_zeroed(layout) };
    Block {
        start: NonNull::new(start).expect("out of memory"),
        layout,
    }
}

/// Writes to every page.
fn touch(block: &Block) {
    for at in (0..block.layout.size()).step_by(PAGE) {
        // SAFETY: `at` lies inside the block.
        let byte = unsafe { block.start.add(at) };
        // SAFETY: 1. inside the block, which is ours. 2. a byte is always aligned.
        unsafe { byte.write_volatile(1) };
    }
}

fn alloc_touch_free(c: &mut Criterion) {
    let mut group = c.benchmark_group("large_touched");
    for kib in SIZES_KIB {
        group.throughput(Throughput::Bytes((kib << 10) as u64));
        side_by_side!(touched, &mut group, kib);
    }
    group.finish();
}

fn touched<A: GlobalAlloc>(group: &mut Group<'_>, name: &str, allocator: &A, kib: usize) {
    let layout = black_box(layout(kib << 10));
    group.bench_function(BenchmarkId::new(name, format!("{kib}K")), |b| {
        b.iter(|| {
            let block = take(allocator, layout);
            touch(&block);
            // SAFETY: 1. taken from `allocator` above.
            unsafe { give(allocator, block) };
        });
    });
}

fn zeroed(c: &mut Criterion) {
    for (name, touched) in [
        ("large_zeroed_touched", true),
        ("large_zeroed_untouched", false),
    ] {
        let mut group = c.benchmark_group(name);
        for kib in SIZES_KIB {
            side_by_side!(zero, &mut group, kib, touched);
        }
        group.finish();
    }
}

/// Untouched, this shows whether fresh memory is zeroed by hand.
fn zero<A: GlobalAlloc>(
    group: &mut Group<'_>,
    name: &str,
    allocator: &A,
    kib: usize,
    touched: bool,
) {
    let size = black_box(kib << 10);
    group.bench_function(BenchmarkId::new(name, format!("{kib}K")), |b| {
        b.iter(|| {
            let block = black_box(take_zeroed(allocator, size));
            if touched {
                touch(&block);
            }
            // SAFETY: 1. taken from `allocator` above.
            unsafe { give(allocator, block) };
        });
    });
}

criterion_group! {
    name = benches;
    config = common::criterion();
    targets = alloc_touch_free, zeroed
}
criterion_main!(benches);
