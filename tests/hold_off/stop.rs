//! A thread stopped by a signal, wherever it is, until a purge is under way.

use core::alloc::Layout;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::{hint, mem, ptr};
use std::os::unix::thread::JoinHandleExt;
use std::thread::{self, JoinHandle};

use flagstone::Flagstone;
use flagstone::failpoints::{self, Callback, Point};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::ALLOC;
use crate::common::block::Block;

/// How often a thread was stopped, whether it still is, and whether it may go on.
static STOPS: AtomicUsize = AtomicUsize::new(0);
static STOPPED: AtomicBool = AtomicBool::new(false);
static MAY_GO: AtomicBool = AtomicBool::new(false);
/// Whether the thread that works between signals may end.
static ENOUGH: AtomicBool = AtomicBool::new(false);

/// Operations that the thread ended, and wrote to what it got.
static PROGRESS: AtomicUsize = AtomicUsize::new(0);

fn pause() {
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 100_000,
    };
    // SAFETY: the time is valid, and the time left is not asked for.
    unsafe { libc::nanosleep(&raw const time, ptr::null_mut()) };
}

/// Signal handler: stops the thread wherever it is, at most for a few milliseconds, since it may hold
/// a lock that the purge waits for.
extern "C" fn stop(_signal: libc::c_int) {
    // SAFETY: `__errno_location` has no preconditions.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the errno of this thread is readable.
    let before = unsafe { errno.read() };
    STOPPED.store(true, Ordering::SeqCst);
    STOPS.fetch_add(1, Ordering::SeqCst);
    for _ in 0..50 {
        if MAY_GO.load(Ordering::SeqCst) {
            break;
        }
        pause();
    }
    STOPPED.store(false, Ordering::SeqCst);
    // SAFETY: the errno of this thread is writable.
    unsafe { errno.write(before) };
}

/// Runs inside a purge once it knows which pages to give back: lets the stopped thread end what it was
/// at, and write to what it got.
static LET_GO: Callback = |point| {
    if point == Point::Holes && !MAY_GO.swap(true, Ordering::SeqCst) {
        let before = PROGRESS.load(Ordering::SeqCst);
        // It may have been at nothing that it can end now.
        for _ in 0..10 {
            pause();
            if PROGRESS.load(Ordering::SeqCst) != before {
                break;
            }
        }
    }
};

/// Only one thread counts, and no instruction here takes so long that most signals would meet it.
fn go_on() {
    let before = PROGRESS.load(Ordering::Relaxed);
    PROGRESS.store(before + 1, Ordering::Relaxed);
}

/// Does little but operations of the allocator, so that many signals meet one.
fn work() {
    /// As long as a page at least, so that a purge may take it: what fast paths serve, and brief work.
    const SIZES: [usize; 4] = [4_096, 40_000, 4_096, 130_000];
    let mut tag = 1_usize;
    while !ENOUGH.load(Ordering::Relaxed) {
        let layout = Layout::from_size_align(SIZES[tag % SIZES.len()], 8).expect("a valid layout");
        let burst = [(); 8].map(|()| {
            let block = Block::alloc(&ALLOC, layout).expect("memory");
            // SAFETY: the block is longer than a word and aligned for it.
            unsafe { block.as_ptr().cast::<usize>().write_volatile(tag) };
            go_on();
            block
        });
        for block in burst {
            // SAFETY: written above.
            let found = unsafe { block.as_ptr().cast::<usize>().read_volatile() };
            assert_eq!(found, tag, "block {:#x} lost its contents", block.addr());
            block.free(&ALLOC);
            go_on();
        }
        tag += 1;
    }
}

/// Purges that often, each time with a thread stopped at some place in its work; bytes given back.
pub(crate) fn purge_while_stopped(purges: usize) -> usize {
    // SAFETY: all zero is a valid value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = stop as extern "C" fn(libc::c_int) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: 1. the action is valid. 2. the handler calls nothing that a signal may not interrupt.
    let result = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()) };
    assert_eq!(result, 0, "sigaction refused");
    let worker = thread::spawn(work);
    failpoints::at_points(Some(&LET_GO));
    let mut rng = SmallRng::seed_from_u64(8);
    let mut bytes = 0;
    for _ in 0..purges {
        // Long enough for the thread to be back from where it was held off.
        for _ in 0..rng.random_range(0..20_000) {
            hint::spin_loop();
        }
        stop_thread(&worker);
        bytes += Flagstone::purge();
        MAY_GO.store(true, Ordering::SeqCst);
        while STOPPED.load(Ordering::SeqCst) {
            thread::yield_now();
        }
    }
    failpoints::at_points(None);
    ENOUGH.store(true, Ordering::SeqCst);
    worker.join().expect("the thread did not panic");
    bytes
}

/// Returns once the thread has stopped, or ended.
fn stop_thread(thread: &JoinHandle<()>) {
    MAY_GO.store(false, Ordering::SeqCst);
    let before = STOPS.load(Ordering::SeqCst);
    // SAFETY: the thread is joined later.
    let result = unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGUSR1) };
    assert_eq!(result, 0, "pthread_kill refused");
    while STOPS.load(Ordering::SeqCst) == before && !thread.is_finished() {
        thread::yield_now();
    }
}
