//! Purges beside claims.

use core::alloc::{GlobalAlloc, Layout};
use core::time::Duration;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use flagstone::failpoints::{self, Callback, Point};
use flagstone::{Flagstone, raw};

use super::common::child::alone;
use super::common::process::{stats, without_huge_pages};
use super::common::raw_thread::on_raw_thread;
use super::{ALLOC, get, go_to, put, stay_on_one_processor, step};

/// Blocks of one size, allocated and freed by threads that end: no cache keeps any.
#[derive(Default)]
struct Batch {
    size: usize,
    blocks: Vec<*mut u8>,
}

// SAFETY: one thread at a time, the one that waits for it.
unsafe impl Send for Batch {}

fn take(size: usize, count: usize) -> Batch {
    let mut batch = Batch {
        size,
        blocks: Vec::with_capacity(count),
    };
    on_raw_thread(&mut batch, |batch| {
        for _ in 0..batch.blocks.capacity() {
            let block = get(batch.size);
            assert!(!block.is_null());
            batch.blocks.push(block);
        }
    });
    batch
}

fn give(mut batch: Batch) {
    on_raw_thread(&mut batch, |batch| {
        batch
            .blocks
            .drain(..)
            .for_each(|block| put(block, batch.size));
    });
}

fn budget(bytes: &[u8]) {
    raw::set_option("FLAGSTONE_DIRTY_BUDGET", bytes).expect("an option");
}

/// Four units for 9 blocks; another class of as many; two units for 8.
const FOUR: usize = 28_672;
const OTHER: usize = 12_288;
const TWO: usize = 16_384;
const UNIT: usize = 64 << 10;

fn at(point: Point) {
    if point != Point::Purge {
        return;
    }
    match step() {
        1 => {
            go_to(2);
            budget(b"1G");
            let batch = OTHERS.lock().expect("no panic").take();
            give(batch.expect("a batch"));
        }
        3 => {
            go_to(4);
            budget(b"1G");
            *MEANWHILE.lock().expect("no panic") = Some(take(TWO, 8));
        }
        _ => {}
    }
}

static OTHERS: Mutex<Option<Batch>> = Mutex::new(None);
static MEANWHILE: Mutex<Option<Batch>> = Mutex::new(None);

/// A chunk that is emptied while units of it are purged is dirty in all of these, not in the first alone: else another
/// purge takes that one, a span is made of those behind it, and the note about zeroed fronts at the first outlives them.
#[test]
fn fronts_are_zero_after_a_purge_beside_a_claim() {
    static CALLBACK: Callback = at;
    let options = [
        ("FLAGSTONE_HARDENED", "zero"),
        ("FLAGSTONE_THREAD_CACHE", "0"),
        ("FLAGSTONE_DIRTY_BUDGET", "0"),
        ("FLAGSTONE_PURGE_DELAY_MS", "3600000"),
    ];
    alone(
        "purges::fronts_are_zero_after_a_purge_beside_a_claim",
        &options,
        || {
            // One heap, so that all slabs come in turn.
            assert!(stay_on_one_processor());
            // All of a chunk, so that the next slabs begin one.
            let _least = take(FOUR, 9);
            let (first, beside, two) = (take(FOUR, 9), take(OTHER, 10), take(TWO, 8));
            let _rest = (take(262_144, 12), take(40_960, 6));
            let (next, others) = (take(FOUR, 1), take(OTHER, 1));
            give(first);
            give(beside);
            *OTHERS.lock().expect("no panic") = Some(others);
            failpoints::at_points(Some(&CALLBACK));
            go_to(1);
            give(next);
            assert_eq!(step(), 2, "no purge");
            let _more = take(TWO, 8);
            let dense = take(4096, 48);
            go_to(3);
            budget(b"0");
            give(dense);
            assert_eq!(step(), 4, "no purge");
            failpoints::at_points(None);
            budget(b"1G");
            give(two);
            give(MEANWHILE.lock().expect("no panic").take().expect("a batch"));
            // Each block is looked at as it is handed out.
            let _last = (take(FOUR, 9), take(FOUR, 9));
            Flagstone::verify().expect("a whole heap");
        },
    );
}

/// An aligned span in the midst of where a slab was, whose note about zeroed fronts stands at a unit before.
#[test]
fn fronts_are_zero_after_an_aligned_span() {
    const THREE: usize = 24_576;
    const ALIGNED: usize = 128 << 10;
    let options = [
        ("FLAGSTONE_HARDENED", "zero"),
        ("FLAGSTONE_THREAD_CACHE", "0"),
        ("FLAGSTONE_PURGE_DELAY_MS", "3600000"),
    ];
    alone(
        "purges::fronts_are_zero_after_an_aligned_span",
        &options,
        || {
            assert!(stay_on_one_processor());
            // All of a chunk, so that the next slabs begin one.
            let _all = take(FOUR, 9 * 16);
            let (odd, behind) = (take(THREE, 8), take(FOUR, 18));
            // One slab of the two stays with its class.
            give(behind);
            // This thread's first calls to the kernel are behind it.
            put(get(64), 64);
            let layout = Layout::from_size_align(ALIGNED, ALIGNED).expect("a layout");
            // No mapping: then what has no guards comes from a chunk.
            failpoints::refuse_after(0, false);
            // SAFETY: the size is not 0.
            let aligned = unsafe { ALLOC.alloc(layout) };
            assert_eq!(failpoints::refuse_none(), 1);
            let first = odd.blocks.iter().map(|block| block.addr()).min();
            let from_odd = aligned.addr() - first.expect("blocks");
            assert!(
                [4, 8].contains(&(from_odd / UNIT)),
                "not in the midst of a slab: {from_odd:#x}"
            );
            // SAFETY: a block of this size.
            unsafe { aligned.write_bytes(0xAA, ALIGNED) };
            // SAFETY: allocated above.
            unsafe { ALLOC.dealloc(aligned, layout) };
            // Each block is looked at as it is handed out.
            let _again = take(FOUR, 18);
        },
    );
}

/// Fills magazines by fast paths and slabs by refills only: what a tick returns to slabs meanwhile wakes the background thread, too.
#[test]
fn what_a_tick_flushes_is_heard() {
    const PATIENCE: Duration = Duration::from_secs(60);
    const SIZES: usize = 10;
    let options = [("FLAGSTONE_PURGE_DELAY_MS", "20")];
    alone("purges::what_a_tick_flushes_is_heard", &options, || {
        without_huge_pages();
        let size = |index: usize| 512 + 64 * index;
        let mut blocks = Vec::with_capacity(1 << 13);
        for _ in 0..6 {
            for index in 0..SIZES {
                blocks.extend((0..300_000 / size(index)).map(|_| raw::alloc(size(index), 16)));
                // SAFETY: blocks of this module's, freed once, here and below.
                blocks
                    .drain(..)
                    .for_each(|block| unsafe { raw::free(block) });
            }
        }
        raw::start_background().expect("a background thread");
        let resident = || stats().resident;
        let begin = Instant::now();
        while resident() > 256 << 10 {
            assert!(
                begin.elapsed() < PATIENCE,
                "the background thread does not work"
            );
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(100));
        // The purge held this thread off: it finds its magazines again.
        let gated = raw::alloc(40_000, 16);
        for index in 0..SIZES {
            let at_hand = core::iter::repeat_with(|| raw::alloc_at_hand(size(index), 16));
            for block in at_hand
                .take(270_000 / size(index))
                .take_while(|block| !block.is_null())
            {
                // SAFETY: a block of this size.
                unsafe { block.write_bytes(1, size(index)) };
                blocks.push(block);
            }
        }
        // SAFETY: as above.
        blocks
            .drain(..)
            .for_each(|block| unsafe { raw::free(block) });
        assert!(resident() > 1 << 20, "{} bytes written", resident());
        // Each by a slow path, none of which frees.
        let long: Vec<_> = (0..2600).map(|_| raw::alloc(60_000, 16)).collect();
        let begin = Instant::now();
        while resident() > 512 << 10 {
            assert!(begin.elapsed() < PATIENCE, "{} bytes unheard", resident());
            thread::sleep(Duration::from_millis(5));
        }
        // SAFETY: as above.
        unsafe { raw::free(gated) };
        // SAFETY: as above.
        long.into_iter()
            .for_each(|block| unsafe { raw::free(block) });
    });
}
