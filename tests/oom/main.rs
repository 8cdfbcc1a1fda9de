//! Without this, a kernel that refuses memory could crash a program, or cost it memory for good.
//! Each test has a process of its own: they take no turns.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
#[path = "../common/mod.rs"]
mod common;

mod chain;
mod filler;
mod program;

use core::ffi::CStr;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::fs;
use std::io::{self, Write};

use chain::Chain;
use common::block::Block;
use common::child::{alone, one_in, run_child, scenario};
use common::process::{live, mapped, resident, stats, verify, without_huge_pages};
use filler::Filler;
use flagstone::{Background, Config, Flagstone, failpoints};
use program::{check, fill, free_quietly, layout, program};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::with_config(Config::new().background(Background::Off));

const MIB: usize = 1 << 20;

/// Nothing goes back by itself, however long the test takes.
const NEVER: (&str, &str) = ("FLAGSTONE_PURGE_DELAY_MS", "4000000000");

/// Which kernel calls are refused: one, or that one and all after it.
#[derive(Clone, Copy, Debug)]
struct OptionError {
    pass: usize,
    forever: bool,
}

impl OptionError {
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
    let stats = stats();
    (stats.live, stats.committed)
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
    let refusal = OptionError {
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
    if scenario().is_some() {
        let refused = BEFORE_MAIN_REFUSED.load(Ordering::Relaxed);
        writeln!(io::stdout(), "refused {}", refused - 1).expect("a message");
        return;
    }
    for sign in ["-", "+"] {
        let end = (0..CALLS).step_by(one_in(1, 5)).find(|pass| {
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
    alone("refusals_at_any_time", &[], || {
        let before = held_after_purge();
        for forever in [false, true] {
            let mut passes = (0..CALLS).step_by(one_in(1, 5));
            let end = passes.find(|&pass| OptionError { pass, forever }.check(before) == 0);
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
    // Freed mappings go back at once.
    const OPTIONS: [(&str, &str); 2] = [NEVER, ("FLAGSTONE_LARGE_CACHE", "0")];
    alone("refusals_cost_nothing", &OPTIONS, || {
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
    alone("all_addresses_serve_again", &[], || {
        // The smallest size takes the longest; it is among the others below.
        for size in CHAINED.into_iter().skip(1) {
            expect_rounds([size], fill_rounds([size]));
            Flagstone::purge();
        }
    });
}

/// What blocks of one size leave has to serve all others.
#[test]
fn all_addresses_serve_other_sizes() {
    alone("all_addresses_serve_other_sizes", &[NEVER], || {
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

/// At the limit of mappings the kernel refuses to map, to change access and to cut mappings.
#[test]
fn the_limit_of_mappings_is_survived() {
    /// Where the limit is higher, reaching it takes too long.
    const MOST: usize = 1 << 20;
    const TOTAL: usize = 24 * MIB;
    const SIZES: [usize; 7] = [64, 4_000, 40_000, 200_000, 400_000, 2 * MIB, 6 * MIB];
    const LONG: usize = 8 * MIB;
    /// Freed mappings go back at once, if the kernel takes them.
    const NO_CACHE: (&str, &str) = ("FLAGSTONE_LARGE_CACHE", "0");
    let limit = fs::read_to_string("/proc/sys/vm/max_map_count").expect("the limit of mappings");
    let limit: usize = limit.trim().parse().expect("a number");
    if limit > MOST {
        println!("not run: the limit is {limit} mappings");
        return;
    }
    alone("the_limit_of_mappings_is_survived", &[NO_CACHE], || {
        without_huge_pages();
        let before = live();
        for warm in [false, true] {
            let mut chains = SIZES.map(Chain::new);
            if warm {
                chains
                    .iter_mut()
                    .for_each(|chain| chain.grow(chain.blocks(TOTAL)));
            }
            // Neighbours: the one in the middle cannot be cut out at the limit.
            let [first, middle, last] = [1, 2, 3].map(|tag| Block::filled(&ALLOC, LONG, 8, tag));
            let filler = Filler::new(limit);
            middle.check(2);
            free_quietly(|| middle.free(&ALLOC));
            for _ in 0..3 {
                for chain in &mut chains {
                    chain.grow(chain.blocks(2 * TOTAL));
                    chain.free();
                }
                Flagstone::purge();
                verify();
            }
            drop(filler);
            first.check(1);
            first.free(&ALLOC);
            last.check(3);
            last.free(&ALLOC);
            for chain in &mut chains {
                let count = chain.blocks(2 * TOTAL);
                chain.grow(count);
                assert_eq!(chain.count, count, "null with addresses to spare");
            }
            chains.iter_mut().for_each(Chain::free);
            assert_eq!(live(), before);
            verify();
        }
    });
}

#[test]
fn again_hardened() {
    common::child::again_hardened("again_hardened");
}
