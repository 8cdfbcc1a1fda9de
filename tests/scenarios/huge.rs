//! Huge pages: one touched byte must not cost 2 MiB, and what was purged stays purged when the kernel looks
//! for huge pages to make.

use std::fs;
use std::path::Path;

use flagstone::{Flagstone, failpoints};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::common::block::Block;
use crate::common::child::alone;
use crate::common::process::{expect_back, is_in_memory, page_size, resident, stats, verify};
use crate::program::layout;
use crate::{ALLOC, MIB};

/// `MADV_COLLAPSE`, what `khugepaged` does but at once.
const COLLAPSE: i32 = 25;
const HUGE: usize = 2 * MIB;

fn has_huge_pages() -> bool {
    let exists = Path::new("/sys/kernel/mm/transparent_hugepage").exists();
    if !exists {
        println!("skipped: the kernel has no transparent huge pages");
    }
    exists
}

/// Whether the kernel gives huge pages to who does not ask for them.
fn come_unasked() -> bool {
    let enabled = Path::new("/sys/kernel/mm/transparent_hugepage/enabled");
    let mode = fs::read_to_string(enabled).unwrap_or_default();
    mode.contains("[always]")
}

/// Asks for a huge page at this address; whether the kernel made one.
#[expect(
    clippy::disallowed_methods,
    reason = "in place of the kernel's own thread, which takes minutes"
)]
fn collapse(address: usize) -> bool {
    let start = core::ptr::without_provenance_mut(address - address % HUGE);
    // SAFETY: changes no byte, whatever is mapped there.
    unsafe { libc::madvise(start, HUGE, COLLAPSE) == 0 }
}

/// Asks for a huge page around every block; how many the kernel made.
fn collapse_around<'a>(blocks: impl Iterator<Item = &'a Block>) -> usize {
    let mut regions: Vec<usize> = blocks.map(|block| block.addr() / HUGE).collect();
    regions.sort_unstable();
    regions.dedup();
    let made = |region: &&usize| collapse(**region * HUGE);
    regions.iter().filter(made).count()
}

/// Whether this kernel makes huge pages when asked: else it proves nothing.
fn kernel_collapses() -> bool {
    let block = Block::filled(&ALLOC, 4 * HUGE, 8, 1);
    let collapses = collapse(block.addr() + 2 * HUGE);
    block.check(1);
    block.free(&ALLOC);
    if !collapses {
        println!("skipped: the kernel makes no huge pages");
    }
    collapses
}

/// After a peak most pages went back from between few survivors: no huge page may bring them back.
#[test]
fn purged_holes_stay_out_of_memory() {
    const NAME: &str = "huge::purged_holes_stay_out_of_memory";
    const TOTAL: usize = 128 * MIB;
    if !has_huge_pages() {
        return;
    }
    alone(NAME, &[], || {
        if !kernel_collapses() {
            return;
        }
        Flagstone::purge();
        let mut rng = SmallRng::seed_from_u64(1);
        let mut blocks = Vec::with_capacity(TOTAL / 200);
        let mut survivors = Vec::with_capacity(TOTAL / 200);
        let before = resident();
        let mut held = 0;
        while held < TOTAL {
            let block = Block::filled(&ALLOC, rng.random_range(200..4_000), 8, blocks.len());
            held += block.size();
            blocks.push(block);
        }
        let full = resident() - before;
        for (tag, block) in blocks.into_iter().enumerate() {
            if tag.is_multiple_of(100) {
                survivors.push((tag, block));
            } else {
                block.free(&ALLOC);
            }
        }
        Flagstone::purge();
        let purged = resident() - before;
        let made = collapse_around(survivors.iter().map(|(_, block)| block));
        let after = resident() - before;
        println!(
            "{} MiB, purged {} KiB, {made} huge pages, {} KiB",
            full / MIB,
            purged >> 10,
            after >> 10
        );
        assert!(purged < full / 8, "{purged} of {full} bytes");
        assert!(after <= purged + MIB, "{after} bytes, {purged} before");
        for (tag, block) in survivors {
            block.check(tag);
            block.free(&ALLOC);
        }
        verify();
    });
}

/// Small blocks until a chunk is made at which huge pages are asked for, the newest in it. None is written.
fn grow_to_huge_pages() -> Vec<Block> {
    const ENOUGH: usize = 80 * MIB;
    let committed = || stats().committed;
    let start = committed();
    let mut blocks = Vec::with_capacity(2 * ENOUGH / SMALL);
    loop {
        let before = committed();
        blocks.push(Block::alloc(&ALLOC, layout(SMALL, 8)).expect("memory"));
        if before > start + ENOUGH && committed() > before {
            return blocks;
        }
    }
}

/// A slab of such blocks is a unit.
const SMALL: usize = 5_000;

/// Whether a touched byte of a chunk that is made now brings in a huge page. The blocks stay among `kept`.
fn new_chunks_are_huge(kept: &mut Vec<Block>) -> bool {
    kept.extend(grow_to_huge_pages());
    let before = resident();
    kept[kept.len() - 1].fill_first(1, 1);
    resident() > before + MIB
}

/// Huge pages are asked for while they are cheap, and again when they have become so.
#[test]
fn dear_huge_pages_are_not_asked_for() {
    const NAME: &str = "huge::dear_huge_pages_are_not_asked_for";
    const EVEN: usize = 512;
    alone(NAME, &[("FLAGSTONE_HUGE_PAGES", "auto")], || {
        // Room for all of them: its growth would be seen in what is in memory.
        let mut kept = Vec::with_capacity(20 * 80 * MIB / SMALL);
        failpoints::set_huge_price(1);
        if !new_chunks_are_huge(&mut kept) {
            return println!("skipped: the kernel gives no huge pages");
        }
        failpoints::set_huge_price(EVEN * 4);
        assert!(!new_chunks_are_huge(&mut kept), "dear ones");
        let mapping = Block::alloc(&ALLOC, layout(16 * MIB, 8)).expect("memory");
        mapping.fill_first(1, 4 * MIB + 1);
        // The end of the huge page that would hold the last of these bytes.
        let end = (mapping.addr() + 4 * MIB) | (HUGE - 1);
        assert!(!is_in_memory(end), "dear ones in a mapping");
        mapping.free(&ALLOC);
        failpoints::set_huge_price(EVEN);
        // The next trial is some chunks away.
        let mut waits = 0;
        while !new_chunks_are_huge(&mut kept) {
            waits += 1;
            assert!(waits < 16, "they are never tried again");
        }
        kept.into_iter().for_each(|block| block.free(&ALLOC));
        verify();
    });
}

/// A program that has nothing but long blocks finds out as well.
#[test]
fn dear_huge_pages_are_not_asked_for_in_mappings() {
    const NAME: &str = "huge::dear_huge_pages_are_not_asked_for_in_mappings";
    const EVEN: usize = 512;
    /// Whether a touched byte brings in a huge page of it.
    fn is_huge(mapping: &Block) -> bool {
        let middle = mapping.addr().next_multiple_of(HUGE) + 2 * HUGE - mapping.addr();
        // SAFETY: inside the block, of which nobody has a reference.
        unsafe { mapping.as_ptr().wrapping_add(middle).write_volatile(1) };
        is_in_memory((mapping.addr() + middle) | (HUGE - 1))
    }
    if come_unasked() {
        return println!("skipped: huge pages come unasked");
    }
    alone(NAME, &[("FLAGSTONE_HUGE_PAGES", "auto")], || {
        // None is freed before the end: cached ones are as they were.
        let mut kept = Vec::with_capacity(300);
        let mut next = || {
            let mapping = Block::alloc(&ALLOC, layout(16 * MIB, 8)).expect("memory");
            let is_huge = is_huge(&mapping);
            kept.push(mapping);
            is_huge
        };
        failpoints::set_huge_price(1);
        if !next() {
            return println!("skipped: the kernel gives no huge pages");
        }
        failpoints::set_huge_price(EVEN * 4);
        let asked = (0..40).filter(|_| next()).count();
        assert!(asked < 20, "{asked} of 40 asked for dear ones");
        let waits = Block::alloc(&ALLOC, layout(16 * MIB, 8)).expect("memory");
        assert!(
            !is_in_memory(waits.addr().next_multiple_of(HUGE)),
            "a sample"
        );
        waits.free(&ALLOC);
        failpoints::set_huge_price(EVEN);
        assert!((0..150).any(|_| next()), "they are never tried again");
        kept.into_iter().for_each(|block| block.free(&ALLOC));
        verify();
    });
}

/// Units that came in with a huge page, and that nobody ever had, go back with a purge.
#[test]
fn what_came_in_beside_a_block_goes_back() {
    const NAME: &str = "huge::what_came_in_beside_a_block_goes_back";
    alone(NAME, &[("FLAGSTONE_HUGE_PAGES", "advise")], || {
        let blocks = grow_to_huge_pages();
        let before = resident();
        let newest = blocks.last().expect("a block");
        newest.fill_first(1, 1);
        if resident() < before + MIB {
            return println!("skipped: the kernel gives no huge pages");
        }
        Flagstone::purge();
        expect_back(before, MIB / 4);
        assert!(newest.holds(1, 1), "contents lost");
        blocks.into_iter().for_each(|block| block.free(&ALLOC));
        verify();
    });
}

/// They go back, too, when a unit of their chunk does because it is due: no call asks for it.
#[test]
fn what_came_in_beside_a_block_becomes_due() {
    const NAME: &str = "huge::what_came_in_beside_a_block_becomes_due";
    /// Of the newest chunk; one of them stays as a spare.
    const SLABS: usize = 3;
    let options = [
        ("FLAGSTONE_HUGE_PAGES", "advise"),
        ("FLAGSTONE_PURGE_DELAY_MS", "0"),
        ("FLAGSTONE_THREAD_CACHE", "0"),
    ];
    alone(NAME, &options, || {
        let mut blocks = grow_to_huge_pages();
        let kept = blocks.len();
        blocks.extend([(); SLABS * 13].map(|()| Block::filled(&ALLOC, SMALL, 8, 1)));
        let first = blocks[kept].addr();
        let beside = first - first % HUGE + HUGE - page_size();
        if !is_in_memory(beside) {
            return println!("skipped: the kernel gives no huge pages");
        }
        blocks.drain(kept..).for_each(|block| block.free(&ALLOC));
        assert!(!is_in_memory(beside), "a page that nobody had stays");
        blocks.into_iter().for_each(|block| block.free(&ALLOC));
        verify();
    });
}

/// A long block that is touched here and there takes what is touched, unless huge pages are asked for in any case.
#[test]
fn long_blocks_may_be_touched_sparsely() {
    const NAME: &str = "huge::long_blocks_may_be_touched_sparsely";
    const LONG: usize = 256 * MIB;
    alone(NAME, &[("FLAGSTONE_HUGE_PAGES", "auto")], || {
        let block = Block::alloc(&ALLOC, layout(LONG, 8)).expect("memory");
        let before = resident();
        for place in (0..LONG).step_by(HUGE) {
            let byte = block.as_ptr().wrapping_add(place);
            // SAFETY: inside the block.
            unsafe { byte.write_volatile(1) };
        }
        expect_back(before, 2 * MIB);
        block.free(&ALLOC);
    });
}

/// One touched byte costs a page and not a huge one: only memory for small blocks, which fill it, asks for
/// huge pages.
#[test]
fn sparse_use_costs_pages_only() {
    const NAME: &str = "huge::sparse_use_costs_pages_only";
    const BLOCKS: usize = 2_000;
    /// Blocks of a class, a span, and a mapping.
    const SIZES: [usize; 3] = [200_000, 270_000, 3 * MIB];
    if come_unasked() {
        return println!("skipped: huge pages come unasked");
    }
    alone(NAME, &[], || {
        let mut blocks = Vec::with_capacity(BLOCKS);
        for size in SIZES {
            let before = resident();
            for tag in 0..BLOCKS {
                let block = Block::alloc(&ALLOC, layout(size, 8)).expect("memory");
                block.fill_first(tag, 1);
                blocks.push(block);
            }
            let each = (resident() - before) / BLOCKS;
            println!("{size}: {each} bytes in memory for each block");
            assert!(each < 3 * page_size(), "{each} bytes for each block");
            for (tag, block) in blocks.drain(..).enumerate() {
                assert!(block.holds(tag, 1), "contents lost");
                block.free(&ALLOC);
            }
            Flagstone::purge();
        }
        verify();
    });
}
