//! A magazine: a thread's bounded stack of free block addresses of one class.
//!
//! The newest address is kept in the header, so that `alloc` returns after one load; the slots hold
//! the rest. With `n` blocks, `top` points at slot `n`, slot 1 is null, slots 2 to `n` hold the
//! older blocks, `head` is the newest; slot 0 is not used. All zero is a magazine of capacity 0.
//!
//! Only the owning thread writes, except that a thread which holds the cache's gate while the owner
//! is held off may read: hence atomics, and the order of the stores in `push`.

use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};

use crate::sync::{AtomicPtr, Ordering};

/// A slot: a block's address or null.
pub(crate) type Slot = AtomicPtr<u8>;

/// The header, at a fixed offset in the thread cache.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Magazine {
    head: AtomicPtr<u8>,
    top: AtomicPtr<Slot>,
    /// The last slot. Written under the cache's gate, read by the owner or under the gate: no atomic,
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
        self.head.store(block.as_ptr(), Ordering::Relaxed);
        true
    }

    /// Gives the magazine `slots`, the first `n` of which after slot 0 are set up as the type's
    /// documentation says, and the newest block.
    pub(super) fn install(&self, slots: &'static [Slot], n: usize, head: *mut u8) {
        // ORDERING: only this thread writes, under its gate.
        let base = slots.as_ptr().cast_mut();
        self.top.store(base.wrapping_add(n), Ordering::Relaxed);
        self.set_end(base.wrapping_add(slots.len() - 1));
        self.head.store(head, Ordering::Relaxed);
    }

    /// Takes the array away: capacity 0.
    pub(super) fn uninstall(&self) {
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
    pub(super) fn head(&self) -> *mut u8 {
        // ORDERING: as in `install`.
        self.head.load(Ordering::Relaxed)
    }

    /// How many blocks lie in an array that begins at `slots`.
    pub(super) fn len_of(&self, slots: &[Slot]) -> usize {
        // ORDERING: pairs with the release in `push`.
        let top = self.top.load(Ordering::Acquire);
        (top.addr() - slots.as_ptr().addr()) / size_of::<Slot>()
    }

    /// The slots of a magazine that has `count` of them, 0 for none.
    pub(super) fn slots(&self, count: usize) -> &'static [Slot] {
        let end = self.end();
        if count == 0 || end.is_null() {
            return &[];
        }
        let base = end.wrapping_sub(count - 1);
        // SAFETY: 1. `install` was given this many slots, which stay metadata forever.
        unsafe { core::slice::from_raw_parts(base, count) }
    }
}
