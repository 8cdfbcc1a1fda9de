//! Without this, a thread whose first call is a free, a realloc or a rare kind of alloc could crash.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
mod common;

use core::alloc::Layout;

use common::block::Block;
use common::process::{begin, expect_flat, stats};
use common::raw_thread::on_raw_thread;
use flagstone::Flagstone;

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

/// Sizes of every kind, from the smallest class to a mapping of its own.
const SIZES: [usize; 10] = [
    1,
    16,
    40,
    1_000,
    4_096,
    20_000,
    48 << 10,
    256 << 10,
    1 << 20,
    5 << 20,
];
const ALIGNS: [usize; 6] = [1, 16, 64, 4 << 10, 64 << 10, 2 << 20];
const TAG: usize = 7;

/// What the thread is given, and what it leaves.
struct Task {
    size: usize,
    align: usize,
    new_size: usize,
    block: Option<Block>,
}

/// Runs `first` as the first thing that a new thread does, for every size and alignment, and frees what
/// it leaves. `given` says whether it starts with a block that this thread allocated.
fn each_size(given: bool, first: fn(&mut Task)) {
    let _turn = begin();
    expect_flat(|| {
        for size in SIZES {
            for align in ALIGNS {
                for new_size in [size / 2 + 1, size * 3] {
                    let block = given.then(|| Block::filled(&ALLOC, size, align, TAG));
                    let mut task = Task {
                        size,
                        align,
                        new_size,
                        block,
                    };
                    on_raw_thread(&mut task, first);
                    if let Some(block) = task.block {
                        block.check(TAG);
                        block.free(&ALLOC);
                    }
                }
            }
        }
    });
}

fn realloc(task: &mut Task) -> Block {
    let old = task.block.take().expect("a block to start with");
    let kept = old.size().min(task.new_size);
    let block = old.realloc(&ALLOC, task.new_size).expect("memory");
    assert!(
        block.is_aligned(),
        "{:?} at {:#x}",
        block.layout(),
        block.addr()
    );
    assert!(block.holds(TAG, kept), "the contents did not come along");
    block.fill(TAG);
    block
}

#[test]
fn alloc() {
    each_size(false, |task| {
        task.block = Some(Block::filled(&ALLOC, task.size, task.align, TAG));
    });
}

#[test]
fn alloc_zeroed() {
    each_size(false, |task| {
        let layout = Layout::from_size_align(task.size, task.align).expect("a valid layout");
        let block = Block::alloc_zeroed(&ALLOC, layout).expect("memory");
        assert!(block.is_aligned(), "{layout:?} at {:#x}", block.addr());
        assert!(block.is_zero(), "{layout:?} is not zero");
        block.fill(TAG);
        task.block = Some(block);
    });
}

#[test]
fn alloc_and_dealloc() {
    each_size(false, |task| {
        Block::filled(&ALLOC, task.size, task.align, TAG).free(&ALLOC)
    });
}

#[test]
fn dealloc() {
    each_size(true, |task| {
        let block = task.block.take().expect("a block to start with");
        block.check(TAG);
        block.free(&ALLOC);
    });
}

#[test]
fn reallocate() {
    each_size(true, |task| task.block = Some(realloc(task)));
}

#[test]
fn reallocate_and_dealloc() {
    each_size(true, |task| realloc(task).free(&ALLOC));
}

/// The thread only asks about the allocator, and what it sees includes the blocks of other threads.
#[test]
fn stats_verify_purge() {
    let _turn = begin();
    expect_flat(|| {
        let block = Block::filled(&ALLOC, 3 << 20, 8, TAG);
        on_raw_thread(&mut (), |()| {
            let stats = stats();
            assert!(stats.live >= 3 << 20, "{stats:?}");
        });
        on_raw_thread(&mut (), |()| assert_eq!(Flagstone::verify(), Ok(())));
        on_raw_thread(&mut (), |()| {
            Flagstone::purge();
        });
        block.check(TAG);
        block.free(&ALLOC);
    });
}

#[test]
fn again_hardened() {
    common::child::again_hardened("again_hardened");
}
