//! Children of `fork` beside what is done once.

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use std::process;
use std::thread;

use flagstone::failpoints::{self, Callback, Point};

use super::common::child::{run_child_with, scenario};
use super::{get, go_to, put, stay_on_one_processor, step, until};

/// How a child of this process ended.
fn wait_for(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: the status is writable.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

/// Forks; the child ends with what `child` returns, or by an alarm.
fn fork(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child calls the allocator and ends.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: no precondition.
            unsafe { libc::alarm(30) };
            let code = child();
            // SAFETY: no precondition.
            unsafe { libc::_exit(code) }
        }
        child => wait_for(child),
    }
}

/// Runs the test `name` with each of these options in a process of its own.
fn expect_fine(name: &str, options: [(&str, &str); 2]) {
    for option in options {
        let exit = run_child_with(name, "", &[option]);
        assert_eq!(exit.code, Some(0), "{option:?}: {exit:?}");
    }
}

const SIZE: usize = 100;
/// The block that waits.
static BLOCK: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
/// A child found a block that another thread has.
const TWICE: i32 = 7;

/// A block that waits in the quarantine of a vanished thread is taken back once, though the child that takes it back
/// is forked meanwhile.
#[test]
fn a_waiting_block_is_taken_back_once() {
    const NAME: &str = "forks::a_waiting_block_is_taken_back_once";
    static HOLDS: Callback = |point| {
        if point == Point::Adopt && step() == 2 {
            go_to(3);
            until(4);
        }
    };
    if scenario().is_none() {
        let option = "FLAGSTONE_HARDENED";
        return expect_fine(NAME, [(option, "quarantine"), (option, "1")]);
    }
    // One heap, so that the block is there for everyone.
    assert!(stay_on_one_processor());
    get(64);
    // In the parent, a thread with a block in quarantine.
    let waits = thread::spawn(|| {
        let blocks: Vec<_> = (0..40).map(|_| get(SIZE)).collect();
        put(blocks[0], SIZE);
        BLOCK.store(blocks[0], Ordering::SeqCst);
        go_to(1);
        until(9);
    });
    until(1);
    let status = fork(|| {
        // A thread that is given the block as it is taken back, and forks.
        let taker = thread::spawn(|| {
            get(SIZE);
            go_to(2);
            until(3);
            let block = BLOCK.load(Ordering::SeqCst);
            let is_given = (0..5000).any(|_| get(SIZE) == block);
            let status = fork(|| {
                failpoints::at_points(None);
                let is_given_again = (0..5000).any(|_| get(SIZE) == block);
                if is_given && is_given_again { TWICE } else { 0 }
            });
            // SAFETY: no precondition.
            unsafe { libc::_exit(status) }
        });
        until(2);
        failpoints::at_points(Some(&HOLDS));
        // The slow path that takes back what the parent's threads had.
        get(7000);
        let _ = taker.join();
        1
    });
    go_to(9);
    let _ = waits.join();
    process::exit(i32::from(status != 0));
}

/// A thread that initialises the process, with locks for tables, vanishes in the child, where nobody waits for it.
#[test]
fn a_fork_beside_the_first_call() {
    const NAME: &str = "forks::a_fork_beside_the_first_call";
    static HOLDS: Callback = |point| {
        if point == Point::Meta && step() == 0 {
            go_to(1);
            until(2);
        }
    };
    if scenario().is_none() {
        let options = [("FLAGSTONE_SAMPLE", "1000"), ("FLAGSTONE_HARDENED", "1")];
        return expect_fine(NAME, options);
    }
    failpoints::at_points(Some(&HOLDS));
    let first = thread::spawn(|| put(get(SIZE), SIZE));
    until(1);
    let status = fork(|| {
        go_to(3);
        let is_served = !get(SIZE).is_null() && flagstone::Flagstone::verify().is_ok();
        i32::from(!is_served)
    });
    go_to(2);
    first.join().expect("no panic");
    process::exit(i32::from(status != 0));
}
