//! Without this, sampled allocations could miss what they are for, say nothing useful, or break programs.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
mod common;

use core::alloc::{GlobalAlloc, Layout};
use std::io::{self, Write};
use std::process;

use common::block::Block;
use common::child::{Exit, run_child_with, scenario};
use common::process::{begin, is_readable, page_size, verify};
use common::program::{generate, run};
use flagstone::{Background, Config, Flagstone};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::with_config(Config::new().background(Background::Off));

const SAMPLE: &str = "FLAGSTONE_SAMPLE";
const UNNOTICED: &str = "nothing was noticed";

/// What a program does to a block of [`SIZE`] bytes.
#[derive(Clone, Copy, Debug)]
enum Mistake {
    ReadAfterFree,
    WriteAfterFree,
    ReadPastEnd,
    WriteBefore,
    WriteBetween,
    FreeTwice,
    FreeInside,
    FreeAsAnotherSize,
}

const MISTAKES: [(Mistake, &str, Option<i32>); 8] = [
    (Mistake::ReadAfterFree, "use after free", None),
    (Mistake::WriteAfterFree, "use after free", None),
    (Mistake::ReadPastEnd, "overflow", None),
    (Mistake::WriteBefore, "underflow", None),
    (
        Mistake::WriteBetween,
        "write beside a block",
        Some(libc::SIGABRT),
    ),
    (Mistake::FreeTwice, "double free", Some(libc::SIGABRT)),
    (
        Mistake::FreeInside,
        "free of a pointer into the middle",
        Some(libc::SIGABRT),
    ),
    (
        Mistake::FreeAsAnotherSize,
        "free with another size",
        Some(libc::SIGABRT),
    ),
];

/// Not a multiple of 8: there is a gap between block and page end.
const SIZE: usize = 43;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

/// A sampled block, which ends where its page does or begins there.
#[inline(never)]
fn a_sampled_block(at_end: bool) -> *mut u8 {
    for _ in 0..10_000 {
        // SAFETY: the size is not 0.
        let block = unsafe { ALLOC.alloc(layout(SIZE)) };
        let page = block.addr() - block.addr() % page_size();
        let wanted = if at_end {
            page_size() - SIZE.next_multiple_of(8)
        } else {
            0
        };
        // Any other block may begin or end with its page too.
        let is_alone = !is_readable(page - 1) && !is_readable(page + page_size());
        if block.addr() - page == wanted && is_alone {
            return block;
        }
        // SAFETY: allocated above.
        unsafe { ALLOC.dealloc(block, layout(SIZE)) };
    }
    panic!("no block was sampled");
}

#[inline(never)]
fn free_it(block: *mut u8, size: usize) {
    // SAFETY: right or wrong on purpose, in a child process.
    unsafe { ALLOC.dealloc(block, layout(size)) };
}

fn make(mistake: Mistake) {
    let block = a_sampled_block(!matches!(mistake, Mistake::WriteBefore));
    // SAFETY: wrong on purpose, in a child process.
    let read = |offset: usize| unsafe { block.wrapping_add(offset).read_volatile() };
    // SAFETY: as above.
    let write = |offset: isize| unsafe { block.wrapping_offset(offset).write_volatile(7) };
    match mistake {
        Mistake::ReadAfterFree => {
            free_it(block, SIZE);
            read(5);
        }
        Mistake::WriteAfterFree => {
            free_it(block, SIZE);
            write(0);
        }
        Mistake::ReadPastEnd => {
            read(SIZE.next_multiple_of(8));
        }
        Mistake::WriteBefore => write(-1),
        Mistake::WriteBetween => {
            write(43);
            free_it(block, SIZE);
        }
        Mistake::FreeTwice => {
            free_it(block, SIZE);
            free_it(block, SIZE);
        }
        Mistake::FreeInside => free_it(block.wrapping_add(8), SIZE),
        Mistake::FreeAsAnotherSize => free_it(block, SIZE + 1),
    }
}

#[test]
fn mistakes_are_reported_with_their_history() {
    const NAME: &str = "mistakes_are_reported_with_their_history";
    let _turn = begin();
    if let Some(number) = scenario() {
        make(MISTAKES[number.parse::<usize>().expect("a number")].0);
        writeln!(io::stdout(), "{UNNOTICED}").expect("a message");
        process::exit(0);
    }
    for (number, (mistake, words, signal)) in MISTAKES.iter().enumerate() {
        let exit = run_child_with(NAME, &number.to_string(), &[(SAMPLE, "10")]);
        assert!(!exit.stdout.contains(UNNOTICED), "{mistake:?}: {exit:?}");
        let faults = [libc::SIGSEGV, libc::SIGBUS];
        let ends = match signal {
            Some(signal) => exit.signal == Some(*signal),
            None => exit.signal.is_some_and(|signal| faults.contains(&signal)),
        };
        assert!(ends, "{mistake:?}: {exit:?}");
        let first = exit
            .stderr
            .lines()
            .find(|line| line.starts_with("flagstone: "));
        assert!(
            first.is_some_and(|line| line.contains(words) && line.contains("thread ")),
            "{mistake:?}: {exit:?}"
        );
        check_history(*mistake, &exit);
    }
}

/// The report says where the block was allocated, and where it was freed if it was.
fn check_history(mistake: Mistake, exit: &Exit) {
    let stderr = &exit.stderr;
    assert!(stderr.contains("a block of 43 bytes at 0x"), "{stderr}");
    let trace = |what: &str| -> Vec<&str> {
        let mut lines = stderr.lines().skip_while(|line| !line.contains(what));
        lines.next();
        lines.take_while(|line| line.contains("  #")).collect()
    };
    let own = std::env::current_exe().expect("a path");
    let own = own.to_str().expect("UTF-8");
    let names_us = |frames: &[&str]| frames.iter().any(|frame| frame.contains(own));
    let allocated = trace("allocated by thread");
    assert!(names_us(&allocated), "{mistake:?}: {stderr}");
    let is_freed = matches!(
        mistake,
        Mistake::ReadAfterFree | Mistake::WriteAfterFree | Mistake::FreeTwice
    );
    assert_eq!(
        names_us(&trace("freed by thread")),
        is_freed,
        "{mistake:?}: {stderr}"
    );
}

/// A fault that has nothing to do with samples ends as it would without.
#[test]
fn other_faults_are_not_ours() {
    const NAME: &str = "other_faults_are_not_ours";
    let _turn = begin();
    if scenario().is_some() {
        let _ = a_sampled_block(true);
        let nothing: *mut u8 = core::ptr::without_provenance_mut(64);
        // SAFETY: wrong on purpose, in a child process.
        unsafe { nothing.write_volatile(1) };
        return;
    }
    let exit = run_child_with(NAME, "", &[(SAMPLE, "10")]);
    assert_eq!(exit.signal, Some(libc::SIGSEGV), "{exit:?}");
    assert!(!exit.stderr.contains("flagstone: "), "{exit:?}");
}

/// Right programs get right answers, however many of their blocks are sampled, hardened or not.
#[test]
fn right_programs_run_to_their_end() {
    const NAME: &str = "right_programs_run_to_their_end";
    let _turn = begin();
    if scenario().is_some() {
        for seed in 0..3 {
            if let Err(fault) = run(&ALLOC, &generate(seed)) {
                panic!("seed {seed}: {fault}");
            }
        }
        verify();
        writeln!(io::stdout(), "{UNNOTICED}").expect("a message");
        return;
    }
    for (rate, hardened) in [("1", "0"), ("3", "0"), ("100", "1")] {
        let options = [(SAMPLE, rate), ("FLAGSTONE_HARDENED", hardened)];
        let exit = run_child_with(NAME, "", &options);
        assert!(exit.stdout.contains(UNNOTICED), "{options:?}: {exit:?}");
    }
}

/// One in so many is sampled: of a thousand, as many as chance allows by ten deviations.
#[test]
fn the_rate_is_what_was_asked_for() {
    const NAME: &str = "the_rate_is_what_was_asked_for";
    const RATE: usize = 1_000;
    let _turn = begin();
    if scenario().is_some() {
        let pair = || {
            let block = Block::alloc(&ALLOC, layout(SIZE)).expect("memory");
            let address = block.addr();
            block.free(&ALLOC);
            address
        };
        // Without a sample it is the same block each time, once the thread has a magazine.
        for _ in 0..100 {
            let _ = pair();
        }
        let usual = loop {
            let address = pair();
            if pair() == address {
                break address;
            }
        };
        let samples = (0..1_000 * RATE).filter(|_| pair() != usual).count();
        println!("samples: {samples}");
        return;
    }
    let exit = run_child_with(NAME, "", &[(SAMPLE, "1000")]);
    let samples: Option<usize> = exit.stdout.lines().find_map(|line| {
        let (_, number) = line.split_once("samples: ")?;
        number.parse().ok()
    });
    let samples = samples.unwrap_or_else(|| panic!("{exit:?}"));
    assert!((800..1_200).contains(&samples), "{samples} of 1000");
}

/// With every place taken by a live block, allocations go on elsewhere; freed places are used again.
#[test]
fn the_pool_may_be_full() {
    const NAME: &str = "the_pool_may_be_full";
    let _turn = begin();
    if scenario().is_some() {
        for round in 0..3 {
            let blocks: Vec<_> = (0..1_000)
                .map(|tag| Block::filled(&ALLOC, SIZE, 8, tag + round))
                .collect();
            for (tag, block) in blocks.into_iter().enumerate() {
                block.check(tag + round);
                block.free(&ALLOC);
            }
        }
        writeln!(io::stdout(), "{UNNOTICED}").expect("a message");
        return;
    }
    let exit = run_child_with(NAME, "", &[(SAMPLE, "1")]);
    assert!(exit.stdout.contains(UNNOTICED), "{exit:?}");
}

/// Places that one thread frees are taken by others at once.
#[test]
fn threads_share_the_pool() {
    const NAME: &str = "threads_share_the_pool";
    let _turn = begin();
    if scenario().is_some() {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for round in 0..2_000 {
                        let blocks: Vec<_> = (0..20)
                            .map(|tag| Block::filled(&ALLOC, SIZE, 8, thread + round + tag))
                            .collect();
                        for (tag, block) in blocks.into_iter().enumerate() {
                            block.check(thread + round + tag);
                            block.free(&ALLOC);
                        }
                    }
                });
            }
        });
        writeln!(io::stdout(), "{UNNOTICED}").expect("a message");
        return;
    }
    for rate in ["1", "50"] {
        let exit = run_child_with(NAME, "", &[(SAMPLE, rate)]);
        assert!(exit.stdout.contains(UNNOTICED), "{rate}: {exit:?}");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a program with mappings of its own"
)]
extern "C" fn repair(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid description.
    let info = unsafe { &*info };
    // SAFETY: a fault has an address.
    let address = unsafe { info.si_addr() };
    let page = address.map_addr(|address| address & !(page_size() - 1));
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the page is the test's own.
    let result = unsafe { libc::mprotect(page, page_size(), access) };
    assert_eq!(result, 0, "mprotect refused");
}

/// A program that handles its own faults goes on doing so, however many there are.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a program with mappings of its own"
)]
fn a_handler_that_was_there_is_called() {
    const NAME: &str = "a_handler_that_was_there_is_called";
    const PAGES: usize = 200;
    let _turn = begin();
    if scenario().is_some() {
        // SAFETY: all zero is an action.
        let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
        let handler: extern "C" fn(_, _, _) = repair;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: the action is initialised, and its handler makes one system call.
        let result =
            unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, core::ptr::null_mut()) };
        assert_eq!(result, 0, "sigaction refused");
        // The handlers of samples are installed on top.
        let _ = a_sampled_block(true);
        let length = PAGES * page_size();
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let none = libc::PROT_NONE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let pages = unsafe { libc::mmap(core::ptr::null_mut(), length, none, kind, -1, 0) };
        for page in 0..PAGES {
            let place = pages.cast::<u8>().wrapping_add(page * page_size());
            // SAFETY: inside the mapping; the handler makes it writable.
            unsafe { place.write_volatile(1) };
        }
        writeln!(io::stdout(), "{UNNOTICED}").expect("a message");
        return;
    }
    let exit = run_child_with(NAME, "", &[(SAMPLE, "10")]);
    assert!(exit.stdout.contains(UNNOTICED), "{exit:?}");
}
