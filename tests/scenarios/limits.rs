//! Memory ends at a limit of the process, is freed, and serves again; threads may begin meanwhile.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::fs;
use std::thread;

use flagstone::Flagstone;

use crate::MIB;
use crate::chain::Chain;
use crate::common::child::alone;
use crate::common::process::{live, mapped, page_size, verify};

const SIZES: [usize; 8] = [
    256,
    1_000,
    4_096,
    40 << 10,
    100_000,
    300 << 10,
    MIB,
    4 * MIB,
];
const ROUNDS: usize = 3;
/// What the process may have beside what it has.
const LIMIT: usize = 256 * MIB;

/// What is limited.
#[derive(Clone, Copy)]
enum Resource {
    /// `RLIMIT_AS`: all that is mapped.
    Addresses,
    /// `RLIMIT_DATA`: what is private and writable.
    Writable,
}

impl Resource {
    /// Bytes that the process has of it.
    fn used(self) -> usize {
        match self {
            Self::Addresses => mapped(),
            Self::Writable => {
                let text = fs::read_to_string("/proc/self/statm").expect("this process's memory");
                let pages = text.split_whitespace().nth(5).map(str::parse::<usize>);
                pages.expect("six fields").expect("a number") * page_size()
            }
        }
    }

    /// Sets the limit and says what it was.
    fn limit(self, bytes: u64) -> u64 {
        // The type of its number is not the same in each libc.
        let resource = match self {
            Self::Addresses => libc::RLIMIT_AS,
            Self::Writable => libc::RLIMIT_DATA,
        };
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the limit is writable.
        let result = unsafe { libc::getrlimit(resource, &raw mut limit) };
        assert_eq!(result, 0, "getrlimit refused");
        let before = limit.rlim_cur;
        limit.rlim_cur = bytes;
        // SAFETY: the limit is a valid, initialised value.
        let result = unsafe { libc::setrlimit(resource, &raw const limit) };
        assert_eq!(result, 0, "setrlimit refused");
        before
    }
}

/// A limit that leaves [`LIMIT`] bytes, until it is dropped.
struct Limited(Resource, u64);

impl Limited {
    fn new(resource: Resource) -> Self {
        let bytes = u64::try_from(resource.used() + LIMIT).expect("a number of bytes");
        Self(resource, resource.limit(bytes))
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.0.limit(self.1);
    }
}

/// Fills all there is with blocks of one size and frees them, several times, for each size in turn:
/// later rounds get at least 95 % of the first, and that is most of the limit.
fn fill_rounds(resource: Resource) {
    let before = live();
    for size in SIZES {
        let mut counts = [0; ROUNDS];
        let limited = Limited::new(resource);
        for count in &mut counts {
            let mut chain = Chain::new(size);
            chain.grow(usize::MAX);
            *count = chain.count;
            chain.free();
        }
        drop(limited);
        println!("{size}: {counts:?}, {} MiB", counts[0] * size / MIB);
        assert!(counts[0] * size > LIMIT * 3 / 4, "{size}: {counts:?}");
        for count in counts {
            assert!(count * 100 >= counts[0] * 95, "{size}: {counts:?}");
        }
        // So that the next size has as much.
        Flagstone::purge();
        verify();
    }
    assert_eq!(live(), before);
}

#[test]
fn addresses_end_three_times() {
    alone("limits::addresses_end_three_times", &[], || {
        fill_rounds(Resource::Addresses);
    });
}

/// In place of a kernel that does not overcommit, which is not for a test to set: it counts what is
/// writable, not what is reserved.
#[test]
fn writable_memory_ends_three_times() {
    alone("limits::writable_memory_ends_three_times", &[], || {
        fill_rounds(Resource::Writable);
    });
}

/// How far [`late`] threads are.
static STAGE: AtomicUsize = AtomicUsize::new(0);
static BLOCKS: AtomicUsize = AtomicUsize::new(0);

fn wait_for(stage: usize) {
    while STAGE.load(Ordering::Acquire) < stage {
        thread::yield_now();
    }
}

/// Asks for its first blocks when there is nothing left, and again when there is.
extern "C" fn late(_: *mut c_void) -> *mut c_void {
    for stage in [1, 3] {
        wait_for(stage);
        let mut count = 0;
        for size in SIZES {
            let mut chain = Chain::new(size);
            chain.grow(3);
            count += chain.count;
            chain.free();
        }
        BLOCKS.store(count, Ordering::Relaxed);
        STAGE.store(stage + 1, Ordering::Release);
    }
    ptr::null_mut()
}

fn try_start(start: extern "C" fn(*mut c_void) -> *mut c_void) -> Option<libc::pthread_t> {
    let mut thread = MaybeUninit::uninit();
    // SAFETY: 1. `thread` is writable. 2. the thread ignores its argument.
    let result =
        unsafe { libc::pthread_create(thread.as_mut_ptr(), ptr::null(), start, ptr::null_mut()) };
    // SAFETY: written on success.
    (result == 0).then(|| unsafe { thread.assume_init() })
}

fn join(thread: libc::pthread_t) {
    // SAFETY: the thread is joinable and joined once.
    let result = unsafe { libc::pthread_join(thread, ptr::null_mut()) };
    assert_eq!(result, 0, "pthread_join refused");
}

/// A thread whose first call comes when memory is used up gets null or a block, and works later; a thread
/// that cannot even be started leaves nothing behind.
#[test]
fn threads_begin_when_memory_is_used_up() {
    extern "C" fn nothing(_: *mut c_void) -> *mut c_void {
        let mut chain = Chain::new(100);
        chain.grow(10);
        chain.free();
        ptr::null_mut()
    }
    alone("limits::threads_begin_when_memory_is_used_up", &[], || {
        let before = live();
        for round in 0..ROUNDS {
            STAGE.store(0, Ordering::Relaxed);
            let waiting = try_start(late).expect("a thread");
            let limited = Limited::new(Resource::Addresses);
            let mut chains = SIZES.map(Chain::new);
            chains
                .iter_mut()
                .rev()
                .for_each(|chain| chain.grow(usize::MAX));
            STAGE.store(1, Ordering::Release);
            wait_for(2);
            let at_limit = BLOCKS.load(Ordering::Relaxed);
            // Stacks of threads that ended may serve.
            let started = (0..20).filter_map(|_| try_start(nothing)).map(join).count();
            verify();
            chains.iter_mut().for_each(Chain::free);
            STAGE.store(3, Ordering::Release);
            join(waiting);
            let later = BLOCKS.load(Ordering::Relaxed);
            println!("round {round}: {at_limit} blocks, {started} threads, then {later} blocks");
            assert_eq!(later, 3 * SIZES.len(), "round {round}");
            drop(limited);
            assert_eq!(live(), before, "round {round}");
            verify();
        }
    });
}
