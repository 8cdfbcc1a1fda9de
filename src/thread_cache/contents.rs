//! Which slot of a magazine's array holds what, and how that changes: all that counts slots, but
//! for the fast paths' `pop` and `push` (`magazine`), is in this file.
//!
//! ```text
//!                     slot 0  1       2       3      ...  n       n + 1 ...  header
//! at rest             -       null    oldest  older  ...  second  -          head: newest
//!                                                         ^ top
//! filled by a refill  -       first   last    ...    ...  second  -          head: null
//! emptied by a flush  -       newest  oldest  older  ...  second  -          head: null
//! ```
//!
//! *At rest*, with `n` blocks, `head` is null if `n` is 0, and each `pop` moves the block at `top`,
//! the second newest, to `head`. The last of them moves the null of slot 1, with `top` there, and
//! so empties the magazine: that is why slot 1 is kept null.
//!
//! *A refill* finds the magazine empty. `heap::refill` writes its blocks to the slots from 1 on, in
//! the order of the second line; [`load`](Magazine::load) takes the one to hand out at once from
//! slot 1, which is null again, and the second from slot `n` to `head`: at rest with `n - 1`
//! blocks, which are popped from the second to the last.
//!
//! *A flush of all* needs the blocks in a row: [`unload`](Magazine::unload) puts the newest in slot
//! 1 until they are in the bitmaps. A flush of some takes the oldest from slot 2 on and closes the
//! gap.
//!
//! Why this is safe in any order of stores: refills and flushes run under the gate, on the thread
//! whose magazine it is, or on one that has the cache of no thread. Who reads slots meanwhile needs
//! the gate, too, or is the thread itself, at brief work (`push_gated`), so sees them at rest; the stores of the fast paths, which run without it, are
//! ordered in `push`. A child of `fork` may find any state: the class is noted as busy, and the
//! child gives that magazine up without a look at its slots.
//!
//! All of a thread's magazines with room for one block share the two slots `nil`. At rest neither
//! holds a block: slot 1 is null, slot 0 is not used, and the block is in `head`. A refill or a
//! flush writes slot 1 and clears it before it ends, on a thread that does one at a time. One that
//! is cut short, by a wrong block or by `fork`, ends in [`give_up`](super::LockedCache::give_up),
//! which clears it.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use super::magazine::Magazine;
use crate::sync::{Ordering, Slot};

/// The slots of a magazine at rest, and how many blocks it holds, while its gate is held or its thread is at brief
/// work.
#[derive(Clone, Copy)]
pub(crate) struct Contents<'a> {
    pub(super) slots: &'static [Slot],
    blocks: usize,
    gate: PhantomData<&'a ()>,
}

impl<'a> Contents<'a> {
    /// What is in `magazine`, which has `slots`.
    pub(super) fn of(magazine: &Magazine, slots: &'static [Slot]) -> Self {
        let blocks = if slots.is_empty() {
            0
        } else {
            magazine.len_of(slots)
        };
        Self {
            slots,
            blocks,
            gate: PhantomData,
        }
    }

    /// Blocks in the magazine.
    pub(crate) fn blocks(self) -> usize {
        self.blocks
    }

    /// Most blocks that it can hold.
    pub(crate) fn capacity(self) -> usize {
        self.slots.len().saturating_sub(1)
    }

    /// All blocks but the newest, oldest first.
    pub(crate) fn older(self) -> &'a [Slot] {
        self.slots.get(2..=self.blocks).unwrap_or_default()
    }

    /// The `count` oldest blocks, which are fewer than there are.
    pub(super) fn oldest(self, count: usize) -> &'a [Slot] {
        &self.slots[2..2 + count]
    }

    /// Where a refill writes `count` blocks, of an empty magazine.
    pub(crate) fn for_refill(self, count: usize) -> &'a [Slot] {
        &self.slots[1..=count]
    }

    /// Copies what the array holds at rest into a longer or shorter one that no magazine has yet.
    pub(super) fn copy_to(self, array: &[Slot]) {
        debug_assert!(self.blocks < array.len());
        for (new, old) in array.iter().zip(self.slots).take(self.blocks + 1) {
            // ORDERING: only this thread writes; the array is not installed yet.
            new.store(old.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

impl Magazine {
    /// Whether `block` is in the magazine: a few places to look at, where the magazine is of a
    /// gated class.
    pub(super) fn holds(&self, contents: Contents<'_>, block: NonNull<u8>) -> bool {
        // ORDERING: only this thread writes.
        let is_it = |slot: &Slot| slot.load(Ordering::Relaxed) == block.as_ptr();
        self.head() == block.as_ptr() || contents.older().iter().any(is_it)
    }

    /// Takes in the `blocks` that a refill [wrote](Contents::for_refill), but for the one to hand
    /// out at once, which is returned.
    pub(crate) fn load(&self, contents: Contents<'_>, blocks: usize) -> *mut u8 {
        let slots = contents.slots;
        // ORDERING: only this thread writes, under its gate.
        let first = slots[1].swap(ptr::null_mut(), Ordering::Relaxed);
        let second = slots[blocks].load(Ordering::Relaxed);
        self.install(slots, blocks - 1, second);
        first
    }

    /// Empties the magazine; its blocks, all in a row, until [`end_unload`].
    pub(super) fn unload<'a>(&self, contents: Contents<'a>) -> &'a [Slot] {
        let slots = contents.slots;
        // ORDERING: only this thread writes, under its gate.
        slots[1].store(self.head(), Ordering::Relaxed);
        self.install(slots, 0, ptr::null_mut());
        &slots[1..=contents.blocks]
    }

    /// Closes the gap that the `count` oldest blocks have left, which are fewer than there are.
    pub(super) fn drop_oldest(&self, contents: Contents<'_>, count: usize) {
        let (slots, blocks) = (contents.slots, contents.blocks);
        let (kept, place) = (&slots[2 + count..=blocks], slots[2..].as_ptr().cast_mut());
        // SAFETY: 1. both lie in one array, which only this thread writes and others read under the
        // same gate. In one go: a large magazine keeps thousands.
        unsafe { ptr::copy(kept.as_ptr(), place, kept.len()) };
        self.install(slots, blocks - count, self.head());
    }
}

/// Makes slot 1 null again after [`Magazine::unload`].
pub(super) fn end_unload(contents: Contents<'_>) {
    // ORDERING: only this thread writes, under its gate.
    contents.slots[1].store(ptr::null_mut(), Ordering::Relaxed);
}
