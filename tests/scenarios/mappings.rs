//! As many mappings as the kernel lets a process have, all of them the allocator's.

use std::fs;

use flagstone::Flagstone;

use crate::common::block::{Block, SIZES};
use crate::common::child::alone;
use crate::common::process::{
    expect_flat, live, mapped, resident, stats, verify, without_huge_pages,
};
use crate::program::{free_quietly, layout};
use crate::{ALLOC, MIB};

/// Where the limit is higher, reaching it takes too long.
const MOST: usize = 1 << 17;
/// The shortest block with a mapping of its own, and one that may have huge pages: a kernel mapping has
/// either them or not, so that neighbours of two kinds do not become one.
const SHORT: usize = MIB + MIB / 4;
const LONG: usize = 8 * MIB;
/// Bytes that are written at the front of a block.
const WRITTEN: usize = 1;

/// Mappings that a process may have, if a test can reach so many.
fn limit() -> Option<usize> {
    let text = fs::read_to_string("/proc/sys/vm/max_map_count").expect("the limit of mappings");
    let limit = text.trim().parse().expect("a number");
    if limit > MOST {
        println!("skipped: the limit is {limit} mappings");
        return None;
    }
    Some(limit)
}

fn alloc(size: usize, tag: usize) -> Option<Block> {
    let block = Block::alloc(&ALLOC, layout(size, 8))?;
    block.fill_first(tag, WRITTEN);
    Some(block)
}

fn free(slot: &mut Option<Block>, tag: usize) {
    let block = slot.take().expect("a live block");
    assert!(block.holds(tag, WRITTEN), "block {tag} lost its contents");
    free_quietly(|| block.free(&ALLOC));
}

/// Everything but what needs a new mapping works.
fn expect_service() {
    for size in SIZES.into_iter().filter(|size| *size <= MIB) {
        let blocks = [(); 3].map(|()| Block::filled(&ALLOC, size, 8, size));
        for block in blocks {
            block.check(size);
            free_quietly(|| block.free(&ALLOC));
        }
    }
}

/// Blocks with a mapping of their own until the kernel has no more: null, not an end; then half of them
/// go and come back.
#[test]
fn live_blocks_take_all_mappings() {
    const NAME: &str = "mappings::live_blocks_take_all_mappings";
    let Some(limit) = limit() else {
        return;
    };
    alone(NAME, &[], || {
        without_huge_pages();
        // They are asked for even so: neighbours are of two kinds.
        flagstone::failpoints::set_huge_price(1);
        let mut blocks: Vec<Option<Block>> = (0..limit + 1_000).map(|_| None).collect();
        let start = (live(), mapped());
        let size = |tag: usize| if tag.is_multiple_of(2) { LONG } else { SHORT };
        let fill = |slots: &mut [Option<Block>]| {
            for (tag, slot) in slots.iter_mut().enumerate() {
                if slot.is_none() {
                    *slot = alloc(size(tag), tag);
                }
                if slot.is_none() && size(tag) == LONG {
                    return tag;
                }
            }
            slots.len()
        };
        let count = fill(&mut blocks);
        println!("{count} blocks, {} MiB resident", resident() / MIB);
        assert!(count > limit - 2_000, "only {count} blocks");
        assert!(count < blocks.len(), "more blocks than mappings");
        expect_service();
        // What has no mapping may come out of a chunk.
        let served = (0..20)
            .filter_map(|tag| alloc(SHORT, tag))
            .map(|block| block.free(&ALLOC));
        println!("{} of 20 short ones at the limit", served.count());
        for tag in (0..count).step_by(2) {
            free(&mut blocks[tag], tag);
        }
        Flagstone::purge();
        expect_service();
        verify();
        // Where the kernel may not cut a mapping, neighbours of two kinds become one: more can be had.
        let again = fill(&mut blocks);
        println!("{again} blocks again");
        assert!(again * 100 >= count * 95, "{again} of {count} blocks");
        for (tag, slot) in blocks.iter_mut().enumerate() {
            if slot.is_some() {
                free(slot, tag);
            }
        }
        Flagstone::purge();
        verify();
        expect_service();
        let left = mapped().saturating_sub(start.1);
        println!("{} MiB of addresses left", left / MIB);
        assert_eq!(live(), start.0);
        assert!(left < 2_000 * MIB, "{left} bytes of addresses are left");
    });
}

/// Neighbours are one mapping for the kernel: each hole costs one, and at the limit no more can be cut.
/// The frees succeed, the memory goes back, and the addresses serve again.
#[test]
fn holes_take_all_mappings() {
    const NAME: &str = "mappings::holes_take_all_mappings";
    /// Holes that cannot be.
    const REFUSED: usize = 3_000;
    let Some(limit) = limit() else {
        return;
    };
    alone(NAME, &[], || {
        without_huge_pages();
        let count = 2 * (limit + REFUSED);
        let mut blocks: Vec<Option<Block>> = (0..count).map(|_| None).collect();
        let start = (live(), mapped(), resident());
        for (tag, slot) in blocks.iter_mut().enumerate() {
            *slot = alloc(SHORT, tag);
            assert!(slot.is_some(), "null for block {tag}");
        }
        let full = (mapped(), resident() - start.2);
        println!("{count} blocks, {} MiB resident", full.1 / MIB);
        for tag in (0..count).step_by(2) {
            free(&mut blocks[tag], tag);
        }
        let holed = (mapped(), resident() - start.2);
        let kept = holed.0 + count / 2 * SHORT - full.0;
        println!(
            "{} MiB resident, {} blocks not unmapped",
            holed.1 / MIB,
            kept / SHORT
        );
        assert!(kept / SHORT > REFUSED / 2, "the kernel refused nothing");
        assert!(holed.1 < full.1 * 3 / 4, "{} of {} bytes", holed.1, full.1);
        expect_service();
        verify();
        // Those addresses, first of all.
        for tag in (0..count).step_by(2).take(REFUSED) {
            blocks[tag] = alloc(SHORT, tag);
            assert!(blocks[tag].is_some(), "null for block {tag}");
        }
        for (tag, slot) in blocks.iter_mut().enumerate() {
            if slot.is_some() {
                free(slot, tag);
            }
        }
        Flagstone::purge();
        verify();
        let left = mapped().saturating_sub(start.1);
        println!("{} MiB of addresses left", left / MIB);
        assert_eq!(live(), start.0);
        assert!(left < 500 * MIB, "{left} bytes of addresses are left");
        expect_service();
    });
}

/// Kernel mappings of this process.
fn mappings() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").expect("the mappings");
    maps.lines().count()
}

/// Small blocks and longer ones in turn: chunks of the two kinds lie apart, and those of one kind are one
/// mapping, as far as they were reserved together. That huge pages are asked for changes nothing.
#[test]
fn chunks_of_two_kinds_take_few_mappings() {
    const NAME: &str = "mappings::chunks_of_two_kinds_take_few_mappings";
    /// So many chunks of either kind: a GiB.
    const CHUNKS: usize = 128;
    /// Eight of these are a slab of one unit, of which one page is touched; one of those is a span.
    const BLOCK: usize = 8 << 10;
    const SPAN: usize = 250_000;
    let options = [("FLAGSTONE_HUGE_PAGES", "advise")];
    alone(NAME, &options, || {
        without_huge_pages();
        let mut blocks: Vec<Block> = Vec::with_capacity(CHUNKS * 16 * 33);
        let start = mappings();
        let committed = stats().committed;
        for tag in 0..CHUNKS * 16 {
            for _ in 0..4 {
                blocks.extend(
                    [(); 8].map(|()| Block::alloc(&ALLOC, layout(BLOCK, 8)).expect("memory")),
                );
                blocks[blocks.len() - 8].fill_first(tag, WRITTEN);
            }
            let span = Block::alloc(&ALLOC, layout(SPAN, 8)).expect("memory");
            span.fill_first(tag, WRITTEN);
            blocks.push(span);
        }
        let chunks = (stats().committed - committed) / (4 * MIB);
        let grown = mappings() - start;
        println!("{grown} mappings for {chunks} chunks");
        assert!(chunks >= 2 * CHUNKS, "{chunks} chunks");
        assert!(grown < CHUNKS / 4, "{grown} mappings for {chunks} chunks");
        blocks.drain(..).for_each(|block| block.free(&ALLOC));
    });
}

/// Short blocks whose alignment is more than a unit's come from chunks: a mapping for each would be more than there are.
#[test]
fn aligned_blocks_take_few_mappings() {
    const NAME: &str = "mappings::aligned_blocks_take_few_mappings";
    const COUNT: usize = 100_000;
    /// At most so many mappings for all of them.
    const FEW: usize = COUNT / 10;
    alone(NAME, &[], || {
        without_huge_pages();
        let mut blocks: Vec<Block> = Vec::with_capacity(COUNT);
        for align in [2 * MIB, MIB / 8] {
            let start = (live(), mappings());
            for tag in 0..COUNT {
                let block = Block::alloc(&ALLOC, layout(64, align));
                let block = block.unwrap_or_else(|| panic!("null for block {tag} at {align}"));
                assert!(block.is_aligned(), "{tag} at {align}");
                block.fill_first(tag, WRITTEN);
                blocks.push(block);
            }
            let now = mappings();
            println!("{now} mappings, {} MiB resident", resident() / MIB);
            assert!(now < start.1 + FEW, "{now} mappings, {} before", start.1);
            for (tag, block) in blocks.drain(..).enumerate() {
                assert!(block.holds(tag, WRITTEN), "block {tag} lost its contents");
                block.free(&ALLOC);
            }
            verify();
            Flagstone::purge();
            assert_eq!(live(), start.0);
        }
    });
}

/// Each alignment to a chunk's and beyond, with sizes to some MiB: in chunks, in a mapping, grown from one into the other.
#[test]
fn blocks_of_every_alignment() {
    const NAME: &str = "mappings::blocks_of_every_alignment";
    let round = || (12..=24).for_each(|shift| use_alignment(1 << shift));
    alone(NAME, &[], || expect_flat(round));
}

fn use_alignment(align: usize) {
    for size in [1, 64, 5_000, 70_000, MIB, MIB + 1, 3 * MIB, 5 * MIB] {
        let blocks = [0, 1, 2].map(|tag| {
            let block = Block::filled(&ALLOC, size, align, tag);
            let grown = block.realloc(&ALLOC, size + 66_000).expect("memory");
            assert!(grown.is_aligned() && grown.holds(tag, size));
            grown.realloc(&ALLOC, size).expect("memory")
        });
        let zeroed = Block::alloc_zeroed(&ALLOC, layout(size, align)).expect("memory");
        assert!(zeroed.is_aligned() && zeroed.is_zero());
        zeroed.free(&ALLOC);
        for (tag, block) in blocks.into_iter().enumerate() {
            assert!(block.is_aligned() && block.holds(tag, size));
            block.free(&ALLOC);
        }
    }
}
