//! Without this, the background thread could start in a program of one thread, or not end when one is left; nothing
//! would say that it starts when it should, once only, and not at every call where it cannot.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
mod common;

use core::panic::AssertUnwindSafe;
use std::fs;
use std::panic::catch_unwind;
use std::sync::mpsc;
use std::thread;

use common::block::Block;
use common::child::{again_hardened, alone, is_again};
use common::process::{resident, until, verify, without_huge_pages};
use flagstone::{Background, Config, Flagstone, failpoints};

/// What no variable says is what this says.
#[global_allocator]
static ALLOC: Flagstone =
    Flagstone::with_config(Config::new().purge_delay_ms(20).background(Background::Off));

const MIB: usize = 1 << 20;
/// Enough to be worth a thread.
const MUCH: usize = 32 * MIB;

const AUTO: (&str, &str) = ("FLAGSTONE_BACKGROUND", "auto");
const ON: (&str, &str) = ("FLAGSTONE_BACKGROUND", "on");
/// Nothing goes back by its age.
const NEVER: (&str, &str) = ("FLAGSTONE_PURGE_DELAY_MS", "4000000000");

/// Threads of this process, in the kernel's list.
fn threads() -> usize {
    fs::read_dir("/proc/self/task").expect("a list").count()
}

/// Threads that bear the background thread's name.
fn background_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("a list of threads");
    let names = tasks.map(|task| fs::read_to_string(task.expect("a thread").path().join("comm")));
    names
        .filter(|name| matches!(name, Ok(name) if name.trim_end() == "flagstone"))
        .count()
}

/// Allocates much and frees it, by slow calls.
fn free_much() {
    let blocks: Vec<Block> = (0..MUCH / (768 << 10))
        .map(|tag| Block::filled(&ALLOC, 768 << 10, 8, tag))
        .collect();
    blocks.into_iter().for_each(|block| block.free(&ALLOC));
}

/// Runs `body` in a child of `fork`, which has one thread, and waits for it.
#[track_caller]
fn in_a_child(body: impl FnOnce()) {
    // SAFETY: the child goes on with this thread alone.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: `alarm` has no preconditions.
        unsafe { libc::alarm(100) };
        let failed = catch_unwind(AssertUnwindSafe(body)).is_err();
        // SAFETY: ends the child at once, which is what is wanted.
        unsafe { libc::_exit(i32::from(failed)) };
    }
    let mut status = 0;
    // SAFETY: `status` is writable.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child failed");
}

/// A thread that has allocated, and sleeps until it is told to end.
struct Other(mpsc::Sender<()>, thread::JoinHandle<()>);

impl Other {
    fn begin() -> Self {
        let (end, is_end) = mpsc::channel();
        let (begun, has_begun) = mpsc::channel();
        let handle = thread::spawn(move || {
            Block::filled(&ALLOC, 100, 8, 1).free(&ALLOC);
            begun.send(()).expect("somebody waits");
            is_end.recv().expect("a word");
        });
        has_begun.recv().expect("it has begun");
        Self(end, handle)
    }

    fn end(self) {
        self.0.send(()).expect("it waits");
        self.1.join().expect("it ends");
    }
}

#[test]
fn it_is_there_while_there_are_two_threads() {
    alone("it_is_there_while_there_are_two_threads", &[AUTO], || {
        in_a_child(|| {
            free_much();
            assert_eq!(threads(), 1, "beside one thread");
            for _ in 0..8 {
                let other = Other::begin();
                assert!(threads() <= 3);
                free_much();
                until(|| background_threads() == 1);
                free_much();
                assert_eq!(threads(), 3);
                other.end();
                until(|| threads() == 1);
                free_much();
                assert_eq!(threads(), 1, "beside one thread again");
            }
            verify();
        });
    });
}

/// The end of the second thread is none of the background thread's if a third has begun.
#[test]
fn it_is_one_thread_whoever_comes_and_goes() {
    alone("it_is_one_thread_whoever_comes_and_goes", &[AUTO], || {
        in_a_child(|| {
            for _ in 0..8 {
                let other = Other::begin();
                free_much();
                other.end();
                let next = Other::begin();
                free_much();
                // One that ends touches nothing, but the kernel may still know it.
                until(|| background_threads() == 1);
                next.end();
            }
            until(|| threads() == 1);
            verify();
        });
    });
}

#[test]
fn what_two_threads_left_goes_back() {
    alone("what_two_threads_left_goes_back", &[AUTO], || {
        without_huge_pages();
        let other = Other::begin();
        let before = resident();
        let mut blocks = Vec::with_capacity(MUCH / 500);
        blocks.extend((0..blocks.capacity()).map(|tag| Block::filled(&ALLOC, 500, 8, tag)));
        assert!(resident() > before + MUCH - MIB);
        blocks.drain(..).for_each(|block| block.free(&ALLOC));
        until(|| resident() < before + 8 * MIB);
        other.end();
    });
}

/// Blocks that lie in slabs among live ones are worth it, too.
#[test]
fn holes_are_worth_it() {
    alone("holes_are_worth_it", &[AUTO], || {
        let other = Other::begin();
        let mut blocks: Vec<_> = (0..MUCH / 500)
            .map(|tag| Some(Block::filled(&ALLOC, 500, 8, tag)))
            .collect();
        for (_, block) in (blocks.iter_mut().enumerate()).filter(|(index, _)| index % 64 != 0) {
            block.take().expect("a block").free(&ALLOC);
        }
        until(|| background_threads() == 1);
        blocks
            .into_iter()
            .flatten()
            .for_each(|block| block.free(&ALLOC));
        other.end();
    });
}

#[test]
fn little_memory_is_not_worth_it() {
    alone("little_memory_is_not_worth_it", &[AUTO, NEVER], || {
        let other = Other::begin();
        let before = threads();
        for _ in 0..100 {
            let blocks = [1, 2, 3, 4].map(|tag| Block::filled(&ALLOC, MIB, 8, tag));
            blocks.into_iter().for_each(|block| block.free(&ALLOC));
        }
        assert_eq!(threads(), before);
        free_much();
        assert_eq!(threads(), before + 1);
        other.end();
    });
}

/// The process must end once its own threads have, although its first one did so alone.
#[test]
fn a_process_ends_with_its_last_thread() {
    alone("a_process_ends_with_its_last_thread", &[AUTO], || {
        in_a_child(|| {
            // A slow call, which counts this thread as the child's.
            Block::filled(&ALLOC, MIB, 8, 1).free(&ALLOC);
            let other = thread::spawn(|| {
                free_much();
                until(|| background_threads() == 1);
                // Until the first thread is gone.
                until(|| {
                    let stat = fs::read_to_string("/proc/self/stat").expect("a state");
                    stat.contains(") Z ")
                });
            });
            drop(other);
            until(|| background_threads() == 1);
            // SAFETY: ends this thread only, whose stack others have nothing of.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        });
    });
}

#[test]
fn a_start_that_fails_is_not_tried_each_time() {
    // With safeguards frees ask the kernel for more.
    if is_again() {
        return;
    }
    let name = "a_start_that_fails_is_not_tried_each_time";
    alone(name, &[AUTO, NEVER], || {
        let other = Other::begin();
        let blocks: Vec<_> = (0..60)
            .map(|tag| Block::filled(&ALLOC, 700 << 10, 8, tag))
            .collect();
        failpoints::refuse_after(0, true);
        blocks.into_iter().for_each(|block| block.free(&ALLOC));
        for _ in 0..1_000 {
            Block::filled(&ALLOC, 700 << 10, 8, 1).free(&ALLOC);
        }
        // Nothing else was to be asked of the kernel.
        assert_eq!(failpoints::refuse_none(), 1);
        assert_eq!(background_threads(), 0);
        // By request it starts all the same.
        ALLOC.start_background().expect("a background thread");
        until(|| background_threads() == 1);
        other.end();
    });
}

#[test]
fn one_that_was_asked_for_stays() {
    alone("one_that_was_asked_for_stays", &[AUTO], || {
        without_huge_pages();
        in_a_child(|| {
            let other = Other::begin();
            let before = resident();
            free_much();
            until(|| background_threads() == 1);
            ALLOC.start_background().expect("the same thread");
            other.end();
            until(|| threads() == 2);
            let other = Other::begin();
            assert_eq!(threads(), 3);
            other.end();
            until(|| threads() == 2);
            // It sleeps, or is about to, and works on.
            free_much();
            until(|| resident() < before + MUCH / 2);
            assert_eq!(background_threads(), 1);
        });
    });
}

#[test]
fn if_it_is_on_it_begins_with_the_program() {
    alone("if_it_is_on_it_begins_with_the_program", &[ON], || {
        until(|| background_threads() == 1);
        // A child has none before it has two threads.
        in_a_child(|| {
            free_much();
            assert_eq!(threads(), 1);
            let other = Other::begin();
            free_much();
            until(|| background_threads() == 1);
            other.end();
            until(|| threads() == 1);
        });
    });
}

#[test]
fn if_it_is_off_there_is_none() {
    alone("if_it_is_off_there_is_none", &[], || {
        let other = Other::begin();
        let before = threads();
        free_much();
        assert_eq!(threads(), before);
        other.end();
    });
}

#[test]
fn again_with_safeguards() {
    again_hardened("again");
}
