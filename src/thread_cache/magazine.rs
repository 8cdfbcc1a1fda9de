//! A magazine: a thread's bounded stack of free block addresses of one class.
//!
//! The newest address is kept in the header, so that `alloc` returns after one load; the slots hold
//! the rest. With `n` blocks, `top` points at slot `n`, slot 1 is null, slots 2 to `n` hold the
//! older blocks, `head` is the newest; slot 0 is not used (a picture is in `contents`). All zero is
//! a magazine of capacity 0.
//!
//! Only the owning thread writes, except that a thread which holds the cache's gate while the owner
//! is held off may read: hence atomics, and the order of the stores in `push`. A parked cache has no
//! owner; who holds the registry's lock has its gate's part, and its owner's.

use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};

use crate::sync::{AtomicPtr, Ordering, Slot};

/// The header, at a fixed offset in the thread cache.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Magazine {
    head: AtomicPtr<u8>,
    top: AtomicPtr<Slot>,
    /// The last slot. Written under the cache's gate (see above), read by the owner or under it: no atomic,
    /// so that the compiler may compare with memory.
    end: UnsafeCell<*mut Slot>,
}

// SAFETY: 1. `end` is what blocks the auto impl; it is written by the owner under the gate, and read
// by the owner, or by others under the gate.
unsafe impl Sync for Magazine {}

impl Magazine {
    /// Takes the newest block; null when there is none.
    #[inline(always)]
    pub(crate) fn pop(&self) -> *mut u8 {
        // ORDERING: only this thread writes; see `push` for the reader.
        let block = self.head.load(Ordering::Relaxed);
        if !block.is_null() {
            let top = self.top.load(Ordering::Relaxed);
            // SAFETY: 1. with a block in the header, `top` points at slot 1 or above.
            let next = unsafe { &*top }.load(Ordering::Relaxed);
            self.head.store(next, Ordering::Relaxed);
            self.top.store(top.wrapping_sub(1), Ordering::Relaxed);
        }
        block
    }

    /// Adds a block; `false` when the magazine is full.
    #[inline(always)]
    #[must_use]
    pub(crate) fn push(&self, block: NonNull<u8>) -> bool {
        self.push_any(block.as_ptr())
    }

    /// As [`push`](Self::push) of what may be null if the magazine has no capacity.
    #[inline(always)]
    #[must_use]
    pub(crate) fn push_any(&self, block: *mut u8) -> bool {
        // ORDERING: only this thread writes.
        let top = self.top.load(Ordering::Relaxed);
        if top == self.end() {
            return false;
        }
        let slot = top.wrapping_add(1);
        let head = self.head.load(Ordering::Relaxed);
        // SAFETY: 1. below `end`, so the next slot is in the array.
        unsafe { &*slot }.store(head, Ordering::Relaxed);
        // ORDERING: pairs with the acquire in `len_of`: who reads `top` finds the slot written.
        self.top.store(slot, Ordering::Release);
        self.head.store(block, Ordering::Relaxed);
        true
    }

    /// Gives the magazine `slots`, the first `n` of which after slot 0 are set up as the type's
    /// documentation says, and the newest block.
    pub(crate) fn install(&self, slots: &'static [Slot], n: usize, head: *mut u8) {
        // ORDERING: only this thread writes, under its gate.
        let base = slots.as_ptr().cast_mut();
        self.top.store(base.wrapping_add(n), Ordering::Relaxed);
        self.set_end(base.wrapping_add(slots.len() - 1));
        self.head.store(head, Ordering::Relaxed);
    }

    /// Takes the array away: capacity 0.
    pub(crate) fn uninstall(&self) {
        // ORDERING: as in `install`.
        self.head.store(ptr::null_mut(), Ordering::Relaxed);
        self.top.store(ptr::null_mut(), Ordering::Relaxed);
        self.set_end(ptr::null_mut());
    }

    #[inline(always)]
    fn end(&self) -> *mut Slot {
        // SAFETY: 1. called by the owner, or under the gate; see the field.
        unsafe { self.end.get().read() }
    }

    fn set_end(&self, end: *mut Slot) {
        // SAFETY: 1. called by the owner under the gate; see the field.
        unsafe { self.end.get().write(end) };
    }

    /// The newest block.
    pub(crate) fn head(&self) -> *mut u8 {
        // ORDERING: as in `install`.
        self.head.load(Ordering::Relaxed)
    }

    /// Whether it has so many slots that begin at this address: a child of a fork may find it half installed.
    #[cfg(all(feature = "heaps", not(all(test, loom))))]
    pub(crate) fn has(&self, base: usize, count: usize) -> bool {
        self.end().addr() == base + (count - 1) * size_of::<Slot>()
    }

    /// The address of the slot of the second newest block: for who counts blocks while the owner is at work.
    #[cfg(all(feature = "heaps", not(all(test, loom))))]
    pub(crate) fn top(&self) -> usize {
        // ORDERING: a number.
        self.top.load(Ordering::Relaxed).addr()
    }

    /// How many blocks lie in an array that begins at `slots`.
    pub(crate) fn len_of(&self, slots: &[Slot]) -> usize {
        // ORDERING: pairs with the release in `push`.
        let top = self.top.load(Ordering::Acquire);
        (top.addr() - slots.as_ptr().addr()) / size_of::<Slot>()
    }

    /// The slots of a magazine that has `count` of them, 0 for none.
    pub(crate) fn slots(&self, count: usize) -> &'static [Slot] {
        let end = self.end();
        if count == 0 || end.is_null() {
            return &[];
        }
        let base = end.wrapping_sub(count - 1);
        // SAFETY: 1. `install` was given this many slots, which stay metadata forever.
        unsafe { core::slice::from_raw_parts(base, count) }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicBool, fence};
    use loom::sync::{Arc, Mutex};
    use std::boxed::Box;
    use std::vec::Vec;

    /// A thread's magazine, its words (one here), its gate, and four blocks' memory.
    struct Thread {
        magazine: Magazine,
        slots: &'static [Slot],
        is_hot: AtomicBool,
        gate: Mutex<()>,
        memory: [UnsafeCell<u32>; 4],
    }

    // SAFETY: 1. the model checks the accesses to the memory; the rest is the protocol under test.
    unsafe impl Sync for Thread {}
    // SAFETY: 1. its raw pointers are leaked memory or no memory; the model checks what threads do.
    unsafe impl Send for Thread {}

    fn address(block: usize) -> NonNull<u8> {
        NonNull::new(ptr::without_provenance_mut(block + 1)).unwrap()
    }

    impl Thread {
        fn new() -> Self {
            let slots = (0..5)
                .map(|_| Slot::new(ptr::null_mut()))
                .collect::<Vec<_>>();
            let magazine = Magazine {
                head: AtomicPtr::new(ptr::null_mut()),
                top: AtomicPtr::new(ptr::null_mut()),
                end: core::cell::UnsafeCell::new(ptr::null_mut()),
            };
            let slots = &*Box::leak(slots.into_boxed_slice());
            magazine.install(slots, 0, ptr::null_mut());
            (0..3).for_each(|block| assert!(magazine.push(address(block))));
            let memory = core::array::from_fn(|_| UnsafeCell::new(0));
            Self {
                magazine,
                slots,
                is_hot: AtomicBool::new(true),
                gate: Mutex::new(()),
                memory,
            }
        }

        /// The fast path's look at its word, or the wait at the gate. `os::process_barrier` runs a barrier
        /// on every processor: in the model, the barrier that meets the owner before this look.
        fn look_at_word(&self) {
            fence(loom::sync::atomic::Ordering::SeqCst);
            if !self.is_hot.load(Ordering::Relaxed) {
                let _held = self.gate.lock().unwrap();
                self.is_hot.store(true, Ordering::Relaxed);
            }
        }

        fn user_writes(&self, block: *mut u8) {
            // SAFETY: 1. the model checks the access.
            self.memory[block.addr() - 1].with_mut(|word| unsafe { *word += 1 });
        }
    }

    /// Proves: a purger that holds a thread off, lists its blocks but for the newest, lets it go, and
    /// holds it off again never purges a block that the thread hands out, whatever operation it
    /// interrupts, if it finds that the thread has not come back. Fails when the newest block is not
    /// spared, when the barrier is left out, when `push` publishes `top` by `Relaxed`, and when
    /// nobody asks whether the thread came back.
    #[test]
    fn loom_idle_blocks_are_nobodys() {
        loom::model(|| {
            let owner = Arc::new(Thread::new());
            let other = owner.clone();
            let purger = loom::thread::spawn(move || {
                let listed: Vec<_> = {
                    let _held = other.gate.lock().unwrap();
                    other.is_hot.store(false, Ordering::Relaxed);
                    fence(loom::sync::atomic::Ordering::SeqCst);
                    let blocks = other.magazine.len_of(other.slots);
                    let older = other.slots.get(2..=blocks).unwrap_or_default();
                    older
                        .iter()
                        .map(|slot| slot.load(Ordering::Relaxed))
                        .collect()
                };
                // Later, with the next slice.
                let _held = other.gate.lock().unwrap();
                if !other.is_hot.load(Ordering::Relaxed) {
                    // A purge writes zeros, as far as anyone can tell.
                    listed
                        .into_iter()
                        .for_each(|block| other.user_writes(block));
                }
            });
            // Two blocks out; one back, and one that came from elsewhere, into the slot that still
            // holds the address of the other; one more out. The other is in use throughout.
            owner.look_at_word();
            let back = owner.magazine.pop();
            owner.look_at_word();
            let kept = owner.magazine.pop();
            owner.user_writes(kept);
            owner.look_at_word();
            assert!(owner.magazine.push(NonNull::new(back).unwrap()));
            owner.look_at_word();
            assert!(owner.magazine.push(address(3)));
            owner.user_writes(kept);
            owner.look_at_word();
            let last = owner.magazine.pop();
            owner.user_writes(last);
            purger.join().unwrap();
        });
    }
}
