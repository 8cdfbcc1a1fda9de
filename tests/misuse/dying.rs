//! A process that dies of misuse: what was locked when the mistake was found is let go before it is reported, so that a
//! handler of `SIGABRT` can call the allocator, ask for statistics, and start threads that do.

use core::alloc::Layout;
use core::hint::black_box;
use core::time::Duration;
use std::process;
use std::thread;

use flagstone::{Flagstone, failpoints};

use super::common::block::take_slow_paths;
use super::common::child::{run_child_with, scenario};
use super::common::process::{stats, verify};
use super::common::raw_thread::on_raw_thread;
use super::program::{block, free_twice};

/// How the mistake is found.
const WAYS: [&str; 7] = [
    "a purge empties a parked cache",
    "a tick empties a parked cache",
    "want of memory empties a parked cache",
    "a thread ends",
    "a thread flushes",
    "a long block is compared with those in its magazine",
    "a purge dissolves an abandoned cache",
];

/// The handler's exit status.
const REPORTED: i32 = 3;

/// Longer than the handler takes, by far.
const PATIENCE: u32 = 30;

extern "C" fn report(_: libc::c_int) {
    failpoints::refuse_none();
    call_all();
    thread::spawn(call_all).join().expect("a thread");
    // SAFETY: no precondition.
    unsafe { libc::_exit(REPORTED) };
}

/// Everything that takes locks of all threads.
fn call_all() {
    for size in [16, 100, 3_000, 40_000, 200_000, 4 << 20] {
        block(size).free(&super::ALLOC);
    }
    assert!(stats().committed > 0);
    verify();
    Flagstone::purge();
}

/// A block of `size` bytes freed twice by a thread that ends: as it came, or without its clean-up.
fn freed_twice(size: usize, vanishes: bool) {
    on_raw_thread(&mut (size, vanishes), |(size, vanishes)| {
        free_twice(*size);
        if *vanishes {
            // SAFETY: nothing of this thread's is used any more; who joins it hears from the kernel.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        }
    });
}

fn find(way: &str) {
    match way {
        "a purge empties a parked cache" => {
            freed_twice(200, false);
            Flagstone::purge();
        }
        "a tick empties a parked cache" => {
            freed_twice(200, false);
            // Each round is a slow path or more, and longer than a purge delay.
            loop {
                take_slow_paths(&super::ALLOC);
                thread::sleep(Duration::from_micros(50));
            }
        }
        "want of memory empties a parked cache" => {
            freed_twice(200, false);
            failpoints::refuse_after(0, true);
            let layout = Layout::from_size_align(64 << 20, 8).expect("a layout");
            // SAFETY: the size is not 0. No block comes of it.
            let _ = black_box(unsafe { std::alloc::alloc(layout) });
        }
        "a thread ends" => freed_twice(32, false),
        "a thread flushes" => {
            let others: Vec<_> = (0..10_000).map(|_| block(200)).collect();
            free_twice(200);
            others
                .into_iter()
                .for_each(|other| other.free(&super::ALLOC));
        }
        "a long block is compared with those in its magazine" => free_twice(40_000),
        "a purge dissolves an abandoned cache" => {
            freed_twice(200, true);
            Flagstone::purge();
        }
        _ => unreachable!("{way}"),
    }
}

#[test]
fn a_handler_may_call_everything() {
    const NAME: &str = "dying::a_handler_may_call_everything";
    if let Some(way) = scenario() {
        // SAFETY: no precondition.
        unsafe { libc::alarm(PATIENCE) };
        // SAFETY: the handler is a function of this type.
        unsafe { libc::signal(libc::SIGABRT, report as *const () as libc::sighandler_t) };
        find(&way);
        process::exit(0);
    }
    // The portable layer cannot see that a thread is gone.
    let last = if cfg!(flagstone_portable) {
        WAYS.len() - 1
    } else {
        WAYS.len()
    };
    for way in &WAYS[..last] {
        let exit = run_child_with(NAME, way, &[("FLAGSTONE_PURGE_DELAY_MS", "1")]);
        assert_eq!(exit.code, Some(REPORTED), "{way}: {exit:?}");
        assert!(exit.stderr.contains("double free"), "{way}: {exit:?}");
    }
}
