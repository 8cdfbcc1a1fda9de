//! A sub-slab: a block of the engine that a heap has cut into blocks of one class, and its two bitmaps.
//!
//! It belongs to one part of the heap, and so to one thread, its *owner*. A block is free if its bit is set in either
//! bitmap:
//!
//! | bitmap | set by | cleared by |
//! |---|---|---|
//! | `free` | the owner: when it frees a block, and when it collects | the owner, when it allocates |
//! | `returned` | any other thread that frees a block | the owner, when it collects |
//!
//! To collect is to set in `free` what is set in `returned`, then to clear that there. Nobody but the owner writes
//! the first line of the descriptor, so that an allocation and a free by the owner are plain loads and stores.

use core::ptr::{self, NonNull};

use static_assertions::const_assert;

use super::class::{Class, MOST};
use super::returned::Linked;
use crate::error::Misuse;
use crate::sync::{
    AtomicPtr, AtomicU64, GuardedPtr, GuardedU8, GuardedU16, GuardedU32, GuardedU64, Ordering,
};
use crate::units::{LINE, low_bits};

/// Bits of a word.
const WORD: usize = u64::BITS as usize;
/// Words of a bitmap.
const WORDS: usize = MOST / WORD;

/// Where a sub-slab is, as its owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Place {
    /// It has no block of the engine.
    Unused = 0,
    /// Its class's allocations come from it.
    Current = 1,
    /// In the list of those with free blocks.
    Listed = 2,
    /// In no list: the owner knows of no free block.
    Full = 3,
}

/// The descriptor. All zero is one that is not used, and has no free block.
#[repr(C, align(64))]
pub(super) struct SubSlab {
    /// First byte; null if it is not used.
    base: AtomicPtr<u8>,
    /// Bytes of a block, and of all.
    size: GuardedU32,
    bytes: GuardedU32,
    /// See [`Class::reciprocal`].
    reciprocal: GuardedU32,
    blocks: GuardedU16,
    /// Blocks whose bit in `free` is clear.
    used: GuardedU16,
    class: GuardedU8,
    place: GuardedU8,
    /// What the free blocks were when its free pages were purged, in one number; 0 once it gave one out since.
    purged: GuardedU32,
    free: [GuardedU64; WORDS],
    /// The part that it belongs to. Written by others from here on.
    part: AtomicPtr<u8>,
    next: GuardedPtr<Self>,
    previous: GuardedPtr<Self>,
    /// Null while it is in no stack of the [returned](super::returned).
    next_returned: AtomicPtr<Self>,
    returned: [AtomicU64; WORDS],
}

const_assert!(size_of::<SubSlab>() == 2 * LINE);
const_assert!(core::mem::offset_of!(SubSlab, part) == LINE);

/// Has no block: what is current where there is none.
pub(super) static NONE: SubSlab = SubSlab::unused();

/// The bit of a block: its word, and its place there.
#[inline(always)]
fn bit_of(block: usize) -> (usize, u64) {
    // The remainder shows the compiler that the word exists.
    (block / WORD % WORDS, 1 << (block % WORD))
}

impl Linked for SubSlab {
    fn link(&self) -> &AtomicPtr<Self> {
        &self.next_returned
    }
}

impl SubSlab {
    pub(super) const fn unused() -> Self {
        Self {
            base: AtomicPtr::new(ptr::null_mut()),
            size: GuardedU32::new(0),
            bytes: GuardedU32::new(0),
            reciprocal: GuardedU32::new(0),
            blocks: GuardedU16::new(0),
            used: GuardedU16::new(0),
            class: GuardedU8::new(0),
            place: GuardedU8::new(Place::Unused as u8),
            purged: GuardedU32::new(0),
            free: [const { GuardedU64::new(0) }; WORDS],
            part: AtomicPtr::new(ptr::null_mut()),
            next: GuardedPtr::null(),
            previous: GuardedPtr::null(),
            next_returned: AtomicPtr::new(ptr::null_mut()),
            returned: [const { AtomicU64::new(0) }; WORDS],
        }
    }

    /// Cuts `bytes` at `base` into blocks of a class. By its owner, from whom others learn of it with its first block.
    pub(super) fn begin(&self, base: NonNull<u8>, bytes: usize, class: Class) {
        let reciprocal = class.reciprocal();
        #[expect(clippy::cast_possible_truncation, reason = "at most the bytes, 32 KiB")]
        let blocks = ((bytes as u64 * u64::from(reciprocal)) >> 32) as u16;
        let mut left = usize::from(blocks);
        for word in &self.free {
            word.set(low_bits(left));
            left = left.saturating_sub(WORD);
        }
        for returned in &self.returned {
            // ORDERING: nobody has a block yet.
            returned.store(0, Ordering::Relaxed);
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 32 KiB")]
        {
            self.size.set(class.size() as u32);
            self.bytes.set(bytes as u32);
        }
        self.reciprocal.set(reciprocal);
        self.blocks.set(blocks);
        self.used.set(0);
        self.class.set(class.number());
        // ORDERING: last: a child of a fork in the midst of this finds none that is used.
        self.base.store(base.as_ptr(), Ordering::Release);
    }

    /// Has no block of the engine any more; the one that it had.
    pub(super) fn end(&self) -> Option<(NonNull<u8>, usize)> {
        let base = NonNull::new(self.base.load(Ordering::Relaxed))?;
        let bytes = self.bytes();
        // ORDERING: by its owner, or by who has the heap alone; here and above.
        self.base.store(ptr::null_mut(), Ordering::Relaxed);
        self.set_place(Place::Unused);
        self.bytes.set(0);
        self.used.set(0);
        self.free.iter().for_each(|word| word.set(0));
        Some((base, bytes))
    }

    pub(super) fn is_used(&self) -> bool {
        // ORDERING: as in `end`.
        !self.base.load(Ordering::Relaxed).is_null()
    }

    #[inline(always)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.get() as usize
    }

    #[inline(always)]
    pub(super) fn size(&self) -> usize {
        self.size.get() as usize
    }

    #[inline]
    pub(super) fn class(&self) -> Class {
        Class::new(self.class.get())
    }

    #[inline(always)]
    pub(super) fn used(&self) -> usize {
        usize::from(self.used.get())
    }

    #[inline(always)]
    pub(super) fn blocks(&self) -> usize {
        usize::from(self.blocks.get())
    }

    pub(super) fn place(&self) -> Place {
        match self.place.get() {
            0 => Place::Unused,
            1 => Place::Current,
            2 => Place::Listed,
            _ => Place::Full,
        }
    }

    pub(super) fn set_place(&self, place: Place) {
        self.place.set(place as u8);
        if place == Place::Current {
            self.is_not_purged();
        }
    }

    /// The next purge is to try again.
    pub(super) fn is_not_purged(&self) {
        self.purged.set(0);
    }

    /// Whether its free pages are to be purged: not if they were, and the same blocks have been free since. From here on
    /// they were.
    pub(super) fn is_to_be_purged(&self) -> bool {
        let digest = self.free.iter().fold(1, |digest: u64, word| {
            (digest ^ word.get()).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        let digest = (digest >> 32) as u32 | 1;
        let is_new = self.purged.get() != digest;
        self.purged.set(digest);
        is_new
    }

    /// The part that it belongs to.
    pub(super) fn part(&self) -> *mut u8 {
        // ORDERING: of a live block, older than the block. It changes when its owner is gone; who frees meanwhile
        // may have read either.
        self.part.load(Ordering::Acquire)
    }

    pub(super) fn set_part(&self, part: *mut u8) {
        // ORDERING: publishes the part to who frees; see `part`.
        self.part.store(part, Ordering::Release);
    }

    /// The first word that has free blocks and which these are, for [`check_out`](Self::check_out).
    pub(super) fn free_word(&self) -> Option<(usize, u64)> {
        let words = self.free.iter().map(GuardedU64::get).enumerate();
        words.into_iter().find(|(_, bits)| *bits != 0)
    }

    /// The blocks of the first word of one that was just begun: all of them are free.
    pub(super) fn fresh_word(&self) -> u64 {
        low_bits(self.blocks())
    }

    /// Marks these used: its owner has them at hand.
    pub(super) fn check_out_fresh(&self) {
        self.free[0].set(0);
        #[expect(clippy::cast_possible_truncation, reason = "64")]
        self.used.set(self.blocks.get().min(WORD as u16));
    }

    /// Marks all blocks of a word used: its owner has them at hand.
    pub(super) fn check_out(&self, word: usize) {
        let taken = self.free[word].get().count_ones();
        self.free[word].set(0);
        self.add_used(taken);
    }

    /// Marks blocks free that were checked out of the word whose first block is at this address. In a child of a fork they
    /// may be that already.
    pub(super) fn check_in(&self, first: usize, bits: u64) {
        let Some(distance) = self.inside(first) else {
            return;
        };
        let word = distance / (WORD * self.size()) % WORDS;
        let before = self.free[word].get();
        self.free[word].set(before | bits);
        self.take_used((bits & !before).count_ones());
    }

    fn add_used(&self, blocks: u32) {
        #[expect(clippy::cast_possible_truncation, reason = "at most `MOST`")]
        self.used.set(self.used.get().wrapping_add(blocks as u16));
    }

    fn take_used(&self, blocks: u32) {
        #[expect(clippy::cast_possible_truncation, reason = "at most `MOST`")]
        self.used.set(self.used.get().wrapping_sub(blocks as u16));
    }

    /// The first block of a word of the bitmap.
    pub(super) fn first_of(&self, word: usize) -> *mut u8 {
        // ORDERING: the owner's own.
        let base = self.base.load(Ordering::Relaxed);
        base.wrapping_add(word * WORD * self.size())
    }

    pub(super) fn start(&self) -> usize {
        self.base().map_or(0, |base| base.addr().get())
    }

    /// The first byte, if it has any.
    pub(super) fn base(&self) -> Option<NonNull<u8>> {
        // ORDERING: as in `inside`.
        NonNull::new(self.base.load(Ordering::Relaxed))
    }

    /// Whether a block is free as far as its owner knows, or there is no such block.
    pub(super) fn is_free(&self, block: usize) -> bool {
        let (word, bit) = bit_of(block);
        block >= self.blocks() || self.free[word].get() & bit != 0
    }

    /// How far `address` lies behind the first byte, if it lies inside.
    #[inline(always)]
    pub(super) fn inside(&self, address: usize) -> Option<usize> {
        // ORDERING: set before the first block left.
        // OVERFLOW: what lies before it wraps to more than its bytes.
        let distance = address.wrapping_sub(self.base.load(Ordering::Relaxed).addr());
        (distance < self.bytes()).then_some(distance)
    }

    /// The block that begins at this distance.
    #[inline(always)]
    fn block_at(&self, distance: usize) -> Result<usize, Misuse> {
        let block = (distance as u64 * u64::from(self.reciprocal.get())) >> 32;
        let block = block as usize;
        if block * self.size() == distance && block < self.blocks() {
            Ok(block)
        } else {
            Err(Misuse::Interior)
        }
    }

    /// The word and the bit of the block at this distance, if it is used as far as its owner knows.
    #[inline(always)]
    pub(super) fn used_at(&self, distance: usize) -> Result<(usize, u64), Misuse> {
        let (word, bit) = bit_of(self.block_at(distance)?);
        if self.free[word].get() & bit == 0 {
            Ok((word, bit))
        } else {
            Err(Misuse::Freed)
        }
    }

    /// The same, if nobody else gave it back either.
    pub(super) fn live_at(&self, distance: usize) -> Result<(usize, u64), Misuse> {
        let (word, bit) = self.used_at(distance)?;
        // ORDERING: a check.
        if self.returned[word].load(Ordering::Relaxed) & bit == 0 {
            Ok((word, bit))
        } else {
            Err(Misuse::Freed)
        }
    }

    /// Takes back a block that is [live](Self::live_at), by the owner.
    #[inline(always)]
    pub(super) fn put(&self, (word, bit): (usize, u64)) {
        self.free[word].set(self.free[word].get() | bit);
        self.take_used(1);
    }

    /// Takes back the block at this distance, by another thread. The sub-slab is not looked at any more once it is
    /// back: its owner may have it for another class.
    pub(super) fn give_back(&self, distance: usize) -> Result<(), Misuse> {
        let (word, bit) = self.used_at(distance)?;
        // ORDERING: release: pairs with `collect`, by which the next user of the block has what the last one did. Acquire:
        // what the owner did before it last looked, see `returned`.
        let before = self.returned[word].fetch_or(bit, Ordering::AcqRel);
        if before & bit != 0 {
            return Err(Misuse::Freed);
        }
        Ok(())
    }

    /// Takes in what others gave back, by the owner; how many blocks.
    pub(super) fn collect(&self) -> usize {
        let words = self.blocks().div_ceil(WORD);
        let mut count = 0;
        for (free, returned) in self.free.iter().zip(&self.returned).take(words) {
            // ORDERING: acquire: pairs with `give_back`. Release, and a read-modify-write: see `returned`.
            let bits = returned.fetch_or(0, Ordering::AcqRel);
            if bits != 0 {
                free.set(free.get() | bits);
                // ORDERING: of these bits nobody else knows; others come in meanwhile.
                returned.fetch_and(!bits, Ordering::Relaxed);
                count += bits.count_ones();
            }
        }
        self.take_used(count);
        count as usize
    }

    /// Counts anew, for an owner who may have gone between two stores, and takes in what others gave back;
    /// how many blocks that was.
    pub(super) fn recount(&self) -> usize {
        for (free, returned) in self.free.iter().zip(&self.returned) {
            // ORDERING: acquire: as in `collect`, which was cut short where a bit is set in both.
            let both = returned.load(Ordering::Acquire) & free.get();
            returned.fetch_and(!both, Ordering::Relaxed);
        }
        self.used.set(0);
        let count = self.collect();
        let free: u32 = self.free.iter().map(|word| word.get().count_ones()).sum();
        #[expect(clippy::cast_possible_truncation, reason = "at most `MOST`")]
        self.used.set(self.blocks.get() - free as u16);
        count
    }

    /// What is wrong with it, by who has the heap alone.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let blocks = self.blocks();
        let mut free = 0;
        for (index, (word, returned)) in self.free.iter().zip(&self.returned).enumerate() {
            // ORDERING: nobody else is there.
            let returned = returned.load(Ordering::Relaxed);
            let beyond = !low_bits(blocks.saturating_sub(index * WORD));
            if (word.get() | returned) & beyond != 0 {
                return Some("I13: a sub-slab has no bits beyond its blocks");
            }
            if word.get() & returned != 0 {
                return Some("I13: a block of a sub-slab is free once");
            }
            free += word.get().count_ones() as usize;
        }
        (free + self.used() != blocks).then_some("I13: a sub-slab's used blocks are counted")
    }

    /// The next of a list.
    pub(super) fn next(&self) -> Option<NonNull<Self>> {
        self.next.get()
    }

    /// Inserts it in front of a list.
    pub(super) fn link(&self, first: &GuardedPtr<Self>) {
        self.previous.set(None);
        self.next.set(first.get());
        if let Some(after) = first.get() {
            // SAFETY: 1. in a list, so a descriptor of this heap, which lives as long as the heap's memory.
            unsafe { after.as_ref() }.previous.set(Some(self.into()));
        }
        first.set(Some(self.into()));
    }

    /// Removes it from its list.
    pub(super) fn unlink(&self, first: &GuardedPtr<Self>) {
        let (previous, next) = (self.previous.get(), self.next.get());
        match previous {
            // SAFETY: 1. as in `link`.
            Some(before) => unsafe { before.as_ref() }.next.set(next),
            None => first.set(next),
        }
        if let Some(after) = next {
            // SAFETY: 1. as in `link`.
            unsafe { after.as_ref() }.previous.set(previous);
        }
    }

    /// Inserts it in front of the unused ones, which have one link.
    pub(super) fn link_unused(&self, first: &GuardedPtr<Self>) {
        self.next.set(first.get());
        first.set(Some(self.into()));
    }
}
