//! What a part has of one class: a magazine, some blocks of the current sub-slab, and counts of others.
//!
//! What is *at hand* is free, though bitmaps say that it is used: the blocks in the magazine, of whatever part or
//! sub-slab, and some of one word of the current sub-slab's bitmap, which were *checked out*.

use core::ptr::{self, NonNull};

use super::class::Class;
use super::sub_slab::{NONE, SubSlab};
use crate::os::failpoints;
use crate::sync::{AtomicPtr, GuardedU16, GuardedU32, GuardedU64, GuardedUsize, Ordering, Slot};
use crate::thread_cache::Magazine;

/// Slots of the first magazine of every class that something is freed of: room for one block. All of them are the
/// same two: at rest the block is in the magazine itself.
pub(super) const FIRST: usize = 2;
/// Slots of a larger magazine, and of the largest.
pub(super) const MORE: [usize; 2] = [16, MOST_SLOTS];
const MOST_SLOTS: usize = 64;

/// One class of a part. All zero is one without blocks, whose magazine has no room. A line, so that a shift leads to it.
#[repr(C, align(64))]
pub(super) struct Entry {
    magazine: Magazine,
    /// Blocks that were checked out, and the first block of the word whose bits they are.
    bits: GuardedU64,
    first: AtomicPtr<u8>,
    /// Null is none.
    current: AtomicPtr<SubSlab>,
    /// Used blocks of all sub-slabs but the current one.
    used: GuardedU32,
    /// Sub-slabs, as far as that fits.
    count: GuardedU16,
    /// Slots of the magazine, and where they begin: for who counts its blocks while the owner is at work.
    slots: GuardedU16,
    base: GuardedUsize,
}

impl Entry {
    /// Gives the magazine slots, the first `n` of which behind slot 0 are as [`Magazine`] says, and a newest block.
    pub(super) fn install(&self, slots: &'static [Slot], n: usize, newest: *mut u8) {
        #[expect(clippy::cast_possible_truncation, reason = "some tens")]
        self.slots.set(slots.len() as u16);
        self.magazine.install(slots, n, newest);
        // Last: until then a child of a fork finds that the rest does not fit.
        self.base.set(slots.as_ptr().addr());
    }

    /// The magazine's slots, and how many blocks there are.
    pub(super) fn contents(&self) -> (&'static [Slot], usize) {
        match usize::from(self.slots.get()) {
            0 => (&[], 0),
            count if !self.magazine.has(self.base.get(), count) => (&[], 0),
            count => {
                let slots = self.magazine.slots(count);
                (slots, self.magazine.len_of(slots))
            }
        }
    }

    pub(super) fn newest(&self) -> *mut u8 {
        self.magazine.head()
    }

    /// A block at hand.
    #[inline(always)]
    pub(super) fn take(&self, class: Class) -> Option<NonNull<u8>> {
        if let Some(newest) = NonNull::new(self.magazine.pop()) {
            return Some(newest);
        }
        let bits = self.bits.get();
        if bits == 0 {
            return None;
        }
        self.bits.set(bits & (bits - 1));
        // ORDERING: the owner's own.
        let first = self.first.load(Ordering::Relaxed);
        // SAFETY: 1. what has bits has a first block.
        let first = unsafe { NonNull::new_unchecked(first) };
        let distance = bits.trailing_zeros() as usize * class.size();
        // SAFETY: 1. the bit of a block of the sub-slab, which lies so far behind the first of its word.
        Some(unsafe { crate::ptr::advance(first, distance) })
    }

    /// Takes back a block; `false` if the magazine is full.
    #[inline(always)]
    pub(super) fn push(&self, block: NonNull<u8>) -> bool {
        self.magazine.push(block)
    }

    /// Checks the free blocks of a word of the current sub-slab out; `false` if there are none.
    pub(super) fn check_out(&self) -> bool {
        let current = self.current();
        let Some((word, bits)) = current.free_word() else {
            return false;
        };
        // ORDERING: the owner's own.
        self.first.store(current.first_of(word), Ordering::Relaxed);
        // Before they are marked used: a child of a fork in between has them twice, not lost.
        self.bits.set(bits);
        failpoints::at(failpoints::Point::Part);
        current.check_out(word);
        true
    }

    /// The same for a current sub-slab that was just begun: a word's worth of its blocks.
    pub(super) fn check_out_fresh(&self, slab: &SubSlab) {
        // ORDERING: the owner's own.
        self.first.store(slab.first_of(0), Ordering::Relaxed);
        self.bits.set(slab.fresh_word());
        failpoints::at(failpoints::Point::Part);
        slab.check_out_fresh();
    }

    /// Marks what was checked out free.
    pub(super) fn check_in(&self) {
        let bits = self.bits.get();
        if bits != 0 {
            // ORDERING: the owner's own.
            let first = self.first.load(Ordering::Relaxed);
            self.current().check_in(first.addr(), bits);
            failpoints::at(failpoints::Point::Part);
            self.bits.set(0);
        }
    }

    /// Whether the block at this address was checked out.
    pub(super) fn is_checked_out(&self, slab: &SubSlab, address: usize) -> bool {
        let bits = self.bits.get();
        // ORDERING: the owner's own.
        let first = self.first.load(Ordering::Relaxed).addr();
        // OVERFLOW: what lies before it wraps to more than a word has.
        let place = address.wrapping_sub(first) / slab.size();
        bits != 0 && place < u64::BITS as usize && bits >> place & 1 != 0
    }

    /// Blocks at hand. By any thread: an estimate while the owner is at work.
    fn at_hand(&self) -> usize {
        // OVERFLOW: of an array that was just replaced; no magazine has so many.
        let distance = self.magazine.top().wrapping_sub(self.base.get());
        let blocks = Some(distance / size_of::<Slot>()).filter(|blocks| *blocks < MOST_SLOTS);
        blocks.unwrap_or(0) + self.bits.get().count_ones() as usize
    }

    /// Blocks in use. It may be less than none, as blocks of other parts are at hand.
    pub(super) fn in_use(&self) -> usize {
        let marked = self.used.get() as usize + self.current().used();
        // OVERFLOW: modulo 2^64; the sum of all parts is what lives.
        marked.wrapping_sub(self.at_hand())
    }

    pub(super) fn current(&self) -> &SubSlab {
        // ORDERING: the owner's own; a reader of statistics finds one of the heap's, whole enough to be counted.
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: 1. null, or a descriptor of this heap, which lives as long as the heap's memory.
        unsafe { current.as_ref() }.unwrap_or(&NONE)
    }

    pub(super) fn has_no_current(&self) {
        // ORDERING: as in `set_current`.
        self.current.store(ptr::null_mut(), Ordering::Release);
    }

    pub(super) fn set_current(&self, slab: &SubSlab) {
        // ORDERING: publishes the descriptor to readers of statistics.
        self.current
            .store(ptr::from_ref(slab).cast_mut(), Ordering::Release);
    }

    pub(super) fn add_used(&self, blocks: usize) {
        #[expect(clippy::cast_possible_truncation, reason = "at most `MOST`")]
        self.used.set(self.used.get().wrapping_add(blocks as u32));
    }

    pub(super) fn take_used(&self, blocks: usize) {
        #[expect(clippy::cast_possible_truncation, reason = "at most `MOST`")]
        self.used.set(self.used.get().wrapping_sub(blocks as u32));
    }

    /// Sub-slabs; what is beyond many does not matter.
    pub(super) fn count(&self) -> usize {
        usize::from(self.count.get())
    }

    pub(super) fn count_one_more(&self) {
        self.count.set(self.count.get().saturating_add(1));
    }

    pub(super) fn count_one_less(&self) {
        self.count.set(self.count.get().saturating_sub(1));
    }

    /// Has no sub-slabs and nothing at hand, for who lists all anew.
    pub(super) fn forget(&self) {
        let (slots, _) = self.contents();
        if slots.is_empty() {
            self.slots.set(0);
            self.base.set(0);
            self.magazine.uninstall();
        } else {
            self.install(slots, 0, ptr::null_mut());
        }
        self.bits.set(0);
        self.has_no_current();
        self.used.set(0);
        self.count.set(0);
    }
}
