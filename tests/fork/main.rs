//! Without this, a forked child could hang, lose the memory of threads that are gone, or get it twice.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
#[path = "../common/mod.rs"]
mod common;

mod actor;
mod busy;
mod child;
mod crew;
mod estate;
mod inside;
mod stdio;
mod steps;
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
mod stores;

use std::os::unix::process::CommandExt;
use std::process::Command;

use child::{alone, expect_panics, fork, share};
use common::block::Block;
use common::process::{begin, live, stats, verify};
use common::raw_thread::on_raw_thread;
use crew::Crew;
use estate::{Estate, MAGAZINES, use_all_sizes};
use flagstone::{Background, Config, Flagstone};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::with_config(Config::new().background(Background::Off));

/// Sizes of classes, and so many bytes of each that they do not fit in a magazine.
const CLASSES: [usize; 7] = [16, 48, 96, 1_024, 4_096, 20_480, 98_304];
const FILL: usize = 400 << 10;

/// Leaves the thread with full magazines of some classes.
fn fill_magazines() {
    // A span, not a block of a class.
    let mut blocks = Vec::with_capacity(FILL / CLASSES[0]);
    for size in CLASSES {
        for _ in 0..3 {
            blocks.extend((0..FILL / size).map(|tag| Block::filled(&ALLOC, size, 8, tag)));
            blocks.drain(..).for_each(|block| block.free(&ALLOC));
        }
    }
}

/// With one thread nothing is in the middle of anything, and nothing is lost.
#[test]
fn a_single_thread_inherits_everything() {
    let _turn = begin();
    alone(|| {
        fill_magazines();
        let mut estate = Estate::new();
        let before = stats();
        let mut check = || {
            verify();
            let after = stats();
            assert_eq!((after.live, after.cached), (before.live, before.cached));
            use_all_sizes();
            assert_eq!(live(), before.live);
            estate.expect_all_in_place();
            estate.free_theirs();
            assert_eq!(live(), estate.base());
            Flagstone::purge();
            verify();
            let end = stats();
            assert_eq!((end.live, end.cached), (estate.base(), 0));
        };
        fork(&mut check).expect_fine();
        fork(|| estate.examine(Vec::new(), 0)).expect_fine();
        // The parent goes on with all of it, too.
        estate.settle();
    });
}

/// The child's other threads may be faster than the one that came from the parent, which still has its
/// magazines.
#[test]
fn a_new_thread_may_be_the_first_to_ask() {
    let _turn = begin();
    alone(|| {
        // What the harness's threads have left would be the new one's.
        Flagstone::purge();
        fill_magazines();
        let mut estate = Estate::new();
        let before = stats();
        let check = || {
            on_raw_thread(&mut (), |()| {
                use_all_sizes();
                verify();
            });
            let after = stats();
            assert_eq!((after.live, after.cached), (before.live, before.cached));
            estate.examine(Vec::new(), 0);
        };
        fork(check).expect_fine();
    });
}

/// Of a thread that is gone and was not inside the allocator, the newest block of each magazine is lost
/// and nothing else.
#[test]
fn magazines_of_threads_that_are_gone_come_back() {
    const THREADS: usize = 8;
    let _turn = begin();
    alone(|| {
        // As above.
        Flagstone::purge();
        fill_magazines();
        let own = stats().cached;
        let crew = Crew::<THREADS>::gather(fill_magazines);
        let before = stats();
        let theirs = before.cached - own;
        assert!(
            theirs >= THREADS * (64 << 10),
            "{theirs} bytes in magazines"
        );
        let ended = fork(|| {
            // The first slow path of the child.
            let after = stats();
            assert_eq!(after.cached, own);
            let lost = after.live - before.live;
            // Blocks are up to a quarter longer than what was asked for.
            let newest = THREADS * CLASSES.iter().sum::<usize>() * 5 / 4;
            assert!(
                lost <= newest,
                "{lost} bytes lost, at most {newest} expected"
            );
            verify();
            Flagstone::purge();
            let end = stats();
            assert_eq!((end.live, end.cached), (after.live, 0));
            verify();
            fill_magazines();
            assert_eq!(live(), after.live);
        });
        crew.dismiss();
        ended.expect_fine();
    });
}

/// Children of children, before and after the first of them did anything, with threads of their own.
#[test]
fn grandchildren() {
    let _turn = begin();
    expect_panics();
    let mut estate = Estate::new();
    let crew = Crew::<2>::gather(fill_magazines);
    let ended = fork(|| {
        // Two generations of threads are gone: the harness's and the crew's, then another crew.
        fork(|| estate.examine(Vec::new(), 4 * MAGAZINES)).expect_fine();
        let crew = Crew::<2>::gather(fill_magazines);
        let ended = fork(|| {
            fork(|| estate.examine(Vec::new(), 8 * MAGAZINES)).expect_fine();
            estate.examine(Vec::new(), 8 * MAGAZINES);
        });
        crew.dismiss();
        ended.expect_fine();
        estate.examine(Vec::new(), 4 * MAGAZINES);
    });
    crew.dismiss();
    ended.expect_fine();
    estate.settle();
}

/// Programs are started by a child that shares the parent's memory, or by one that has a copy.
#[test]
fn programs_are_started_meanwhile() {
    const PROGRAMS: usize = 40;
    let _turn = begin();
    let start = |command: &mut Command| {
        let status = command.status().expect("a program that starts");
        assert!(status.success(), "{status:?}");
    };
    let busy = busy::Busy::start();
    for _ in 0..PROGRAMS {
        start(&mut Command::new("/bin/true"));
        let mut command = Command::new("/bin/true");
        let allocate = || {
            use_all_sizes();
            Ok(())
        };
        // SAFETY: `allocate` does nothing but use the allocator, which works in a forked child.
        unsafe { command.pre_exec(allocate) };
        start(&mut command);
    }
    drop(busy);
    verify();
}

/// To a child of `vfork`, which is another process, the threads that share its memory look dead.
#[test]
fn a_child_that_shares_the_memory_purges() {
    let _turn = begin();
    alone(|| {
        let crew = Crew::<4>::gather(fill_magazines);
        Flagstone::purge();
        let theirs = stats().cached;
        assert!(theirs > 0, "nothing in magazines");
        share(|| {
            Flagstone::purge();
        })
        .expect_fine();
        // And the child's stack, which is freed here.
        assert!(stats().cached >= theirs, "taken from the others");
        crew.dismiss();
        verify();
    });
}

#[test]
fn again_hardened() {
    common::child::again_hardened("again_hardened");
}
