//! What a thread of a hardened or sampled process keeps: blocks in quarantine, its random numbers, its countdown to
//! the next sampled allocation.
//!
//! Only the thread itself writes, with or without its gate, as it does with its magazines; who holds
//! the gate may read. Blocks in quarantine are free; nobody purges under them.

use core::ptr;

use static_assertions::const_assert;

use super::locked::LockedCache;
use crate::arena::meta;
use crate::config::{self, Mode};
use crate::hardening::Hardening;
use crate::heap::{self, Wrong};
use crate::os::failpoints;
use crate::random::Random;
use crate::size_class::{CLASSES, SizeClass, block_size};
use crate::sync::{GuardedU8, GuardedUsize, Ordering, Slot};

/// Most blocks of a class in quarantine: a power of two.
const WAITING: usize = 32;
/// Frees that are some full rounds.
const FULL_TURNS: u8 = 64;
const_assert!((FULL_TURNS as usize).is_multiple_of(WAITING));
/// Bytes of blocks of a class in quarantine, unless that is fewer blocks than [`LEAST`].
const BYTES: usize = 32 << 10;
/// Every class keeps this many blocks waiting: a power of two.
const LEAST: usize = 4;
/// Blocks that a shuffle mixes.
const NEIGHBOURS: usize = 8;
/// Longest blocks that are shuffled: with longer ones, more than a page would be in use at once.
const SHUFFLED: usize = 256;
/// One thread's state. All zero is an empty one, once [`Random::seed`] was called.
pub(crate) struct Safeguards {
    random: Random,
    /// The next allocation but so many is a sample, itself counted; 0 before the first.
    countdown: GuardedUsize,
    /// 1 while the thread records its callers.
    is_recording: GuardedU8,
    quarantines: [Quarantine; CLASSES],
}

/// The blocks of one class that wait, in two halves. Frees take turns: each puts its block in the place of
/// another, for half a round in one half, for the next in the other; so a block waits for half a round
/// at least, and for one and a half at most. Where order is to be random, it differs from half round to half round.
struct Quarantine {
    places: [Slot; WAITING],
    /// Frees since the quarantine was empty; after 255 of them, some number of rounds less.
    turn: GuardedU8,
    /// Which turn goes to which place of a half: exclusive or, below half the places.
    key: GuardedU8,
}

/// The number of places that each class uses, less one.
const MASKS: [u8; CLASSES] = {
    let mut masks = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let mut places = WAITING;
        while places > LEAST && places * block_size(class) > BYTES {
            places /= 2;
        }
        #[expect(clippy::cast_possible_truncation, reason = "below WAITING")]
        {
            masks[class] = places as u8 - 1;
        }
        class += 1;
    }
    masks
};

impl Safeguards {
    /// `None` without memory: then the thread does without.
    pub(crate) fn new() -> Option<&'static Self> {
        let place = meta::alloc_pages(size_of::<Self>())?;
        // SAFETY: 1. zeroed metadata of this size, aligned to a page, never freed.
        let safeguards: &'static Self = unsafe { place.cast::<Self>().as_ref() };
        safeguards.random.seed();
        Some(safeguards)
    }

    /// Takes a freed block in; a block that has waited, or null.
    #[inline(always)]
    pub(crate) fn admit(&self, block: *mut u8, class: SizeClass, mode: Mode) -> *mut u8 {
        if !mode.has(Hardening::QUARANTINE) {
            return block;
        }
        let quarantine = &self.quarantines[class.index()];
        let mask = MASKS[class.index()];
        let turn = quarantine.turn.get();
        // Never 0 again, which says that nobody waits.
        quarantine
            .turn
            .set(turn.checked_add(1).unwrap_or(FULL_TURNS));
        if turn & (mask / 2) == 0 && mode.has(Hardening::RANDOM) {
            quarantine.rekey(&self.random, mask);
        }
        let place = (turn ^ quarantine.key.get()) & mask;
        exchange(&quarantine.places[usize::from(place) % WAITING], block)
    }

    /// Counts an allocation that is not to be sampled, as most; `false` leaves the answer, and the counting, to
    /// [`is_due`](Self::is_due).
    #[inline(always)]
    pub(crate) fn count_down(&self) -> bool {
        let left = self.countdown.get();
        if left <= 1 {
            return false;
        }
        self.countdown.set(left - 1);
        true
    }

    /// Runs what records callers: the unwinder may allocate, under a lock of its own, so nothing is sampled
    /// meanwhile.
    pub(crate) fn while_recording<R>(&self, work: impl FnOnce() -> R) -> R {
        self.is_recording.set(1);
        let result = work();
        self.is_recording.set(0);
        result
    }

    /// Counts the allocation about to be made; whether it is one to sample, of which there is one in `mean`.
    pub(crate) fn is_due(&self, mean: usize) -> bool {
        if self.is_recording.get() != 0 {
            return false;
        }
        if self.countdown.get() == 0 {
            self.countdown.set(self.first_wait(mean));
        }
        if self.count_down() {
            return false;
        }
        // Uniform between 1 and twice the mean less one: who knows the program cannot know which.
        self.countdown.set(1 + self.random.below(span(mean)));
        true
    }

    /// What is left of a wait at an allocation of no account, as if the thread had always been there: then each of its
    /// allocations, from the first on, has one chance in `mean`. A wait of `n` is left as often as waits are that long.
    fn first_wait(&self, mean: usize) -> usize {
        // The lesser of two different numbers to twice the mean less one.
        let first = self.random.below(span(mean).saturating_add(1));
        let second = self.random.below(span(mean));
        1 + first.min(second + usize::from(second >= first))
    }

    /// Puts the addresses in `slots` in another order, within neighbourhoods: blocks that are used
    /// together are to stay together.
    pub(crate) fn shuffle(&self, slots: &[Slot], class: SizeClass) {
        if class.size() > SHUFFLED {
            return;
        }
        slots
            .chunks(NEIGHBOURS)
            .for_each(|near| self.shuffle_all(near));
    }

    fn shuffle_all(&self, slots: &[Slot]) {
        for last in (1..slots.len()).rev() {
            let bound = u32::try_from(last + 1).unwrap_or(u32::MAX);
            let other = self.random.below(bound);
            // ORDERING: only this thread writes; see the module.
            let address = slots[last].load(Ordering::Relaxed);
            let address = exchange(&slots[other], address);
            slots[last].store(address, Ordering::Relaxed);
        }
    }

    /// The blocks of `class` that wait.
    fn waiting(&self, class: SizeClass) -> impl Iterator<Item = &Slot> {
        let slots = self.quarantines[class.index()].places.iter();
        // ORDERING: only the thread itself writes; any of its values will do.
        slots.filter(|slot| !slot.load(Ordering::Relaxed).is_null())
    }

    /// Bytes of blocks that wait.
    pub(crate) fn bytes(&self) -> usize {
        let of_class = |class: SizeClass| self.waiting(class).count() * class.size();
        SizeClass::all().map(of_class).sum()
    }
}

/// How many waits there are, all as likely, for one sample in `mean` allocations.
fn span(mean: usize) -> u32 {
    u32::try_from(mean * 2 - 1).unwrap_or(u32::MAX)
}

impl Quarantine {
    /// Another order for the half round that begins.
    #[inline(never)]
    fn rekey(&self, random: &Random, mask: u8) {
        let half = u32::from(mask) / 2 + 1;
        #[expect(clippy::cast_possible_truncation, reason = "below half the mask")]
        self.key.set(random.below(half) as u8);
    }
}

/// Only this thread writes: no atomic exchange is needed.
#[inline]
fn exchange(slot: &Slot, new: *mut u8) -> *mut u8 {
    // ORDERING: as above.
    let old = slot.load(Ordering::Relaxed);
    slot.store(new, Ordering::Relaxed);
    old
}

impl LockedCache<'_> {
    /// Lets the blocks in quarantine go back to the heaps. The thread is the caller, or gone.
    pub(crate) fn empty_quarantine(self) -> Result<(), Wrong> {
        let Some(safeguards) = self.safeguards.get() else {
            return Ok(());
        };
        for class in SizeClass::all() {
            let quarantine = &safeguards.quarantines[class.index()];
            if quarantine.turn.get() == 0 {
                continue;
            }
            quarantine.turn.set(0);
            let all = [const { Slot::new(ptr::null_mut()) }; WAITING];
            let mut waiting = 0;
            for slot in safeguards.waiting(class) {
                // ORDERING: on this thread's stack.
                all[waiting].store(exchange(slot, ptr::null_mut()), Ordering::Relaxed);
                waiting += 1;
            }
            // SAFETY: 1. free blocks that are in no magazine, and in quarantine no more.
            unsafe { heap::flush(class, &all[..waiting])? };
        }
        Ok(())
    }

    /// In a forked child: takes the blocks back that wait in the quarantine of a thread that is gone.
    pub(crate) fn adopt_quarantine(self) {
        let Some(safeguards) = self.safeguards.get() else {
            return;
        };
        for class in SizeClass::all() {
            for slot in safeguards.waiting(class) {
                // Out of its place first: this child may be forked in between, and the block handed out by then.
                let block = Slot::new(exchange(slot, ptr::null_mut()));
                heap::recover::adopt(class, &[block]);
                failpoints::at(failpoints::Point::Adopt);
            }
        }
    }

    /// Gives the cache the safeguards that its process wants, if it has none from an earlier
    /// thread.
    pub(crate) fn equip(self) {
        match self.safeguards.get() {
            // A thread that vanished in a child may have been recording.
            Some(safeguards) => safeguards.is_recording.set(0),
            None if config::mode().is_hardened() => self.safeguards.set(Safeguards::new()),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread's first allocation, and each after it, is a sample as often as any: the chance of each is known, and
    /// a count is off by no more than six deviations.
    #[test]
    fn each_allocation_has_the_same_chance() {
        const THREADS: usize = 20_000;
        const ALLOCATIONS: usize = 40;
        let safeguards = Safeguards::new().expect("memory");
        for mean in [1, 2, 3, 10, 1_000] {
            let mut samples = [0_usize; ALLOCATIONS];
            for _ in 0..THREADS {
                // As a new thread's is.
                safeguards.countdown.set(0);
                for sampled in &mut samples {
                    *sampled += usize::from(!safeguards.count_down() && safeguards.is_due(mean));
                }
            }
            let (expected, most) = (THREADS / mean, 6 * (THREADS / mean).isqrt());
            for (number, found) in samples.into_iter().enumerate() {
                let off = found.abs_diff(expected);
                assert!(
                    off <= if mean == 1 { 0 } else { most },
                    "{found} of {expected}: {number}, {mean}"
                );
            }
        }
    }
}
