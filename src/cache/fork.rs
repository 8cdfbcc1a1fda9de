//! A forked child has one thread and the memory of all. Before its first slow path goes on, locks
//! that other threads held are broken, what they guarded is rebuilt, and the blocks in the magazines
//! of those threads are taken back.

use super::thread::{self, REGISTRY};
use super::{NO_CLASS, SizeClass, ThreadCache};
use crate::arena::{self, meta};
use crate::heap;
use crate::large;
use crate::os;

/// Runs once in a child, before any other thread of it enters a slow path.
pub(super) fn recover() {
    // In the order in which one may need the other: metadata, chunks, slabs, threads.
    // SAFETY: 1. `os::after_fork` lets one thread through, which holds no lock: it is called at the
    // beginning of slow paths, and by a thread that is about to take its first lock.
    unsafe { meta::recover() };
    // SAFETY: 1. as above.
    unsafe { arena::recover() };
    // SAFETY: 1. as above.
    unsafe { heap::recover::locks() };
    // SAFETY: 1. as above.
    unsafe { large::recover() };
    // SAFETY: 1. as above.
    unsafe { thread::break_locks() };
    let mut next = REGISTRY.first.get();
    while let Some(cache) = next {
        next = cache.next.get();
        if thread::is_own(cache) {
            // Only a purger can have held it: this thread was not in a slow path when it forked.
            // SAFETY: 1. so the thread that held the gate is gone.
            unsafe { cache.gate.force_unlock() };
            cache.thread.set(os::thread_id());
        } else {
            cache.adopt();
        }
    }
}

impl ThreadCache {
    /// Takes back the blocks of a thread that is gone. It may have vanished between any two stores:
    /// the newest block of each magazine may be its user's already and is given up, and so is the
    /// magazine that a slow path was at work on, slots and all.
    pub(super) fn adopt(&'static self) {
        let busy = if self.gate.is_locked() {
            self.busy.get()
        } else {
            NO_CLASS
        };
        // SAFETY: 1. the thread that held the gate is gone.
        unsafe { self.gate.force_unlock() };
        for class in SizeClass::all() {
            if class.index() == usize::from(busy) {
                self.give_up(class);
                continue;
            }
            let (slots, blocks) = self.contents(class);
            if blocks >= 2 && blocks < slots.len() {
                heap::recover::adopt(class, &slots[2..=blocks]);
            }
            self.forget(class);
        }
        self.capacity.set(0);
        self.unlink();
        self.recycle();
    }
}
