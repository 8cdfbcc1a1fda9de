//! A program that does a little of everything and can live with null. Nothing here allocates but that
//! program itself: std ends the process when it gets no memory.

use core::alloc::Layout;

use flagstone::Flagstone;

use crate::common::block::Block;
use crate::common::process::{stats, verify};
use crate::common::raw_thread::on_raw_thread;
use crate::{ALLOC, MIB};

/// What `errno` is while blocks are freed: no error has this number.
const ERRNO: i32 = 7_654;

fn errno() -> *mut i32 {
    // SAFETY: `__errno_location` has no preconditions.
    unsafe { libc::__errno_location() }
}

/// Frees and looks whether `errno` stayed as it was.
pub(crate) fn free_quietly(free: impl FnOnce()) {
    // SAFETY: the errno of this thread is writable.
    unsafe { errno().write(ERRNO) };
    free();
    // SAFETY: the errno of this thread is readable.
    let after = unsafe { errno().read() };
    assert_eq!(after, ERRNO, "a free changed errno");
}

/// Blocks by tag, in memory that needs no allocation.
struct Held {
    blocks: [Option<Block>; Self::ROOM],
    count: usize,
    /// Requests that were answered by null.
    nulls: usize,
}

impl Held {
    const ROOM: usize = 1_200;

    const fn new() -> Self {
        Self {
            blocks: [const { None }; Self::ROOM],
            count: 0,
            nulls: 0,
        }
    }

    fn alloc(&mut self, size: usize, align: usize) {
        self.keep(Block::alloc(&ALLOC, layout(size, align)));
    }

    fn alloc_zeroed(&mut self, size: usize) {
        let block = Block::alloc_zeroed(&ALLOC, layout(size, 8));
        assert!(
            block.as_ref().is_none_or(Block::is_zero),
            "{size} bytes are not zero"
        );
        self.keep(block);
    }

    fn keep(&mut self, block: Option<Block>) {
        match block {
            Some(block) => {
                assert!(
                    block.is_aligned(),
                    "{:?} at {:#x}",
                    block.layout(),
                    block.addr()
                );
                fill(&block, self.count);
                self.blocks[self.count] = Some(block);
                self.count += 1;
            }
            None => self.nulls += 1,
        }
    }

    /// Gives the last block another size, if there is one.
    fn realloc(&mut self, size: usize) {
        let Some(tag) = self.count.checked_sub(1) else {
            return;
        };
        if let Some(block) = self.blocks[tag].take() {
            let kept = filled(&block).min(size);
            let block = block.realloc(&ALLOC, size).unwrap_or_else(|block| {
                self.nulls += 1;
                block
            });
            assert!(block.holds(tag, kept), "the contents did not come along");
            fill(&block, tag);
            self.blocks[tag] = Some(block);
        }
    }

    /// Frees the blocks whose tag is a multiple of `step`.
    fn free_every(&mut self, step: usize) {
        for (tag, slot) in self.blocks.iter_mut().enumerate().step_by(step) {
            if let Some(block) = slot.take() {
                check(&block, tag);
                free_quietly(|| block.free(&ALLOC));
            }
        }
    }

    fn check(&self) {
        for (tag, slot) in self.blocks.iter().enumerate() {
            if let Some(block) = slot {
                check(block, tag);
            }
        }
    }
}

/// Bytes of a block that are written and checked: of long ones the front, to save time.
fn filled(block: &Block) -> usize {
    block.size().min(60_000)
}

pub(crate) fn fill(block: &Block, tag: usize) {
    block.fill_first(tag, filled(block));
}

#[track_caller]
pub(crate) fn check(block: &Block, tag: usize) {
    let fine = block.holds(tag, filled(block));
    assert!(fine, "block {:#x} lost its contents", block.addr());
}

pub(crate) fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a valid layout")
}

/// Sizes of every kind, and how many blocks of each.
const SIZES: [(usize, usize); 12] = [
    (16, 300),
    (64, 100),
    (200, 100),
    (1_000, 40),
    (4_096, 20),
    (20_000, 8),
    (100_000, 4),
    (256 << 10, 2),
    (300_000, 2),
    (MIB, 2),
    (2 * MIB, 2),
    // Long enough for huge pages.
    (9 * MIB, 1),
];

/// Does a little of everything. Null is an answer that it counts; everything else has to be right.
pub(crate) fn program() -> usize {
    let mut held = Held::new();
    for (size, count) in SIZES {
        (0..count).for_each(|_| held.alloc(size, 8));
    }
    for (size, align) in [
        (100, 4_096),
        (5_000, 64 << 10),
        (MIB, 2 * MIB),
        (5_000, 8 * MIB),
    ] {
        held.alloc(size, align);
    }
    for (size, _) in SIZES.iter().filter(|(size, _)| *size <= 2 * MIB) {
        held.alloc_zeroed(*size);
    }
    held.alloc(24, 8);
    // Within classes, from classes to spans and mappings; then mappings that grow and shrink in place.
    for size in [
        3_000,
        40_000,
        400_000,
        3 * MIB,
        6 * MIB,
        12 * MIB,
        2 * MIB,
        100,
    ] {
        held.realloc(size);
    }
    on_raw_thread(&mut held, |held| {
        SIZES.iter().for_each(|(size, _)| held.alloc(*size, 16));
        held.free_every(5);
    });
    held.free_every(2);
    Flagstone::purge();
    verify();
    held.check();
    let stats = stats();
    assert!(stats.resident <= stats.committed, "{stats:?}");
    for (size, _) in SIZES {
        held.alloc(size, 8);
    }
    // What a refused purge left dirty must not be taken for zero.
    for size in [4_096, 256 << 10, 300_000, MIB] {
        held.alloc_zeroed(size);
    }
    on_raw_thread(&mut held, |held| held.free_every(3));
    held.free_every(1);
    Flagstone::purge();
    held.nulls
}
