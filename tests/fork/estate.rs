//! What a child inherits: the parent's blocks, which it must be able to use and to free, and the
//! memory of threads that are gone, which it must get back.

use core::alloc::Layout;
use core::ops::RangeInclusive;
use std::thread;

use flagstone::Flagstone;

use crate::ALLOC;
use crate::common::block::Block;
use crate::common::process::{live, verify};
use crate::common::raw_thread::on_raw_thread;

/// What may stay lost in a child for each thread that was inside the allocator: the magazine that it
/// was filling or emptying (three blocks of 256 KiB at most), and the newest block of every other one
/// that is not gated (320 KiB) ...
pub(crate) const MAGAZINES: usize = (768 + 320) << 10;
/// ... and a slab that it was giving up.
pub(crate) const SLAB: usize = 256 << 10;
/// What std, the test harness and its threads use, at most.
const NOISE: usize = 64 << 10;

/// The tag of the parent's blocks, and of those that the child allocates.
const THEIRS: usize = 11;
const MINE: usize = 12;

/// Blocks of each size that the parent holds.
const HELD: usize = 2;
/// Bytes of each size that the child allocates, and blocks of the larger sizes.
const BYTES: usize = 32 << 10;
const BLOCKS: usize = 5;

/// Longer than every class, not so long that each is a mapping.
const SPANS: RangeInclusive<usize> = (256 << 10) + 1..=1 << 20;

/// Some of every kind, and bytes of each that the child allocates.
const FEW: [usize; 8] = [16, 48, 100, 1_000, 4_096, 20_000, 400_000, 2 << 20];
const FEW_BYTES: usize = 400_000;

/// Sizes of every class, and of what is larger than all classes.
pub(crate) fn sizes() -> impl DoubleEndedIterator<Item = usize> {
    let doublings = (4..18).flat_map(|log| (8..16).map(move |eighths| (eighths << log) / 8));
    doublings.chain([256 << 10, 300 << 10, 1 << 20, 3 << 19, 3 << 20])
}

/// The parent's blocks, and room for the notes of a child, all of it set up before the fork.
pub(crate) struct Estate {
    blocks: Vec<Block>,
    mine: Vec<Block>,
    ranges: Vec<(usize, usize)>,
    /// Live bytes without all of this.
    base: usize,
}

impl Estate {
    pub(crate) fn new() -> Self {
        Self::of(sizes())
    }

    /// A few blocks only.
    pub(crate) fn few() -> Self {
        Self::of(FEW.into_iter())
    }

    fn of(sizes: impl Iterator<Item = usize>) -> Self {
        let mut estate = Self {
            blocks: Vec::with_capacity(4_000),
            mine: Vec::with_capacity(40_000),
            ranges: Vec::with_capacity(50_000),
            base: 0,
        };
        estate.base = live();
        for size in sizes.flat_map(|size| [size; HELD]) {
            estate.blocks.push(Block::filled(&ALLOC, size, 8, THEIRS));
        }
        estate
    }

    /// In the child: allocates blocks of all sizes, none of which may be somebody's, frees them and all
    /// that the parent had, `others` being what its other threads had; purges and verifies. At
    /// most `lost` bytes may be missing.
    pub(crate) fn examine(&mut self, others: Vec<Block>, lost: usize) {
        // The longest first: what a vanished thread was giving back is to be asked for as zeros, not
        // used up by slabs before.
        for size in sizes().rev() {
            let count = (BYTES / size).max(BLOCKS);
            for _ in 0..count {
                self.mine.push(mine(size));
            }
        }
        verify();
        self.expect_no_overlap(&others);
        on_raw_thread(&mut (), |()| use_all_sizes());
        thread::spawn(use_all_sizes).join().expect("no panic");
        on_raw_thread(&mut self.mine, |mine| mine.drain(..).for_each(free));
        self.free_theirs();
        others.into_iter().for_each(free);
        self.expect_all_but(lost);
        use_all_sizes();
        Flagstone::purge();
        self.expect_all_but(lost);
        assert_eq!(flagstone::spans_on_their_way(), 0, "lost in the fork");
    }

    /// As [`examine`](Self::examine), in short.
    pub(crate) fn examine_few(&mut self, others: Vec<Block>, lost: usize) {
        for size in FEW.into_iter().rev() {
            for _ in 0..(FEW_BYTES / size).clamp(1, 200) {
                self.mine.push(mine(size));
            }
        }
        verify();
        self.expect_no_overlap(&others);
        on_raw_thread(&mut self.mine, |mine| mine.drain(..).for_each(free));
        self.free_theirs();
        others.into_iter().for_each(free);
        self.expect_all_but(lost);
        Flagstone::purge();
        self.expect_all_but(lost);
        assert_eq!(flagstone::spans_on_their_way(), 0, "lost in the fork");
    }

    /// Of blocks in use, no two share a byte.
    fn expect_no_overlap(&mut self, others: &[Block]) {
        let ranges = &mut self.ranges;
        let blocks = self.blocks.iter().chain(&self.mine).chain(others);
        ranges.extend(blocks.map(|block| (block.addr(), block.addr() + block.size())));
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            let [(start, end), (next, _)] = pair else {
                unreachable!("windows of two")
            };
            assert!(end <= next, "{start:#x}..{end:#x} overlaps {next:#x}");
        }
    }

    /// All is free again, but for at most `lost` bytes.
    #[track_caller]
    pub(crate) fn expect_all_but(&self, lost: usize) {
        verify();
        let live = live();
        let bound = self.base + lost + NOISE;
        assert!(live <= bound, "{live} bytes live, at most {bound} expected");
        let floor = self.base.saturating_sub(NOISE);
        assert!(
            live >= floor,
            "{live} bytes live, at least {floor} expected"
        );
    }

    /// In the parent, in the end.
    pub(crate) fn settle(mut self) {
        self.free_theirs();
        verify();
    }

    /// Live bytes without any of this.
    pub(crate) fn base(&self) -> usize {
        self.base
    }

    pub(crate) fn expect_all_in_place(&self) {
        self.blocks.iter().for_each(|block| block.check(THEIRS));
    }

    pub(crate) fn free_theirs(&mut self) {
        for block in self.blocks.drain(..) {
            block.check(THEIRS);
            block.free(&ALLOC);
        }
    }
}

/// A block of the child. Only a small one is filled, to save time. A span has to be zero: of its units
/// the allocator knows, or believes to know, which are.
fn mine(size: usize) -> Block {
    if size <= 4096 {
        return Block::filled(&ALLOC, size, 8, MINE);
    }
    let layout = Layout::from_size_align(size, 8).expect("a valid layout");
    if SPANS.contains(&size) {
        let block = Block::alloc_zeroed(&ALLOC, layout).expect("memory");
        assert!(block.is_zero(), "{layout:?} is not zero");
        return block;
    }
    let block = Block::alloc(&ALLOC, layout).expect("memory");
    assert!(block.is_usable_at_both_ends(), "{layout:?}");
    block
}

fn free(block: Block) {
    block.free(&ALLOC);
}

/// Allocates, grows and frees a few blocks of every size.
pub(crate) fn use_all_sizes() {
    for size in sizes() {
        let [first, second] = [(); 2].map(|()| mine(size));
        free(first);
        let second = second.realloc(&ALLOC, size + size / 2).expect("memory");
        let kept = size <= 4096;
        assert!(!kept || second.holds(MINE, size), "contents lost");
        free(second);
    }
}

/// Of each of these sizes a thread that ends leaves one block. Caches are emptied shortest blocks first.
pub(crate) const LEFT: [usize; 3] = [3_000, 1_000, 100];

/// A thread ends.
pub(crate) fn leave_one_of_each() {
    on_raw_thread(&mut (), |()| {
        for size in LEFT {
            Block::filled(&ALLOC, size, 8, size).free(&ALLOC);
        }
    });
}

/// A thread begins, and is given what the other left.
pub(crate) fn take_two_of_each() {
    on_raw_thread(&mut (), |()| {
        let of_each = LEFT.map(|size| [(); 2].map(|()| Block::filled(&ALLOC, size, 8, size)));
        for (size, blocks) in LEFT.into_iter().zip(&of_each) {
            blocks.iter().for_each(|block| block.check(size));
        }
        for block in of_each.into_iter().flatten() {
            block.free(&ALLOC);
        }
    });
}
