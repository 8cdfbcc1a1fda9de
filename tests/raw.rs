//! Without this, blocks that are freed by their address alone could be taken for what they are not: this
//! whole process allocates so, the test harness too.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
mod common;

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use std::io::{self, Write};
use std::process;
use std::sync::MutexGuard;
use std::sync::mpsc::sync_channel;
use std::thread;

use common::block::Block;
use common::child::{Exit, again, is_again, one_in, run_child, run_child_with, scenario};
use common::process::{expect_flat, live, stats, verify};
use common::program::{generate, run};
use flagstone::{Flagstone, OptionError, raw};

/// Keeps no layout.
struct ByAddress;

// SAFETY: `raw` gives blocks as long and aligned as asked.
unsafe impl GlobalAlloc for ByAddress {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        raw::alloc(layout.size(), layout.align())
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller's.
        unsafe { raw::free(block) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        raw::alloc_zeroed(layout.size(), layout.align())
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.align() <= raw::ALIGN {
            // SAFETY: the caller's.
            return unsafe { raw::realloc(block, size) };
        }
        let target = raw::alloc(size, layout.align());
        if !target.is_null() {
            // SAFETY: both are live, different, and this long.
            unsafe { target.copy_from_nonoverlapping(block, size.min(layout.size())) };
            // SAFETY: the caller's; the contents were moved.
            unsafe { raw::free(block) };
        }
        target
    }
}

#[global_allocator]
static ALLOC: ByAddress = ByAddress;

/// One test at a time, sampled if this process is.
fn begin() -> MutexGuard<'static, ()> {
    raw::begin();
    common::process::begin()
}

fn free(block: *mut u8) {
    // SAFETY: live and not used again, or wrong on purpose.
    unsafe { raw::free(block) }
}

#[test]
fn programs_get_right_answers() {
    let _turn = begin();
    for seed in 0..18 / one_in(1, 3) as u64 {
        let program = generate(seed);
        if let Err(fault) = run(&ALLOC, &program) {
            panic!("seed {seed}: {fault}");
        }
    }
    verify();
}

fn sizes() -> impl Iterator<Item = usize> {
    let small = (0..3000).step_by(7);
    let long = (0..)
        .map(|step| 3000 + 3000 * step * step)
        .take_while(|size| *size < 20 << 20);
    small.chain(long.step_by(5))
}

/// The bytes that are said to be usable are, and no other block's.
#[test]
fn usable_bytes_can_be_used() {
    let _turn = begin();
    let mut blocks = Vec::new();
    for align in [1, 16, 64, 4096, 1 << 17] {
        for size in sizes().step_by(if align > 64 { 9 } else { 1 }) {
            let block = raw::alloc(size, align);
            assert!(!block.is_null() && block.addr().is_multiple_of(align));
            // SAFETY: the block is live.
            let usable = unsafe { raw::usable_size(block) };
            assert!(usable >= size, "{size} aligned {align}: {usable}");
            let byte = size.to_le_bytes()[0];
            // SAFETY: the claim under test.
            unsafe { block.write_bytes(byte, usable) };
            blocks.push((block, usable, byte));
            if blocks.len() > 40 {
                let (oldest, usable, byte) = blocks.remove(blocks.len() * 7 % 41);
                // SAFETY: live until the next line.
                let bytes = unsafe { core::slice::from_raw_parts(oldest, usable) };
                assert!(bytes.iter().all(|found| *found == byte));
                free(oldest);
            }
        }
    }
    for (block, _, _) in blocks {
        free(block);
    }
    // SAFETY: null is no block.
    assert_eq!(unsafe { raw::usable_size(ptr::null()) }, 0);
    free(ptr::null_mut());
    verify();
}

/// From any size to any other, in place or not, the contents stay.
#[test]
fn contents_survive_every_change_of_size() {
    let _turn = begin();
    let ladder = [
        1,
        16,
        17,
        100,
        1000,
        1024,
        5000,
        32768,
        40000,
        262_144,
        300_000,
        1 << 20,
        3 << 20,
        9 << 20,
    ];
    expect_flat(|| {
        for before in ladder {
            for after in ladder {
                let block = raw::alloc(before, raw::ALIGN);
                // SAFETY: this long.
                unsafe { block.write_bytes(0xa7, before) };
                // SAFETY: live; the old block is not used again.
                let moved = unsafe { raw::realloc(block, after) };
                assert!(!moved.is_null() && moved.addr().is_multiple_of(raw::ALIGN));
                // SAFETY: this long.
                let bytes = unsafe { core::slice::from_raw_parts(moved, before.min(after)) };
                assert!(
                    bytes.iter().all(|byte| *byte == 0xa7),
                    "{before} to {after}"
                );
                free(moved);
            }
        }
    });
}

#[test]
fn what_no_process_can_have_is_null() {
    let _turn = begin();
    for size in [
        usize::MAX,
        usize::MAX - 15,
        isize::MAX as usize,
        isize::MAX as usize + 1,
        1 << 48,
    ] {
        assert!(raw::alloc(size, raw::ALIGN).is_null());
        assert!(raw::alloc_zeroed(size, 1).is_null());
        assert!(raw::alloc(100, 1 << 48).is_null());
        let block = Block::filled(&ALLOC, 100, 8, 5);
        // SAFETY: live.
        assert!(unsafe { raw::realloc(block.as_ptr(), size) }.is_null());
        block.check(5);
        block.free(&ALLOC);
    }
}

/// Blocks of every size go through four threads; the last frees them.
#[test]
fn blocks_freed_by_another_thread() {
    let _turn = begin();
    expect_flat(|| {
        let (first, mut last) = sync_channel(100);
        let mut threads = Vec::new();
        for _ in 0..3 {
            let (sender, receiver) = sync_channel(100);
            let before = core::mem::replace(&mut last, receiver);
            threads.push(thread::spawn(move || {
                for (block, tag) in before {
                    let block: Block = block;
                    block.check(tag);
                    let size = block.size();
                    let moved = block.realloc(&ALLOC, size * 3 / 2 + 1).expect("memory");
                    moved.fill(tag);
                    sender.send((moved, tag)).expect("the next one listens");
                }
            }));
        }
        threads.push(thread::spawn(move || {
            for (block, tag) in last {
                block.check(tag);
                block.free(&ALLOC);
            }
        }));
        for (tag, size) in sizes()
            .filter(|size| *size > 0)
            .chain([300_000, 700_000, 2 << 20])
            .enumerate()
        {
            let parcel = (Block::filled(&ALLOC, size, 16, tag), tag);
            first.send(parcel).expect("the first one listens");
        }
        drop(first);
        threads
            .into_iter()
            .for_each(|thread| thread.join().expect("no panic"));
    });
}

/// Slabs become spans and mappings, and the other way round: what was noted of an address does not outlive
/// what it was noted for.
#[test]
fn addresses_change_their_use() {
    let _turn = begin();
    for _ in 0..2 {
        for size in [100, 300_000, 2000, 600_000, 50_000, 3 << 20] {
            let count = (16 << 20) / size;
            let blocks: Vec<Block> = (0..count.min(20_000))
                .map(|tag| Block::filled(&ALLOC, size, 8, tag))
                .collect();
            for (tag, block) in blocks.into_iter().enumerate() {
                block.check(tag);
                block.free(&ALLOC);
            }
            Flagstone::purge();
            verify();
        }
    }
}

const SURVIVED: &str = "nothing was noticed";

/// Wrong pointers of each kind end the process with one line.
#[test]
fn mistakes_are_named() {
    const NAME: &str = "mistakes_are_named";
    if let Some(scenario) = scenario() {
        raw::begin();
        let (mistake, size) = scenario.split_once(' ').expect("two words");
        make(mistake, size.parse().expect("a number"));
        writeln!(io::stdout(), "{SURVIVED}").expect("a message");
        process::exit(0);
    }
    let _turn = begin();
    const FOREIGN: &str = "not allocated here";
    const DOUBLE: &str = "double free";
    for (mistake, words) in [
        ("twice", &[DOUBLE, FOREIGN][..]),
        // With canaries and without checks, there is none at the end.
        ("inside", &["into the middle", "past the end", FOREIGN]),
        ("stack", &[FOREIGN]),
        ("number", &[FOREIGN]),
        ("high", &[FOREIGN]),
        ("usable-stack", &[FOREIGN]),
        ("realloc-stack", &[FOREIGN]),
    ] {
        for size in [20, 3000, 50_000, 500_000, 2 << 20] {
            let exit: Exit = run_child(NAME, &format!("{mistake} {size}"));
            let lines: Vec<&str> = exit
                .stderr
                .lines()
                .filter(|line| line.starts_with("flagstone: "))
                .collect();
            assert_eq!(
                exit.signal,
                Some(libc::SIGABRT),
                "{mistake} {size}: {}",
                exit.stderr
            );
            // A sampled block, as one in some is where samples are taken, has its history told behind that line.
            let is_sampled = lines.first().is_some_and(|line| line.contains("sampled"));
            assert!(
                lines.len() == 1 || is_sampled,
                "{mistake} {size}: {}",
                exit.stderr
            );
            assert!(
                words.iter().any(|word| lines[0].contains(word)),
                "{mistake} {size}: {}",
                lines[0]
            );
        }
    }
}

/// What is said fits the call: who frees nothing frees nothing twice, and who frees what never was a block may
/// have freed nothing before.
#[test]
fn words_fit_the_call() {
    const NAME: &str = "words_fit_the_call";
    if let Some(scenario) = scenario() {
        raw::begin();
        let (mistake, size) = scenario.split_once(' ').expect("two words");
        make(mistake, size.parse().expect("a number"));
        writeln!(io::stdout(), "{SURVIVED}").expect("a message");
        process::exit(0);
    }
    // It has these options in any case.
    if is_again() {
        return;
    }
    const NONE: &str = "";
    const USABLE_FREED: &str = "usable size of a freed block";
    const USABLE_INSIDE: &str = "usable size of a pointer into the middle of a block";
    const USABLE_FOREIGN: &str =
        "usable size of a pointer that was not allocated here, or whose memory went back";
    const REALLOC_FREED: &str = "realloc of a freed block";
    const REALLOC_ERASED: &str = "realloc of a freed block, or zeros written past the end of a block, or realloc with another size";
    const REALLOC_INSIDE: &str = "realloc of a pointer into the middle of a block";
    const REALLOC_FOREIGN: &str =
        "realloc of a pointer that was not allocated here, or whose memory went back";
    const FREE_VACANT: &str = "double free, or free of a pointer that never was a block";
    /// Safeguards, and how many allocations for each that is sampled.
    const OPTIONS: [(&str, &str); 4] = [("0", "0"), ("canaries", "0"), ("1", "0"), ("0", "1")];
    // Of a small block, a span, which is a mapping with safeguards, and a mapping, with each of the options; nothing where it
    // is not noticed, or not by the call, or there is no such place.
    for (mistake, small, span, mapping) in [
        (
            "usable-freed",
            [NONE, NONE, USABLE_FREED, USABLE_FREED],
            [USABLE_FREED; 4],
            [USABLE_FREED; 4],
        ),
        (
            "usable-inside",
            [NONE, NONE, USABLE_INSIDE, USABLE_INSIDE],
            [USABLE_INSIDE; 4],
            [USABLE_INSIDE; 4],
        ),
        (
            "usable-stack",
            [USABLE_FOREIGN; 4],
            [USABLE_FOREIGN; 4],
            [USABLE_FOREIGN; 4],
        ),
        (
            "realloc-freed",
            [NONE, REALLOC_ERASED, REALLOC_FREED, REALLOC_FREED],
            [REALLOC_FREED; 4],
            [REALLOC_FREED; 4],
        ),
        (
            "realloc-inside",
            [NONE, REALLOC_INSIDE, REALLOC_INSIDE, REALLOC_INSIDE],
            [REALLOC_INSIDE; 4],
            [REALLOC_INSIDE; 4],
        ),
        (
            "realloc-stack",
            [REALLOC_FOREIGN; 4],
            [REALLOC_FOREIGN; 4],
            [REALLOC_FOREIGN; 4],
        ),
        (
            "vacant",
            [FREE_VACANT, FREE_VACANT, FREE_VACANT, NONE],
            [FREE_VACANT, NONE, NONE, NONE],
            [NONE; 4],
        ),
    ] {
        for (size, words) in [(20, small), (300_000, span), (2 << 20, mapping)] {
            for (options, words) in OPTIONS.into_iter().zip(words) {
                if words == NONE {
                    continue;
                }
                let (hardened, sample) = options;
                let options = [
                    ("FLAGSTONE_HARDENED", hardened),
                    ("FLAGSTONE_SAMPLE", sample),
                ];
                let exit = run_child_with(NAME, &format!("{mistake} {size}"), &options);
                let line = exit.stderr.strip_prefix("flagstone: ");
                let found = line.and_then(|line| line.split_once(": 0x"));
                let said = found.map(|(said, _)| said);
                assert_eq!(said, Some(words), "{mistake} {size} {options:?}: {exit:?}");
            }
        }
    }
}

fn make(mistake: &str, size: usize) {
    let block = raw::alloc(size, raw::ALIGN);
    let local = [0_u64; 8];
    let stack = local.as_ptr().cast_mut().cast::<u8>();
    let number = |address: usize| ptr::without_provenance_mut::<u8>(address);
    match mistake {
        "twice" => {
            free(block);
            free(block);
        }
        "inside" => free(block.wrapping_add(8)),
        "stack" => free(stack),
        "number" => free(number(0x1234_5678)),
        "high" => free(number(0xdead_beef_dead_beef)),
        // SAFETY: wrong on purpose.
        "usable-stack" => assert_eq!(unsafe { raw::usable_size(stack) }, 0),
        // SAFETY: as above.
        "usable-inside" => assert_eq!(unsafe { raw::usable_size(block.wrapping_add(8)) }, 0),
        "usable-freed" => {
            free(block);
            // SAFETY: as above.
            assert_eq!(unsafe { raw::usable_size(block) }, 0);
        }
        "realloc-inside" => {
            // SAFETY: as above.
            assert!(unsafe { raw::realloc(block.wrapping_add(8), 2 * size) }.is_null());
        }
        "realloc-freed" => {
            free(block);
            // SAFETY: as above.
            assert!(unsafe { raw::realloc(block, 2 * size) }.is_null());
        }
        // At the end of a chunk, whose units are taken from its beginning on.
        "vacant" => free(block.map_addr(|address| (address | ((4 << 20) - 1)) - 15)),
        // SAFETY: as above.
        "realloc-stack" => assert!(unsafe { raw::realloc(stack, size) }.is_null()),
        other => panic!("{other}"),
    }
    // What is not noticed at once is when the blocks leave the thread.
    let more: Vec<Block> = (0..3000.min((64 << 20) / size))
        .map(|tag| Block::filled(&ALLOC, size, 8, tag))
        .collect();
    more.into_iter().for_each(|block| block.free(&ALLOC));
    Flagstone::purge();
}

#[test]
fn options_change_while_the_process_runs() {
    let _turn = begin();
    Flagstone::purge();
    assert_eq!(raw::set_option("FLAGSTONE_LARGE_CACHE", b"0"), Ok(()));
    let before = stats().committed;
    Block::filled(&ALLOC, 20 << 20, 8, 1).free(&ALLOC);
    assert!(
        stats().committed < before + (20 << 20),
        "the mapping went back at once"
    );
    assert_eq!(raw::set_option("FLAGSTONE_LARGE_CACHE", b"64M"), Ok(()));
    Block::filled(&ALLOC, 20 << 20, 8, 1).free(&ALLOC);
    assert!(
        stats().committed >= before + (20 << 20),
        "the mapping was kept"
    );
    Flagstone::purge();
    assert_eq!(
        raw::set_option("FLAGSTONE_LARGE_CACHE", b"much"),
        Err(OptionError::Value)
    );
    assert_eq!(raw::set_option("LARGE_CACHE", b"0"), Err(OptionError::Name));
    assert_eq!(
        raw::set_option("FLAGSTONE_HARDENED", b"1"),
        Err(OptionError::Decided)
    );
    assert_eq!(
        raw::set_option("FLAGSTONE_SAMPLE", b"1"),
        Err(OptionError::Decided)
    );
    assert!(live() > 0);
}

#[test]
fn again_hardened() {
    again("again_", ("FLAGSTONE_HARDENED", "1"));
}

#[test]
fn again_sampled() {
    again("again_", ("FLAGSTONE_SAMPLE", "50"));
}

#[test]
fn again_with_canaries() {
    again("again_", ("FLAGSTONE_HARDENED", "canaries"));
}
