//! Without this, a request that cannot be met could abort, wrap around or take memory it does not need.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
mod common;

use core::alloc::Layout;

use common::block::Block;
use common::process::{
    begin, expect_flat, mapped, page_size, resident, verify, without_huge_pages,
};
use flagstone::{Background, Config, Flagstone};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::with_config(Config::new().background(Background::Off));

const MAX: usize = isize::MAX as usize;
const TAG: usize = 3;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a valid layout")
}

/// The largest sizes that a `Layout` of this alignment may have, and a few below them.
fn largest(align: usize) -> [usize; 5] {
    let max = MAX - (align - 1);
    [max, max - 1, max - max % 4096, max / 2 + 1, max / 4]
}

/// No machine that runs this has so much address space.
fn is_impossible(size: usize) -> bool {
    size > 1 << 53
}

#[test]
fn the_largest_layouts_answer_null() {
    let _turn = begin();
    expect_flat(|| {
        for align in (0..=62).map(|bits| 1 << bits) {
            for size in largest(align)
                .into_iter()
                .filter(|&size| is_impossible(size))
            {
                let layout = layout(size, align);
                assert!(
                    Block::alloc(&ALLOC, layout).is_none(),
                    "{layout:?} was served"
                );
                assert!(
                    Block::alloc_zeroed(&ALLOC, layout).is_none(),
                    "{layout:?} was served"
                );
            }
        }
    });
}

#[test]
fn growing_beyond_all_limits_keeps_the_block() {
    let _turn = begin();
    expect_flat(|| {
        for align in [1, 16, 4096, 1 << 20] {
            for old_size in [1, 100, 5_000, 300_000, 3 << 20] {
                let mut block = Block::filled(&ALLOC, old_size, align, TAG);
                for size in largest(align)
                    .into_iter()
                    .filter(|&size| is_impossible(size))
                {
                    block = match block.realloc(&ALLOC, size) {
                        Ok(block) => panic!("{:?} was served", block.layout()),
                        Err(block) => block,
                    };
                    block.check(TAG);
                }
                block.free(&ALLOC);
            }
        }
    });
}

/// A program that looks at `errno` after a call of its own must not find the allocator's.
#[test]
fn errno_stays_as_it_was() {
    /// No call of the allocator fails so.
    const OWN: libc::c_int = libc::EXDEV;
    let _turn = begin();
    // SAFETY: no precondition; the place stays this thread's.
    let errno = unsafe { libc::__errno_location() };
    // Too long for the kernel, but not so long that it is not asked.
    let layout = layout(1 << 47, 8);
    // SAFETY: this thread's own.
    unsafe { errno.write(OWN) };
    let block = Block::alloc(&ALLOC, layout);
    // SAFETY: this thread's own.
    let after = unsafe { errno.read() };
    assert!(block.is_none(), "{layout:?} was served");
    assert_eq!(after, OWN, "the allocator changed errno");
}

/// Sizes between what a machine has and what an address can say: either answer is right, as long as the
/// memory is there.
#[test]
fn huge_sizes_are_null_or_usable() {
    let _turn = begin();
    without_huge_pages();
    expect_flat(|| {
        for bits in 28..53 {
            for size in [1 << bits, (1 << bits) - 1, (1 << bits) + 1] {
                null_or_usable(layout(size, 8));
            }
        }
    });
}

#[test]
fn every_alignment_is_null_or_usable() {
    let _turn = begin();
    without_huge_pages();
    expect_flat(|| {
        for align in (3..=40).map(|bits| 1_usize << bits) {
            for size in [1, align / 2, align, align + 1, 4096, 100_000, 3 << 20] {
                null_or_usable(layout(size, align));
            }
        }
    });
}

fn null_or_usable(layout: Layout) {
    let check = |block: Block| {
        assert!(
            block.is_aligned(),
            "{layout:?} came back at {:#x}",
            block.addr()
        );
        assert!(
            block.is_usable_at_both_ends(),
            "{layout:?} at {:#x}",
            block.addr()
        );
        block.free(&ALLOC);
    };
    Block::alloc(&ALLOC, layout).map(check);
    // More than this could take the machine down if the allocator did write the zeros.
    if layout.size() <= 1 << 30 {
        Block::alloc_zeroed(&ALLOC, layout).map(check);
    }
}

/// What is mapped beside a block for the sake of its alignment does not stay.
#[test]
fn alignment_leaves_no_addresses_behind() {
    const ALIGN: usize = 1 << 30;
    let _turn = begin();
    let before = mapped();
    for _ in 0..32 {
        Block::filled(&ALLOC, 4096, ALIGN, TAG).free(&ALLOC);
    }
    let grown = mapped().saturating_sub(before);
    assert!(grown < ALIGN, "{grown} bytes of addresses are still mapped");
}

/// Alignments that every machine can serve must be served: null would be too easy an answer.
#[test]
fn common_alignments_are_served() {
    let _turn = begin();
    expect_flat(|| {
        for align in (0..=24).map(|bits| 1 << bits) {
            for size in [1, 24, 4096, 70_000, 2 << 20] {
                let block = Block::filled(&ALLOC, size, align, TAG);
                let block = block.realloc(&ALLOC, size * 2).expect("memory");
                assert!(
                    block.is_aligned(),
                    "{:?} at {:#x}",
                    block.layout(),
                    block.addr()
                );
                assert!(block.holds(TAG, size), "the contents did not come along");
                block.free(&ALLOC);
            }
        }
    });
}

/// The space that is skipped to reach an alignment must not be touched.
#[test]
fn a_large_alignment_costs_no_memory() {
    const BLOCKS: usize = 4;
    const PAGES_EACH: usize = 8;
    let _turn = begin();
    without_huge_pages();
    let hold = || -> [Option<Block>; BLOCKS] {
        [64, 100, 4_000, 5_000].map(|size| {
            let block = Block::alloc(&ALLOC, layout(size, 1 << 30))?;
            assert!(
                block.is_usable_at_both_ends(),
                "{:?} at {:#x}",
                block.layout(),
                block.addr()
            );
            Some(block)
        })
    };
    let free = |block: Block| block.free(&ALLOC);
    // The first time the allocator may set up something that stays.
    hold().into_iter().flatten().for_each(free);
    let before = resident();
    let held = hold();
    let grown = resident().saturating_sub(before);
    let bound = BLOCKS * PAGES_EACH * page_size();
    assert!(
        grown <= bound,
        "{BLOCKS} small blocks took {grown} bytes of memory"
    );
    held.into_iter().flatten().for_each(free);
    verify();
}

/// Memory fresh from the kernel is zero: writing zeros over it would take all of it at once.
#[test]
fn large_zeroed_memory_is_not_touched() {
    const SIZE: usize = 1 << 30;
    let _turn = begin();
    without_huge_pages();
    let before = resident();
    let block = Block::alloc_zeroed(&ALLOC, layout(SIZE, 8)).expect("address space");
    let grown = resident().saturating_sub(before);
    assert!(
        grown < SIZE / 256,
        "{SIZE} zeroed bytes took {grown} bytes of memory"
    );
    assert!(block.is_usable_at_both_ends(), "{:?}", block.layout());
    block.free(&ALLOC);
    verify();
}

/// `GlobalAlloc` is never asked for zero bytes: what a program sees of size zero is what std makes of it.
#[test]
fn collections_may_be_empty() {
    let _turn = begin();
    expect_flat(|| {
        let mut numbers: Vec<u64> = Vec::with_capacity(0);
        for round in 1..50 {
            numbers.extend(0..round * 100);
            assert_eq!(numbers.last(), Some(&(round * 100 - 1)));
            numbers.clear();
            numbers.shrink_to_fit();
            assert_eq!(numbers.capacity(), 0);
        }
        let units: Box<[()]> = vec![(); 1 << 40].into();
        assert_eq!(units.len(), 1 << 40);
    });
}

#[test]
fn again_hardened() {
    common::child::again_hardened("again_hardened");
}
