//! Without this, what hardly ever meets would be met by a program that runs for months: each test holds open, by a hook,
//! a moment of some instructions, in a process of its own.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
#[path = "../common/mod.rs"]
mod common;
mod forks;
mod limits;
mod priorities;
mod purges;

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use flagstone::{Background, Config, Flagstone};

/// Not the process's own: what the harness allocates does not disturb.
static ALLOC: Flagstone = Flagstone::with_config(Config::new().background(Background::Off));

/// How far a scene has come.
static STEP: AtomicUsize = AtomicUsize::new(0);

fn step() -> usize {
    STEP.load(Ordering::SeqCst)
}

fn go_to(step: usize) {
    STEP.store(step, Ordering::SeqCst);
}

/// Waits for others to come so far, or farther.
fn until(wanted: usize) {
    while step() < wanted {
        thread::yield_now();
    }
}

/// Keeps the calling thread, and those that it starts, on the first processor; whether that is allowed.
fn stay_on_one_processor() -> bool {
    // SAFETY: all zero is an empty set.
    let mut first: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: plain stores.
    unsafe { libc::CPU_SET(0, &mut first) };
    // SAFETY: the set lives as long as the call.
    unsafe { libc::sched_setaffinity(0, size_of_val(&first), &raw const first) == 0 }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

/// A block, its bytes written; null without memory.
fn get(size: usize) -> *mut u8 {
    // SAFETY: the size is not 0.
    let block = unsafe { ALLOC.alloc(layout(size)) };
    if !block.is_null() {
        // SAFETY: a block of this size.
        unsafe { block.write_bytes(0xAA, size) };
    }
    block
}

fn put(block: *mut u8, size: usize) {
    // SAFETY: a block of `get`, freed once.
    unsafe { ALLOC.dealloc(block, layout(size)) }
}
