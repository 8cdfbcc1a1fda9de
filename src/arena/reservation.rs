//! The addresses that chunks are cut from: reservations, which grow by a factor.

use core::ptr::NonNull;

use super::ARENA;
use crate::os::{self, Access, PageLen, failpoints};
use crate::sync::{GuardedPtr, GuardedUsize};
use crate::units::CHUNK;

/// A reservation is a quarter of the chunks that are there, at least as many as there are, up to the first of these
/// bounds, and at most the second, but no more than twice its forerunner: a process that needs little asks for little,
/// where addresses are limited or locked.
const RESERVATION_MIN: usize = 8;
const RESERVATION_MAX: usize = 256;
/// What chunks of one kind are cut from. Who makes a chunk holds the lock; a reservation is whole
/// at each store, so that a child of a fork needs no repair.
pub(super) struct Reservation {
    base: GuardedPtr<u8>,
    /// Chunks that can be cut from it.
    left: GuardedUsize,
    /// Chunks that could, at first: the next has at most twice as many. A kind that is rare takes
    /// few addresses, however big the heap.
    size: GuardedUsize,
}

impl Reservation {
    pub(super) const fn new() -> Self {
        Self {
            base: GuardedPtr::null(),
            left: GuardedUsize::new(0),
            size: GuardedUsize::new(0),
        }
    }

    /// 4 MiB of committed zero memory, with a leaf for it in the owner map.
    pub(super) fn new_addresses(&self) -> Option<NonNull<u8>> {
        if self.left.get() == 0 {
            self.reserve()?;
        }
        let base = self.cut()?;
        if leaf_for(base) {
            // SAFETY: 1. cut from our own reservation, for nobody else.
            if unsafe { os::commit(base, PageLen::CHUNK) } {
                return Some(base);
            }
        }
        // SAFETY: 1. cut from our own reservation, never used. What stays reserved on failure costs
        // no memory.
        let _ = unsafe { os::unmap(base, PageLen::CHUNK) };
        None
    }

    /// The next chunk's worth of the reservation.
    fn cut(&self) -> Option<NonNull<u8>> {
        let left = self.left.get().checked_sub(1)?;
        let base = self.base.get()?;
        // A child of a fork before the next store loses a chunk's worth: `left` shrinks first.
        self.left.set(left);
        // SAFETY: 1. `left` counted this chunk.
        let rest = unsafe { crate::ptr::advance::<u8>(base, CHUNK) };
        self.base.set(Some(rest));
        Some(base)
    }

    /// Reserves address space for more chunks: less where the process may not have so much.
    fn reserve(&self) -> Option<()> {
        // Read without the arena's lock: about so many will do.
        let chunks = ARENA.counts.chunks();
        let least = chunks.clamp(1, RESERVATION_MIN);
        let twice = (2 * self.size.get()).max(1);
        let mut count = (chunks / 4).clamp(least, RESERVATION_MAX).min(twice);
        let base = loop {
            if let Some(base) = os::map(PageLen::chunks(count), CHUNK, Access::Reserved) {
                break base;
            }
            count = (count / 2).max(1);
            if count == 1 {
                break os::map(PageLen::CHUNK, CHUNK, Access::Reserved)?;
            }
        };
        failpoints::at(failpoints::Point::Reserve);
        self.base.set(Some(base));
        self.left.set(count);
        self.size.set(count);
        Some(())
    }

    /// Gives back what no chunk was cut from yet.
    pub(super) fn unreserve(&self) {
        let count = self.left.get();
        // First: a child of a fork loses what may be gone.
        self.left.set(0);
        if count > 0
            && let Some(base) = self.base.get()
            // SAFETY: 1. the rest of our own reservation, which nobody was given.
            && !unsafe { os::unmap(base, PageLen::chunks(count)) }
        {
            // Not for want of memory: at the limit of mappings chunks can still be had from it.
            self.left.set(count);
        }
    }
}

pub(super) fn leaf_for(base: NonNull<u8>) -> bool {
    let address = base.addr().get();
    if ARENA.owners.has_leaf(address) {
        return true;
    }
    let Some(leaf) = ARENA.owners.prepare(address) else {
        return false;
    };
    let arena = ARENA.lock();
    if !ARENA.owners.has_leaf(address) {
        ARENA.owners.add_leaf(&arena, address, leaf);
    }
    true
}
