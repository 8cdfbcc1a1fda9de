//! Without this, a program with functions of its own under the C library's names, which allocate, could hang: the
//! allocator would call them under a lock.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
mod common;

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::ffi::{c_int, c_long, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::block::{Block, SIZES};
use common::child::{again_hardened, alone};
use common::process::{stats, verify};
use flagstone::{Background, Config, Flagstone};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::with_config(Config::new().background(Background::Off));

thread_local! {
    /// Whether the thread is in a call of the allocator that this test made.
    static IN_ALLOCATOR: Cell<bool> = const { Cell::new(false) };
    /// Whether the thread is in one of the functions below.
    static IN_WRAPPER: Cell<bool> = const { Cell::new(false) };
}

/// Calls of the functions below, and those of them that the allocator made.
static CALLS: AtomicUsize = AtomicUsize::new(0);
static CALLS_OF_OURS: AtomicUsize = AtomicUsize::new(0);

/// What a tracer may do before it passes a call on.
fn note() {
    if IN_WRAPPER.replace(true) {
        return;
    }
    CALLS.fetch_add(1, Ordering::Relaxed);
    CALLS_OF_OURS.fetch_add(usize::from(IN_ALLOCATOR.get()), Ordering::Relaxed);
    allocate();
    IN_WRAPPER.set(false);
}

fn allocate() {
    for size in [64, 100 << 10, 4 << 20] {
        let layout = Layout::from_size_align(size, 8).expect("a layout");
        // SAFETY: the size is not zero.
        let block = unsafe { ALLOC.alloc(layout) };
        assert!(!block.is_null(), "no memory");
        // SAFETY: the last byte of a block of this size.
        unsafe { block.wrapping_add(size - 1).write(1) };
        // SAFETY: allocated above, not used again.
        unsafe { ALLOC.dealloc(block, layout) };
    }
}

/// Functions of this program's under names of the C library's: each allocates, then makes the system call.
macro_rules! wrap {
    ($($name:ident($($argument:ident: $kind:ty),*) = $number:ident;)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: $kind),*) -> c_long {
            note();
            // SAFETY: what the caller asks for.
            unsafe { libc::syscall(libc::$number $(, $argument)*) }
        }
    )*};
}

wrap! {
    mmap(at: *mut c_void, length: usize, access: c_int, flags: c_int, file: c_int, offset: i64) = SYS_mmap;
    munmap(at: *mut c_void, length: usize) = SYS_munmap;
    mremap(at: *mut c_void, old: usize, new: usize, flags: c_int, to: *mut c_void) = SYS_mremap;
    madvise(at: *mut c_void, length: usize, advice: c_int) = SYS_madvise;
    mprotect(at: *mut c_void, length: usize, access: c_int) = SYS_mprotect;
    mincore(at: *mut c_void, length: usize, answer: *mut u8) = SYS_mincore;
    clock_gettime(clock: c_int, time: *mut c_void) = SYS_clock_gettime;
    sched_yield() = SYS_sched_yield;
    getpid() = SYS_getpid;
    write(file: c_int, text: *const c_void, length: usize) = SYS_write;
}

unsafe extern "C" {
    /// The name that the C library has for itself.
    fn __pthread_key_create(
        key: *mut libc::pthread_key_t,
        end: Option<unsafe extern "C" fn(*mut c_void)>,
    ) -> c_int;
}

/// The first key is made as the process is initialised, by its first call: which may come from a function above.
#[unsafe(no_mangle)]
extern "C" fn pthread_key_create(
    key: *mut libc::pthread_key_t,
    end: Option<unsafe extern "C" fn(*mut c_void)>,
) -> c_int {
    allocate();
    // SAFETY: what the caller asks for.
    unsafe { __pthread_key_create(key, end) }
}

/// Runs a call of the allocator, and knows it.
fn ask<R>(call: impl FnOnce() -> R) -> R {
    IN_ALLOCATOR.set(true);
    let answer = call();
    IN_ALLOCATOR.set(false);
    answer
}

/// Makes, grows and frees blocks of every kind, over the size of every cache.
fn churn(tag: usize) {
    for size in SIZES {
        let count = ((24 << 20) / size).clamp(2, 4_000);
        let mut blocks = Vec::with_capacity(count);
        for _ in 0..count {
            blocks.push(ask(|| Block::filled(&ALLOC, size, 8, tag)));
        }
        let last = blocks.pop().expect("some");
        let last = ask(|| last.realloc(&ALLOC, 2 * size)).expect("memory");
        ask(|| last.free(&ALLOC));
        for block in blocks.drain(..) {
            block.check(tag);
            ask(|| block.free(&ALLOC));
        }
        ask(Flagstone::purge);
        ask(stats);
    }
}

/// By system calls of the allocator's own, none of which goes by a name.
#[test]
fn functions_that_allocate_are_not_called_under_locks() {
    const NAME: &str = "functions_that_allocate_are_not_called_under_locks";
    // What is freed goes back at once: with system calls, on the ways of all calls.
    const AT_ONCE: [(&str, &str); 2] = [
        ("FLAGSTONE_PURGE_DELAY_MS", "0"),
        ("FLAGSTONE_DIRTY_BUDGET", "0"),
    ];
    alone(NAME, &AT_ONCE, || {
        let threads = [1, 2].map(|tag| thread::spawn(move || churn(tag)));
        for thread in threads {
            thread.join().expect("no panic");
        }
        verify();
        assert!(CALLS.load(Ordering::Relaxed) > 0, "nobody calls them");
        assert_eq!(CALLS_OF_OURS.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn so_hardened() {
    again_hardened("so_hardened");
}
