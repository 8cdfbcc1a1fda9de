//! Without this, the background thread may sleep through memory that waits to go back, be started twice, take signals that
//! are the program's, or leave a child of `fork` waiting for a thread that is not there.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
mod common;

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::fs;
use std::panic::catch_unwind;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use common::block::{Block, take_slow_paths};
use common::child::{again, alone};
use common::process::{is_in_memory, mapped, resident, stats, until, verify, without_huge_pages};
use flagstone::{Background, Config, Flagstone, StartError, failpoints};

#[global_allocator]
static ALLOC: Flagstone =
    Flagstone::with_config(Config::new().purge_delay_ms(20).background(Background::Off));

const MIB: usize = 1 << 20;

/// The kernel's directories of the threads that bear the background thread's name.
fn background_threads() -> Vec<std::path::PathBuf> {
    let tasks = fs::read_dir("/proc/self/task").expect("a list of threads");
    let paths = tasks.map(|task| task.expect("a thread").path());
    let is_ours = |path: &std::path::PathBuf| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim_end() == "flagstone")
    };
    paths.filter(is_ours).collect()
}

/// Fills 64 MiB with small blocks, frees them, and waits until most of it has gone back, to about the `before` of all
/// rounds: some of a round's may still be on its way when the next begins.
#[track_caller]
fn spike(at_hand: &mut Vec<Block>, before: usize) {
    at_hand.extend((0..at_hand.capacity()).map(|tag| Block::filled(&ALLOC, 512, 8, tag)));
    let full = resident();
    assert!(full > before + 60 * MIB);
    at_hand.drain(..).for_each(|block| block.free(&ALLOC));
    until(|| resident() < before + 8 * MIB);
    verify();
}

#[test]
fn what_an_idle_program_freed_goes_back() {
    alone("what_an_idle_program_freed_goes_back", &[], || {
        without_huge_pages();
        let mut at_hand = Vec::with_capacity(128 << 10);
        ALLOC.start_background().expect("a background thread");
        ALLOC.start_background().expect("the same thread");
        // The second time it sleeps already, or is about to.
        let before = resident();
        for _ in 0..3 {
            spike(&mut at_hand, before);
        }
        assert_eq!(background_threads().len(), 1);
    });
}

#[test]
fn what_a_sleeping_thread_freed_goes_back() {
    alone("what_a_sleeping_thread_freed_goes_back", &[], || {
        without_huge_pages();
        ALLOC.start_background().expect("a background thread");
        let before = resident();
        let (done, all_done) = mpsc::channel();
        let (end, is_end) = mpsc::channel::<()>();
        let sleeper = thread::spawn(move || {
            let mut at_hand = Vec::with_capacity(128 << 10);
            at_hand.extend((0..at_hand.capacity()).map(|tag| Block::filled(&ALLOC, 512, 8, tag)));
            at_hand.drain(..).for_each(|block| block.free(&ALLOC));
            done.send(()).expect("somebody waits");
            is_end.recv().expect("a word");
        });
        all_done.recv().expect("the blocks are freed");
        until(|| resident() < before + 12 * MIB);
        end.send(()).expect("the sleeper waits");
        sleeper.join().expect("the sleeper ends");
        verify();
    });
}

/// Without the background thread.
#[test]
fn what_an_ended_thread_left_goes_back() {
    // With safeguards nothing is left.
    if std::env::var_os("FLAGSTONE_HARDENED").is_some() {
        return;
    }
    alone("what_an_ended_thread_left_goes_back", &[], || {
        let cached = || stats().cached;
        let before = cached();
        let leaves = || {
            let blocks: Vec<_> = (0..100)
                .map(|tag| Block::filled(&ALLOC, 3000, 8, tag))
                .collect();
            blocks.into_iter().for_each(|block| block.free(&ALLOC));
        };
        thread::spawn(leaves).join().expect("the thread ends");
        let left = cached();
        assert!(left > before + 100_000);
        // This thread goes on, by slow paths, which look at what is due.
        until(|| {
            (0..100).for_each(|_| take_slow_paths(&ALLOC));
            cached() + 100_000 < left
        });
    });
}

#[test]
fn a_freed_mapping_alone_wakes_it() {
    alone("a_freed_mapping_alone_wakes_it", &[], || {
        ALLOC.start_background().expect("a background thread");
        for _ in 0..3 {
            let block = Block::filled(&ALLOC, 20 * MIB, 8, 1);
            let full = mapped();
            block.free(&ALLOC);
            until(|| mapped() + 20 * MIB <= full);
            // Asleep, most likely, when the next one comes.
            thread::sleep(Duration::from_millis(100));
        }
        // A realloc that gives back is a free, too.
        let block = Block::filled(&ALLOC, 20 * MIB, 8, 1);
        thread::sleep(Duration::from_millis(100));
        let full = mapped();
        let block = block.realloc(&ALLOC, 2 * MIB).expect("memory");
        until(|| mapped() + 18 * MIB <= full);
        block.free(&ALLOC);
    });
}

/// How often the background thread has gone to sleep.
fn sleeps() -> u64 {
    let status = fs::read_to_string(background_threads()[0].join("status")).expect("a status");
    let switches = |line: &str| {
        line.strip_prefix("voluntary_ctxt_switches:")?
            .trim()
            .parse()
            .ok()
    };
    status.lines().find_map(switches).expect("a number")
}

/// What is freed and taken again from a magazine is nothing to give back: with safeguards, too, where each of these
/// calls is a slow path.
#[test]
fn a_busy_program_does_not_wake_it() {
    alone("a_busy_program_does_not_wake_it", &[], || {
        const DELAYS: u32 = 25;
        let is_busy = || {
            let begin = Instant::now();
            while begin.elapsed() < DELAYS * Duration::from_millis(20) {
                (0..100).for_each(|tag| Block::filled(&ALLOC, 100, 8, tag).free(&ALLOC));
            }
        };
        ALLOC.start_background().expect("a background thread");
        until(|| background_threads().len() == 1);
        // Magazines grow to what they need first, and then nothing is to be heard.
        until(|| {
            let before = sleeps();
            is_busy();
            sleeps() - before < u64::from(DELAYS / 5)
        });
    });
}

/// Who takes blocks from magazines and puts them back is alive, though no slow path hears of it: nothing is to go from
/// under it.
#[test]
fn a_program_on_fast_paths_is_not_idle() {
    const SIZE: usize = 16 << 10;
    // In quarantine, blocks of others pin pages.
    if std::env::var_os("FLAGSTONE_HARDENED").is_some() {
        return;
    }
    alone("a_program_on_fast_paths_is_not_idle", &[], || {
        without_huge_pages();
        ALLOC.start_background().expect("a background thread");
        until(|| background_threads().len() == 1);
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    Block::filled(&ALLOC, 100, 8, 1).free(&ALLOC);
                }
            });
            // What this thread keeps at hand, but for the newest.
            let blocks: Vec<_> = (0..16)
                .map(|tag| Block::filled(&ALLOC, SIZE, 8, tag))
                .collect();
            let pages: Vec<usize> = blocks.iter().map(|block| block.addr() + SIZE / 2).collect();
            blocks.into_iter().for_each(|block| block.free(&ALLOC));
            let are_there = || pages.iter().filter(|page| is_in_memory(**page)).count();
            let at_hand = are_there();
            // It has looked so often.
            let before = sleeps();
            until(|| sleeps() > before + 12);
            assert_eq!(are_there(), at_hand);
            is_done.store(true, Ordering::Relaxed);
            until(|| are_there() <= 2);
        });
        verify();
    });
}

#[test]
fn a_thread_that_is_refused_is_an_error() {
    alone("a_thread_that_is_refused_is_an_error", &[], || {
        failpoints::refuse_after(0, false);
        assert_eq!(ALLOC.start_background(), Err(StartError));
        assert!(failpoints::refuse_none() > 0);
        assert!(background_threads().is_empty());
        ALLOC.start_background().expect("a background thread");
        until(|| background_threads().len() == 1);
    });
}

#[test]
fn signals_are_the_programs() {
    alone("signals_are_the_programs", &[], || {
        // SAFETY: all zero is an empty set.
        let mut before: libc::sigset_t = unsafe { core::mem::zeroed() };
        // SAFETY: asks only.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, core::ptr::null(), &raw mut before) };
        ALLOC.start_background().expect("a background thread");
        // SAFETY: all zero is an empty set.
        let mut after: libc::sigset_t = unsafe { core::mem::zeroed() };
        // SAFETY: asks only.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, core::ptr::null(), &raw mut after) };
        for signal in 1..=31 {
            // SAFETY: two sets, filled above.
            let (old, new) = unsafe {
                let set = |set: &libc::sigset_t| libc::sigismember(set, signal);
                (set(&before), set(&after))
            };
            assert_eq!(old, new, "signal {signal}");
        }
        until(|| background_threads().len() == 1);
        let status = fs::read_to_string(background_threads()[0].join("status")).expect("a status");
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        let blocked = u64::from_str_radix(blocked.expect("a mask").trim(), 16).expect("a number");
        // Those that can be blocked, of the first 31.
        let fixed = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);
        assert_eq!(blocked & 0x7fff_ffff, 0x7fff_ffff & !fixed);
    });
}

#[test]
fn a_child_starts_its_own() {
    alone("a_child_starts_its_own", &[], || {
        without_huge_pages();
        let mut at_hand = Vec::with_capacity(128 << 10);
        ALLOC.start_background().expect("a background thread");
        spike(&mut at_hand, resident());
        for _ in 0..4 {
            // Now and then while the background thread holds locks.
            at_hand.extend((0..at_hand.capacity()).map(|tag| Block::filled(&ALLOC, 512, 8, tag)));
            at_hand.drain(..).for_each(|block| block.free(&ALLOC));
            // SAFETY: the child goes on with this thread alone, which calls the allocator only.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: `alarm` has no preconditions.
                unsafe { libc::alarm(60) };
                let begins = AssertUnwindSafe(|| {
                    Flagstone::purge();
                    assert!(background_threads().is_empty());
                    ALLOC.start_background().expect("a background thread");
                    spike(&mut at_hand, resident());
                    assert_eq!(background_threads().len(), 1);
                });
                let failed = catch_unwind(begins).is_err();
                // SAFETY: ends the child at once, which is what is wanted.
                unsafe { libc::_exit(i32::from(failed)) };
            }
            let mut status = 0;
            // SAFETY: `status` is writable.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "the child failed");
        }
    });
}

#[test]
fn again_hardened() {
    again("again", ("FLAGSTONE_HARDENED", "1"));
}

/// With these, long blocks have no guards, and are cut.
#[test]
fn again_with_checks() {
    again("again", ("FLAGSTONE_HARDENED", "checks"));
}
