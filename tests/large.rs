//! Without this, freed mappings may fall to pieces that serve nobody, growth may copy what it need not, or a
//! mapping may be handed out twice.

use core::alloc::Layout;
use std::sync::{Mutex, MutexGuard, PoisonError};

use flagstone::{Background, Config, Flagstone, failpoints};

#[expect(dead_code, reason = "each test takes the parts that it needs")]
mod common;

use common::block::Block;
use common::child::alone;
use common::process::stats;

const MIB: usize = 1 << 20;

/// What is freed stays until somebody asks for it, up to 64 MiB.
#[global_allocator]
static ALLOC: Flagstone = Flagstone::with_config(
    Config::new()
        .purge_delay_ms(3_600_000)
        .background(Background::Off),
);

static TURN: Mutex<()> = Mutex::new(());

/// One test at a time, with an empty cache to begin with.
fn begin() -> MutexGuard<'static, ()> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Flagstone::purge();
    turn
}

fn block(size: usize, tag: usize) -> Block {
    Block::filled(&ALLOC, size, 8, tag)
}

/// One freed mapping of this length, of which nothing else is cached; its address.
fn one_free(size: usize) -> usize {
    let block = block(size, 0);
    let address = block.addr();
    block.free(&ALLOC);
    address
}

fn grow(block: Block, tag: usize, size: usize) -> Block {
    let before = block.size();
    let block = block.realloc(&ALLOC, size).expect("memory");
    assert!(block.holds(tag, before.min(size)));
    block.fill(tag);
    block
}

fn verify() {
    Flagstone::verify().expect("every invariant");
}

#[test]
fn parts_of_a_freed_mapping_become_one_again() {
    let _turn = begin();
    let start = one_free(8 * MIB);
    let blocks: Vec<_> = (0..4).map(|tag| block(2 * MIB, tag)).collect();
    let mut places: Vec<_> = blocks.iter().map(|block| block.addr() - start).collect();
    places.sort_unstable();
    assert_eq!(places, [0, 2 * MIB, 4 * MIB, 6 * MIB]);
    verify();
    for (tag, block) in blocks.iter().enumerate() {
        block.check(tag);
    }
    // In an order in which each joins none, one or two others.
    let mut blocks: Vec<_> = blocks.into_iter().map(Some).collect();
    for index in [0, 2, 1, 3] {
        blocks[index].take().expect("once").free(&ALLOC);
        verify();
    }
    let whole = block(8 * MIB, 9);
    assert_eq!(whole.addr(), start);
    whole.free(&ALLOC);
}

#[test]
fn two_grow_into_what_lies_behind_them() {
    let _turn = begin();
    let start = one_free(32 * MIB);
    let mut first = block(2 * MIB, 1);
    let second = block(2 * MIB, 2);
    assert_eq!(first.addr(), start);
    for size in [3, 7, 30] {
        first = grow(first, 1, size * MIB);
        assert_eq!(first.addr(), start, "{size} MiB would fit where it is");
        second.check(2);
    }
    verify();
    second.free(&ALLOC);
    first.free(&ALLOC);
}

#[test]
fn what_cannot_grow_moves_to_memory_at_hand() {
    let _turn = begin();
    let start = one_free(16 * MIB);
    let hole = start..start + 16 * MIB;
    let mut blocks: Vec<_> = (0..8).map(|tag| (tag, block(2 * MIB, tag))).collect();
    blocks.sort_by_key(|(_, block)| block.addr());
    // Four free in a row behind the second, which the first cannot reach.
    for (_, block) in blocks.drain(2..6) {
        block.free(&ALLOC);
    }
    let resident = stats().resident;
    let (tag, first) = blocks.remove(0);
    let first = grow(first, tag, 6 * MIB);
    assert!(hole.contains(&first.addr()), "fresh memory was not needed");
    assert!(stats().resident <= resident + MIB);
    for (tag, block) in blocks {
        block.check(tag);
        block.free(&ALLOC);
    }
    first.free(&ALLOC);
    verify();
}

#[test]
fn what_shrinks_leaves_its_end_to_others() {
    let _turn = begin();
    let long = block(8 * MIB, 3);
    let start = long.addr();
    let short = long.realloc(&ALLOC, 3 * MIB).expect("memory");
    assert_eq!(short.addr(), start);
    short.check(3);
    let other = block(5 * MIB, 4);
    assert_eq!(other.addr(), start + 3 * MIB);
    short.check(3);
    short.free(&ALLOC);
    other.free(&ALLOC);
    verify();
}

/// A block of a length that chunks serve, but it grew: then it lies in a mapping, and goes on from there.
#[test]
fn what_grew_beyond_the_classes_grows_where_it_is() {
    let _turn = begin();
    let start = one_free(8 * MIB);
    let mut grown = grow(block(200 << 10, 5), 5, 300 << 10);
    assert_eq!(grown.addr(), start);
    for kib in [319, 320, 500, 1000, 1024, 2000, 700, 8000] {
        grown = grow(grown, 5, kib << 10);
        assert_eq!(grown.addr(), start, "{kib} KiB");
        verify();
    }
    // Down to a length of spans, and freed as one; down to a block of a class.
    let grown = grow(grown, 5, 600 << 10);
    grown.free(&ALLOC);
    let grown = grow(grow(block(200 << 10, 6), 6, 300 << 10), 6, 1000);
    grown.free(&ALLOC);
    verify();
    let whole = block(8 * MIB, 7);
    assert_eq!(whole.addr(), start);
    whole.free(&ALLOC);
}

/// Blocks of spans begin at different places of a page, as far as their units and alignment allow it.
#[test]
fn spans_are_spread_over_the_cache_sets() {
    let _turn = begin();
    let blocks: Vec<_> = (0..32).map(|tag| (tag, block(100 << 10, tag))).collect();
    let mut places: Vec<_> = blocks
        .iter()
        .map(|(_, block)| block.addr() % 4096)
        .collect();
    places.sort_unstable();
    places.dedup();
    assert!(places.len() >= 16, "{places:?}");
    assert!(places.iter().all(|place| place.is_multiple_of(64)));
    let full = block(128 << 10, 40);
    assert_eq!(full.addr() % 4096, 0, "there is no room to move");
    let aligned: Vec<_> = (7..16)
        .map(|log| Block::filled(&ALLOC, 100 << 10, 1 << log, 41))
        .collect();
    // To the last byte of the units, where some have to move; the neighbours keep their contents.
    let (kept, grown): (Vec<_>, Vec<_>) = blocks.into_iter().partition(|(tag, _)| tag % 2 == 0);
    let mut moved = 0;
    let grown: Vec<_> = grown
        .into_iter()
        .map(|(tag, block)| {
            let before = block.addr();
            let block = grow(block, tag, (128 << 10) - 64);
            moved += usize::from(block.addr() != before);
            (tag, block)
        })
        .collect();
    assert!(moved > 0);
    verify();
    for (tag, block) in kept.into_iter().chain(grown) {
        block.check(tag);
        block.free(&ALLOC);
    }
    full.check(40);
    full.free(&ALLOC);
    for block in aligned {
        block.check(41);
        block.free(&ALLOC);
    }
    verify();
}

/// A cached mapping serves zeroed requests, too, however it was filled before.
#[test]
fn zeroed_blocks_reuse_a_mapping() {
    let _turn = begin();
    let layout = Layout::from_size_align(3 * MIB / 2, 8).expect("a layout");
    let before = stats().committed;
    for round in 0..50 {
        let zeroed = Block::alloc_zeroed(&ALLOC, layout).expect("memory");
        assert!(zeroed.is_zero(), "round {round}");
        zeroed.free(&ALLOC);
        let filled = Block::filled(&ALLOC, layout.size(), 8, round);
        filled.free(&ALLOC);
    }
    let kept = stats().committed.saturating_sub(before);
    assert!(kept <= 2 * layout.size(), "{kept}");
    verify();
}

#[test]
fn the_cache_gives_back_what_is_too_much_and_keeps_the_rest() {
    let _turn = begin();
    flagstone::raw::set_option("FLAGSTONE_LARGE_CACHE", b"64M").expect("an option");
    let before = stats().committed;
    let kept = || stats().committed.saturating_sub(before);
    let blocks: Vec<_> = (0..5).map(|tag| block(20 * MIB, tag)).collect();
    assert!(kept() >= 100 * MIB);
    for block in blocks {
        block.free(&ALLOC);
        verify();
    }
    // A whole one less would be 60.
    assert!((63 * MIB..=64 * MIB).contains(&kept()), "{}", kept());
    Flagstone::purge();
    assert!(kept() < MIB, "{}", kept());
    flagstone::raw::set_option("FLAGSTONE_LARGE_CACHE", b"1G").expect("an option");
}

/// One of which all was found in memory is zeroed without a question to the kernel.
#[test]
fn a_full_mapping_is_zeroed_unasked() {
    let _turn = begin();
    // With safeguards none is taken for zeroed ones.
    if !has_stocks() {
        return;
    }
    let layout = Layout::from_size_align(3 * MIB, 8).expect("a valid layout");
    let zeroed = || {
        let block = Block::alloc_zeroed(&ALLOC, layout).expect("memory");
        assert!(block.is_zero());
        block.fill(1);
        block
    };
    let fresh = zeroed();
    let place = fresh.addr();
    fresh.free(&ALLOC);
    zeroed().free(&ALLOC);
    failpoints::refuse_after(0, true);
    let block = zeroed();
    assert_eq!(failpoints::refuse_none(), 0);
    assert_eq!(block.addr(), place);
    block.free(&ALLOC);
    // What grew is not all in memory, nor what is joined with what is not.
    let grown = zeroed().realloc(&ALLOC, 5 * MIB).expect("memory");
    grown.free(&ALLOC);
    let long = Layout::from_size_align(5 * MIB, 8).expect("a valid layout");
    let block = Block::alloc_zeroed(&ALLOC, long).expect("memory");
    assert!(block.is_zero());
    block.free(&ALLOC);
    verify();
}

/// Bytes that this process keeps of freed blocks.
fn cached() -> usize {
    stats().cached
}

/// With safeguards there are no stocks: what is longer than a block is a mapping.
fn has_stocks() -> bool {
    std::env::var_os("FLAGSTONE_HARDENED").is_none()
}

/// The span freed last is the next, with what was written; others of its length follow.
#[test]
fn freed_spans_are_at_hand() {
    let _turn = begin();
    if !has_stocks() {
        return;
    }
    // The first one makes the stock.
    block(130_000, 0).free(&ALLOC);
    Flagstone::purge();
    let both = [block(120_000, 1), block(130_000, 2)];
    let places = both.each_ref().map(Block::addr);
    both.into_iter().for_each(|block| block.free(&ALLOC));
    verify();
    let again = [block(70_000, 3), block(131_072, 4)];
    let mut units = again.each_ref().map(|block| block.addr() >> 16);
    units.reverse();
    assert_eq!(units, places.map(|place| place >> 16));
    assert!(again[0].holds(3, 70_000));
    again.into_iter().for_each(|block| block.free(&ALLOC));
    verify();
}

/// An eighth of what is live, or a few where little is.
#[test]
fn few_freed_spans_are_kept() {
    let _turn = begin();
    if !has_stocks() {
        return;
    }
    let (before, live_before) = (cached(), stats().live);
    let mut blocks: Vec<_> = (0..400).map(|tag| block(200_000, tag)).collect();
    assert!(stats().live >= live_before + 400 * 200_000);
    let live = 400 * (256 << 10);
    let mut most = 0;
    while let Some(block) = blocks.pop() {
        block.free(&ALLOC);
        most = most.max(cached() - before.min(cached()));
    }
    assert!(most <= live / 8, "{most} bytes are kept of {live}");
    assert!(cached() <= before + (1 << 20), "of little, much is kept");
    verify();
}

/// What was not taken between two ticks goes, whatever else comes and goes.
#[test]
fn spans_that_nobody_takes_go_back() {
    let _turn = begin();
    if !has_stocks() {
        return;
    }
    let hold: Vec<_> = (0..40).map(|tag| block(200_000, tag)).collect();
    let few: Vec<_> = (0..4).map(|tag| block(90_000, tag)).collect();
    // Far more slow paths than two ticks are apart.
    let tick = || (0..300).for_each(|_| common::block::take_slow_paths(&ALLOC));
    tick();
    few.into_iter().for_each(|block| block.free(&ALLOC));
    let kept = cached();
    tick();
    let left = cached();
    assert!(left + 3 * (128 << 10) <= kept, "{left} of {kept} stay");
    hold.into_iter().for_each(|block| block.free(&ALLOC));
    verify();
}

/// A long table of which a few pages are used is given back with each free. To have it again costs those pages:
/// what else is free may not stay for the rest of its addresses.
#[test]
fn long_tables_with_few_pages_teach_little() {
    const NAME: &str = "long_tables_with_few_pages_teach_little";
    const SPAN: usize = 500_000;
    // In a process of its own: other tests regret much.
    alone(NAME, &[("FLAGSTONE_PURGE_DELAY_MS", "3600000")], || {
        let layout = Layout::from_size_align(1 << 30, 8).expect("a valid layout");
        for _ in 0..4 {
            let table = Block::alloc(&ALLOC, layout).expect("memory");
            assert!(table.is_usable_at_both_ends());
            table.free(&ALLOC);
        }
        let spans: Vec<_> = (0..200 * MIB / SPAN).map(|tag| block(SPAN, tag)).collect();
        spans.into_iter().for_each(|span| span.free(&ALLOC));
        let stats = stats();
        assert!(stats.resident < 80 * MIB, "{stats:?}");
    });
}
