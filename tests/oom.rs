//! Without this, a kernel that refuses memory could crash a program, or cost it memory for good.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
mod common;

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::CStr;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering};
use std::fs;
use std::io::{self, Write};

use common::block::Block;
use common::child::{alone, run_child, scenario};
use common::process::{begin, live, mapped, page_size, resident, verify, without_huge_pages};
use common::raw_thread::on_raw_thread;
use flagstone::{Flagstone, failpoints};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

const MIB: usize = 1 << 20;
/// What `errno` is while blocks are freed: no error has this number.
const ERRNO: i32 = 7_654;

fn errno() -> *mut i32 {
    // SAFETY: `__errno_location` has no preconditions.
    unsafe { libc::__errno_location() }
}

/// Frees and looks whether `errno` stayed as it was.
fn free_quietly(free: impl FnOnce()) {
    // SAFETY: the errno of this thread is writable.
    unsafe { errno().write(ERRNO) };
    free();
    // SAFETY: the errno of this thread is readable.
    let after = unsafe { errno().read() };
    assert_eq!(after, ERRNO, "a free changed errno");
}

/// Which kernel calls are refused: one, or that one and all after it.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    pass: usize,
    forever: bool,
}

impl Refusal {
    /// Runs [`program`] under this refusal and says how many calls were refused; then everything has to
    /// work again, and the process has to hold what it held `before`.
    ///
    /// Nothing here allocates but the program: std ends the process when it gets no memory.
    fn check(self, before: (usize, usize)) -> usize {
        failpoints::refuse_after(self.pass, self.forever);
        let nulls = program();
        let refused = failpoints::refuse_none();
        assert!(nulls == 0 || refused > 0, "{self:?}: null without a reason");
        assert_eq!(held_after_purge(), before, "{self:?}: live, committed");
        assert_eq!(program(), 0, "{self:?}: null once nothing is refused");
        assert_eq!(held_after_purge(), before, "{self:?}: live, committed");
        refused
    }
}

/// Bytes live and committed once everything that can go back has gone back.
fn held_after_purge() -> (usize, usize) {
    Flagstone::purge();
    verify();
    let stats = Flagstone::stats();
    (stats.live, stats.committed)
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
    block.size().min(200_000)
}

fn fill(block: &Block, tag: usize) {
    block.fill_first(tag, filled(block));
}

#[track_caller]
fn check(block: &Block, tag: usize) {
    let fine = block.holds(tag, filled(block));
    assert!(fine, "block {:#x} lost its contents", block.addr());
}

fn layout(size: usize, align: usize) -> Layout {
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
fn program() -> usize {
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
    let stats = Flagstone::stats();
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

/// What [`before_main`] found: calls refused, plus 1.
static BEFORE_MAIN_REFUSED: AtomicUsize = AtomicUsize::new(0);

/// The loader calls this before `main`, when nothing has used the allocator yet.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    // SAFETY: the name is a C string, and nothing changes the environment before `main`.
    let text = unsafe { libc::getenv(c"FLAGSTONE_TEST_SCENARIO".as_ptr()) };
    if text.is_null() {
        return;
    }
    // SAFETY: not null, so a C string in the environment.
    let text = unsafe { CStr::from_ptr(text) }.to_bytes();
    let Some((b"first", rest)) = text.split_at_checked(5) else {
        return;
    };
    let refusal = Refusal {
        forever: rest.first() == Some(&b'+'),
        pass: rest[1..]
            .iter()
            .fold(0, |number, digit| number * 10 + usize::from(digit - b'0')),
    };
    let refused = refusal.check((0, 0));
    BEFORE_MAIN_REFUSED.store(refused + 1, Ordering::Relaxed);
}

/// The first calls of a process, when the allocator has nothing yet.
#[test]
fn refusals_from_the_first_call_on() {
    const NAME: &str = "refusals_from_the_first_call_on";
    const CALLS: usize = 1_000;
    let _turn = begin();
    if scenario().is_some() {
        let refused = BEFORE_MAIN_REFUSED.load(Ordering::Relaxed);
        writeln!(io::stdout(), "refused {}", refused - 1).expect("a message");
        return;
    }
    for sign in ["-", "+"] {
        let end = (0..CALLS).find(|pass| {
            let exit = run_child(NAME, &format!("first{sign}{pass}"));
            assert_eq!(exit.code, Some(0), "pass {pass} {sign}: {exit:?}");
            assert!(exit.stdout.contains("refused "), "{exit:?}");
            exit.stdout.contains("refused 0")
        });
        println!("{sign} {end:?}");
        assert!(end.is_some_and(|end| end > 20), "calls: {end:?}");
    }
}

/// The same in a process that has been running.
#[test]
fn refusals_at_any_time() {
    const CALLS: usize = 1_000;
    let _turn = begin();
    alone("refusals_at_any_time", &[], || {
        let before = held_after_purge();
        for forever in [false, true] {
            let end = (0..CALLS).find(|&pass| Refusal { pass, forever }.check(before) == 0);
            println!("{forever} {end:?}");
            assert!(end.is_some_and(|end| end > 20), "calls: {end:?}");
        }
    });
}

/// What the kernel refuses to take back waits for another time, and what it refuses to give leaves no
/// trace: a descriptor lost each time would end in null.
#[test]
fn refusals_cost_nothing() {
    const SIZE: usize = 3 * MIB;
    const TIMES: usize = 20_000;
    const ROUNDS: usize = 100;
    const NEVER: (&str, &str) = ("FLAGSTONE_PURGE_DELAY_MS", "4000000000");
    let _turn = begin();
    alone("refusals_cost_nothing", &[NEVER], || {
        let use_block = |size| match Block::alloc(&ALLOC, layout(size, 8)) {
            Some(block) => {
                fill(&block, 1);
                check(&block, 1);
                free_quietly(|| block.free(&ALLOC));
                true
            }
            None => false,
        };
        // This leaves free memory, which serves while nothing new can be had.
        assert!(use_block(MIB));
        failpoints::refuse_after(0, true);
        let served = (0..TIMES).filter(|_| use_block(SIZE)).count();
        failpoints::refuse_none();
        assert_eq!(served, TIMES);

        Flagstone::purge();
        let before = mapped();
        for pass in (0..5).cycle().take(5 * ROUNDS) {
            failpoints::refuse_after(pass, false);
            let served = use_block(SIZE);
            Flagstone::purge();
            failpoints::refuse_none();
            assert!(served, "null for one refusal, after {pass} calls");
            Flagstone::purge();
        }
        let grown = mapped().saturating_sub(before);
        assert!(
            grown < ROUNDS * SIZE / 4,
            "{grown} bytes of addresses are lost"
        );
        verify();
    });
}

/// Blocks of one size, each of which holds the address of the one before and its own number.
struct Chain {
    layout: Layout,
    last: *mut u8,
    count: usize,
}

impl Chain {
    fn new(size: usize) -> Self {
        Self {
            layout: layout(size, 8),
            last: ptr::null_mut(),
            count: 0,
        }
    }

    /// Allocates at most `most` blocks, until the allocator answers null.
    fn grow(&mut self, most: usize) {
        while self.count < most {
            // SAFETY: the size is not zero.
            let Some(block) = NonNull::new(unsafe { ALLOC.alloc(self.layout) }) else {
                return;
            };
            // SAFETY: the block begins with room for an address, and is aligned for it.
            unsafe { block.cast::<*mut u8>().write(self.last) };
            // SAFETY: the block is longer than a word.
            let end = unsafe { block.add(self.layout.size() - size_of::<usize>()) };
            // SAFETY: the block ends with room for a word.
            unsafe { end.cast::<usize>().write_unaligned(self.count) };
            self.last = block.as_ptr();
            self.count += 1;
        }
    }

    /// Frees all blocks after a look at their contents.
    fn free(&mut self) {
        while let Some(block) = NonNull::new(self.last) {
            self.count -= 1;
            // SAFETY: `grow` wrote it, and nobody else has the block.
            let before = unsafe { block.cast::<*mut u8>().read() };
            // SAFETY: the block is longer than a word.
            let end = unsafe { block.add(self.layout.size() - size_of::<usize>()) };
            // SAFETY: `grow` wrote it.
            let number = unsafe { end.cast::<usize>().read_unaligned() };
            assert_eq!(number, self.count, "block {block:p} lost its contents");
            // SAFETY: the block is live, has this layout, and is not used again.
            free_quietly(|| unsafe { ALLOC.dealloc(block.as_ptr(), self.layout) });
            self.last = before;
        }
        assert_eq!(self.count, 0, "blocks of the chain are lost");
    }
}

const CHAINED: [usize; 5] = [64, 4 << 10, 40 << 10, 300 << 10, 4 * MIB];
const ROUNDS: usize = 3;
/// Address space for the chains.
const LIMIT: usize = 256 * MIB;

fn limit_address_space(bytes: u64) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit is writable.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) };
    assert_eq!(result, 0, "getrlimit refused");
    let before = limit.rlim_cur;
    limit.rlim_cur = bytes;
    // SAFETY: the limit is a valid, initialised value.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(result, 0, "setrlimit refused");
    before
}

/// Fills all address space with blocks of each of `sizes` in turn, frees them, and says how many blocks
/// there were in each round.
fn fill_rounds<const N: usize>(sizes: [usize; N]) -> [[usize; N]; ROUNDS] {
    let bytes = u64::try_from(mapped() + LIMIT).expect("an address");
    let before = limit_address_space(bytes);
    let counts = [(); ROUNDS].map(|()| {
        sizes.map(|size| {
            let mut chain = Chain::new(size);
            chain.grow(usize::MAX);
            let count = chain.count;
            chain.free();
            count
        })
    });
    limit_address_space(before);
    counts
}

/// Panics unless later rounds have nearly as many blocks as the first, and that nearly fills the limit.
#[track_caller]
fn expect_rounds<const N: usize>(sizes: [usize; N], counts: [[usize; N]; ROUNDS]) {
    println!("{sizes:?}: {counts:?}");
    for (index, size) in sizes.iter().enumerate() {
        let first = counts[0][index];
        assert!(first * size > LIMIT / 2, "{size}: {counts:?}");
        for round in counts {
            assert!(round[index] * 10 >= first * 9, "{size}: {counts:?}");
        }
    }
    verify();
}

#[test]
fn all_addresses_serve_again() {
    let _turn = begin();
    alone("all_addresses_serve_again", &[], || {
        for size in CHAINED {
            expect_rounds([size], fill_rounds([size]));
            Flagstone::purge();
        }
    });
}

/// What blocks of one size leave has to serve all others.
#[test]
fn all_addresses_serve_other_sizes() {
    let _turn = begin();
    alone("all_addresses_serve_other_sizes", &[], || {
        expect_rounds(CHAINED, fill_rounds(CHAINED));
    });
}

fn mappings() -> usize {
    let maps = fs::read("/proc/self/maps").expect("/proc/self/maps can be read");
    maps.iter().filter(|byte| **byte == b'\n').count()
}

/// Twice as many blocks as a process may have mappings, and then holes between them.
#[test]
fn many_long_blocks_take_few_mappings() {
    const BLOCKS: usize = 140_000;
    const SIZE: usize = 270_000;
    const MOST_RESIDENT: usize = 1_200 * MIB;
    const MOST_MAPPINGS: usize = 10_000;
    let _turn = begin();
    alone("many_long_blocks_take_few_mappings", &[], || {
        without_huge_pages();
        let mut blocks: Vec<Option<Block>> = (0..BLOCKS).map(|_| None).collect();
        let before = resident();
        for (number, slot) in blocks.iter_mut().enumerate() {
            let block = Block::alloc(&ALLOC, layout(SIZE, 8));
            let block = block.unwrap_or_else(|| panic!("null for block {number}"));
            block.fill_first(number, 1);
            *slot = Some(block);
        }
        let held = resident() - before;
        assert!(held < MOST_RESIDENT, "{held} bytes in memory");
        assert!(mappings() < MOST_MAPPINGS, "{} mappings", mappings());
        for step in [2, 1] {
            for (number, slot) in blocks.iter_mut().enumerate().step_by(step) {
                if let Some(block) = slot.take() {
                    assert!(block.holds(number, 1), "block {number} lost its contents");
                    free_quietly(|| block.free(&ALLOC));
                }
            }
            Flagstone::purge();
            assert!(mappings() < MOST_MAPPINGS, "{} mappings", mappings());
            let left = resident().saturating_sub(before);
            // The allocator's own tables stay.
            let bound = held / 2 * (step - 1) + 100 * MIB;
            assert!(left < bound, "{left} of {held} bytes are still in memory");
            verify();
        }
    });
}

/// Mappings of the test's own, as many as the kernel lets a process have.
struct Filler {
    base: *mut libc::c_void,
    length: usize,
}

#[expect(
    clippy::disallowed_methods,
    reason = "mappings that the allocator does not own"
)]
impl Filler {
    /// Every other page of a long mapping becomes readable, until no page can any more.
    fn new(most: usize) -> Self {
        let page = page_size();
        let length = (most + 2) * 2 * page;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping, at an address that the kernel chooses.
        let base = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_NONE, kind, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED, "mmap refused");
        let last = length - page;
        let offsets = [0, last]
            .into_iter()
            .chain((2 * page..last).step_by(2 * page));
        let mut refused = false;
        for offset in offsets {
            let start = base.wrapping_byte_add(offset);
            // SAFETY: a page of the mapping above, which nobody uses.
            if unsafe { libc::mprotect(start, page, libc::PROT_READ) } != 0 {
                refused = true;
                break;
            }
        }
        assert!(refused, "{most} mappings were not the limit");
        Self { base, length }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "mappings that the allocator does not own"
)]
impl Drop for Filler {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody uses it.
        let result = unsafe { libc::munmap(self.base, self.length) };
        assert_eq!(result, 0, "munmap refused");
    }
}

/// At the limit of mappings the kernel refuses to map, to change access and to cut mappings.
#[test]
fn the_limit_of_mappings_is_survived() {
    /// Where the limit is higher, reaching it takes too long.
    const MOST: usize = 1 << 20;
    const TOTAL: usize = 24 * MIB;
    const SIZES: [usize; 7] = [64, 4_000, 40_000, 200_000, 400_000, 2 * MIB, 6 * MIB];
    let _turn = begin();
    let limit = fs::read_to_string("/proc/sys/vm/max_map_count").expect("the limit of mappings");
    let limit: usize = limit.trim().parse().expect("a number");
    if limit > MOST {
        println!("not run: the limit is {limit} mappings");
        return;
    }
    alone("the_limit_of_mappings_is_survived", &[], || {
        without_huge_pages();
        let before = live();
        for warm in [false, true] {
            let mut chains = SIZES.map(Chain::new);
            if warm {
                chains
                    .iter_mut()
                    .for_each(|chain| chain.grow(TOTAL / chain.layout.size()));
            }
            let filler = Filler::new(limit);
            for _ in 0..3 {
                for chain in &mut chains {
                    chain.grow(2 * TOTAL / chain.layout.size());
                    chain.free();
                }
                Flagstone::purge();
                verify();
            }
            drop(filler);
            for chain in &mut chains {
                let count = 2 * TOTAL / chain.layout.size();
                chain.grow(count);
                assert_eq!(chain.count, count, "null with addresses to spare");
            }
            chains.iter_mut().for_each(Chain::free);
            assert_eq!(live(), before);
            verify();
        }
    });
}
