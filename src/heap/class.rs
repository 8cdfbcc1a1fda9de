//! One class of one heap: its slabs, listed by how much of them is free, behind a lock.

mod verify;

use crate::os::{self, Held, Lock, failpoints};
use crate::size_class::ClassInfo;
use crate::slab::{ClassLock, Place, Slab, SlabState, Stopped};
use crate::sync::{GuardedU8, GuardedU32, GuardedUsize, Link, Slot};

use super::by_age::ByAge;
use super::unused::Unused;

/// Lists of partly used slabs by free blocks, in eighths ([`ClassInfo::eighths`]).
const BINS: usize = 8;

/// One class of one heap. A cache line or two of its own: threads contend for it.
#[repr(C, align(128))]
pub(super) struct ClassHeap {
    lock: Lock<ClassLock>,
    /// Slabs in the state [`SlabState::Holes`].
    purged: GuardedU32,
    /// Bit `i` is set when `bins[i]` holds a slab.
    mask: GuardedU8,
    /// Partly used slabs; newest first.
    bins: [Link<Slab>; BINS],
    /// A slab without used blocks, so that a class at a boundary does not thrash.
    spare: Link<Slab>,
    /// Slabs that may have something to purge: those that are [worth](Locked::is_worth) a look and
    /// not clean, and some that were when they were last filed.
    by_age: ByAge,
    /// Free blocks of all slabs of the class.
    free: GuardedUsize,
    /// Slabs of the class.
    slabs: GuardedUsize,
    /// 1 while a child of `fork` knows that the lists need rebuilding.
    broken: GuardedU8,
}

/// Holds the lock of a class until it is dropped.
pub(super) struct LockedClass<'a> {
    class: &'a ClassHeap,
    held: Held<'a, ClassLock>,
}

/// A class whose lock is held: the only way to its lists, and by `held` to what its slabs let nobody
/// else do. Two words that are passed in registers, which the guard is not.
#[derive(Clone, Copy)]
pub(super) struct Locked<'a> {
    class: &'a ClassHeap,
    pub(super) held: &'a ClassLock,
}

/// What [`Locked::look`] found.
pub(super) struct Look {
    /// Slabs looked at.
    pub(super) looks: usize,
    /// No other is due.
    pub(super) is_last: bool,
    /// To be purged and filed again.
    pub(super) old: Option<&'static Slab>,
}

impl LockedClass<'_> {
    #[inline]
    pub(super) fn get(&self) -> Locked<'_> {
        Locked {
            class: self.class,
            held: &self.held,
        }
    }
}

impl ClassHeap {
    #[inline]
    pub(super) fn lock(&self) -> LockedClass<'_> {
        let held = self.lock.lock();
        LockedClass { class: self, held }
    }

    #[inline]
    pub(super) fn try_lock(&self) -> Option<LockedClass<'_>> {
        let held = self.lock.try_lock()?;
        Some(LockedClass { class: self, held })
    }

    /// Free blocks, read without the lock: a guess.
    pub(super) fn free_about(&self) -> usize {
        self.free.get()
    }

    /// Whether there is a spare slab, read without the lock: a guess.
    pub(super) fn may_have_a_spare(&self) -> bool {
        self.spare.get().is_some()
    }

    /// Whether slabs may have something to purge, read without the lock: a guess.
    pub(super) fn may_have_holes(&self) -> bool {
        self.by_age.oldest().is_some()
    }

    /// Slabs of the class, read without the lock: a guess.
    pub(super) fn slabs_about(&self) -> usize {
        self.slabs.get()
    }

    /// In a forked child: takes the lock from a thread that is gone, who may have left the lists
    /// broken, or has slabs that it purged. If so, they are empty from here on.
    ///
    /// # Safety
    /// 1. This is the only thread inside the allocator, and it does not hold the lock.
    pub(super) unsafe fn begin_repair(&self) {
        failpoints::count_step();
        let is_purged = self.purged.get() != 0;
        if self.lock.is_locked() || is_purged {
            // First: once the lock is broken, a child of this child could not tell.
            self.broken.set(1);
        }
        if is_purged {
            self.purged.set(0);
        }
        if self.is_broken() {
            self.lock.break_inherited();
            self.lock().get().begin_anew();
        }
    }

    /// In a forked child: whether the slabs are to be [filed anew](Locked::repair).
    pub(super) fn is_broken(&self) -> bool {
        self.broken.get() != 0
    }

    /// In a forked child, once they are: one that is forked before does it all again.
    pub(super) fn end_repair(&self) {
        self.broken.set(0);
    }
}

impl Locked<'_> {
    /// Inserts a slab in the list of its free count.
    #[inline]
    fn insert(self, slab: &'static Slab, info: &ClassInfo) {
        let bin = info.eighths(slab.free());
        let first = self.class.bins[bin].get();
        slab.previous.set(None);
        slab.next.set(first);
        if let Some(first) = first {
            first.previous.set(Some(slab));
        }
        self.class.bins[bin].set(Some(slab));
        self.class.mask.set(self.class.mask.get() | 1 << bin);
        slab.set_bin(bin, info.reaches_eighths(bin + 1), self.held);
        if !slab.is_by_age() {
            self.see_to_age(slab);
        }
    }

    /// Sees to it that a slab is looked at that was just filed and is not in the list by age. Where
    /// nothing was written since a purge, its next flush or refill is to file it again.
    fn see_to_age(self, slab: &'static Slab) {
        if !slab.is_touched() {
            slab.set_state(SlabState::Clean, self.held);
        } else if Self::is_worth(slab) {
            self.class.by_age.add(slab, self.held);
        }
    }

    /// Whether enough is free that a look for whole free pages is worth it: an eighth, or all.
    fn is_worth(slab: &Slab) -> bool {
        match slab.state() {
            SlabState::Binned | SlabState::Clean => slab.bin() > 0,
            SlabState::Spare => true,
            SlabState::Full | SlabState::Holes => false,
        }
    }

    /// Removes a slab from the list that it is in.
    #[inline]
    fn remove(self, slab: &'static Slab) {
        let bin = slab.bin();
        let (previous, next) = (slab.previous.get(), slab.next.get());
        previous
            .map_or(&self.class.bins[bin], |before| &before.next)
            .set(next);
        if let Some(after) = next {
            after.previous.set(previous);
        }
        if self.class.bins[bin].get().is_none() {
            self.class.mask.set(self.class.mask.get() & !(1 << bin));
        }
    }

    /// Takes a slab out of where it is filed; `false` if it is out already, for a purge. The caller
    /// says where it is from here on.
    #[inline]
    fn unfile(self, slab: &'static Slab) -> bool {
        match slab.state() {
            SlabState::Holes => return false,
            SlabState::Binned | SlabState::Clean => self.remove(slab),
            SlabState::Spare => self.class.spare.set(None),
            SlabState::Full => {}
        }
        true
    }

    /// Whether a slab is where its free count belongs: most blocks come and go without a change.
    #[inline]
    fn is_filed(slab: &Slab, info: &ClassInfo) -> bool {
        let free = slab.free();
        slab.state() == SlabState::Binned
            && free > 0
            && free < info.blocks as usize
            && info.eighths(free) == slab.bin()
    }

    /// Files a slab where its free count belongs. A slab that nothing uses is returned unless the
    /// class keeps it as its spare; the caller gives its span back once the class is unlocked.
    #[must_use]
    #[inline]
    pub(super) fn file(self, slab: &'static Slab, info: &ClassInfo) -> Option<&'static Slab> {
        if Self::is_filed(slab, info) {
            return None;
        }
        self.refile(slab, info)
    }

    /// [`file`](Self::file), where something changes.
    #[inline(never)]
    fn refile(self, slab: &'static Slab, info: &ClassInfo) -> Option<&'static Slab> {
        let (free, blocks) = (slab.free(), info.blocks as usize);
        // Its purger files it.
        if !self.unfile(slab) {
            return None;
        }
        if free == blocks {
            if self.class.spare.get().is_some() {
                self.give_up(slab);
                return Some(slab);
            }
            slab.set_state(SlabState::Spare, self.held);
            self.class.spare.set(Some(slab));
            if !slab.is_by_age() && slab.is_touched() {
                self.class.by_age.add(slab, self.held);
            }
        } else if free > 0 {
            self.insert(slab, info);
        } else {
            slab.set_state(SlabState::Full, self.held);
        }
        None
    }

    /// Counts a new slab.
    pub(super) fn add(self, slab: &'static Slab) {
        self.class.slabs.set(self.class.slabs.get() + 1);
        self.class.free.set(self.class.free.get() + slab.free());
    }

    /// Gives up a slab that nothing uses and that is filed nowhere.
    fn give_up(self, slab: &'static Slab) {
        self.class.by_age.remove(slab, self.held);
        slab.resign(self.held);
        self.class.slabs.set(self.class.slabs.get() - 1);
        self.class.free.set(self.class.free.get() - slab.free());
    }

    /// Gives up the spare slab.
    pub(super) fn give_up_spare(self) -> Option<&'static Slab> {
        let spare = self.class.spare.get();
        self.class.spare.set(None);
        spare.inspect(|slab| self.give_up(slab))
    }

    /// Takes `count` free blocks from a slab, see [`Slab::take`].
    #[inline]
    pub(super) fn take(
        self,
        slab: &'static Slab,
        count: usize,
        is_first: bool,
        info: &ClassInfo,
        emit: impl FnMut(core::ptr::NonNull<u8>),
    ) {
        slab.take(count, is_first, info, emit, self.held);
        self.class.free.set(self.class.free.get() - count);
    }

    /// Puts the leading blocks of `slots` back in a slab, see [`Slab::put_run`].
    #[inline]
    pub(super) fn put_run(
        self,
        slab: &'static Slab,
        first: usize,
        slots: &[Slot],
        info: &ClassInfo,
    ) -> Result<usize, Stopped> {
        let count = |run: usize| self.class.free.set(self.class.free.get() + run);
        slab.put_run(first, slots, info, self.held)
            .inspect(|run| count(*run))
            .inspect_err(|stopped| count(stopped.run))
    }

    /// Puts back one block, see [`Slab::place_of`].
    #[inline]
    pub(super) fn put_one(self, place: Place, info: &ClassInfo) -> Result<(), Stopped> {
        place.slab.put_one(place.block, info, self.held)?;
        self.class.free.set(self.class.free.get() + 1);
        Ok(())
    }

    /// Puts back a block that a vanished thread held, if it is not back already.
    pub(super) fn put_again(self, slab: &'static Slab, block: usize) {
        let before = slab.free();
        slab.put_again(block, self.held);
        let more = slab.free() - before;
        self.class.free.set(self.class.free.get() + more);
    }

    /// The slab to refill from: the fullest that is at least an eighth free, then nearly full ones,
    /// then the spare.
    pub(super) fn choose(self) -> Option<&'static Slab> {
        let mask = self.class.mask.get();
        let roomy = mask & !1;
        let bin = if roomy != 0 {
            roomy.trailing_zeros()
        } else {
            mask.trailing_zeros()
        };
        // Without any, the bin is past the last.
        match self.class.bins.get(bin as usize) {
            Some(list) => list.get(),
            None => self.class.spare.get(),
        }
    }

    /// Looks at slabs that were not looked at for `delay`, at most at `most`, until one is old. That
    /// leaves the lists, as for a purge.
    pub(super) fn look(self, most: usize, delay: u64) -> Look {
        let (by_age, now) = (&self.class.by_age, os::now_ms());
        let mut look = Look {
            looks: 0,
            is_last: false,
            old: None,
        };
        while look.looks < most {
            let next = by_age.oldest();
            let Some(slab) = next.filter(|slab| slab.is_due(now, delay, self.held)) else {
                look.is_last = true;
                break;
            };
            look.looks += 1;
            let is_old = slab.age(now, self.held);
            by_age.remove(slab, self.held);
            if !Self::is_worth(slab) {
                continue;
            }
            if is_old && self.begin_purge(slab) {
                look.old = Some(slab);
                break;
            }
            by_age.add(slab, self.held);
        }
        look
    }

    /// Takes a slab out of the lists for a purge, unless another purge has.
    pub(super) fn begin_purge(self, slab: &'static Slab) -> bool {
        if !self.unfile(slab) {
            return false;
        }
        self.class.by_age.remove(slab, self.held);
        slab.clean(self.held);
        self.class.purged.set(self.class.purged.get() + 1);
        slab.set_state(SlabState::Holes, self.held);
        true
    }

    /// Ends what [`begin_purge`](Self::begin_purge) began. The slab is in no list yet.
    pub(super) fn end_purge(self, slab: &'static Slab) {
        slab.set_state(SlabState::Full, self.held);
        self.class.purged.set(self.class.purged.get() - 1);
    }

    /// Blocks that left the slabs.
    pub(super) fn used(self, info: &ClassInfo) -> usize {
        self.class.slabs.get() * info.blocks as usize - self.class.free.get()
    }

    /// In a forked child: forgets all slabs.
    fn begin_anew(self) {
        let state = self.class;
        state.bins.iter().for_each(|bin| bin.set(None));
        state.mask.set(0);
        state.spare.set(None);
        state.by_age.forget();
        state.free.set(0);
        state.slabs.set(0);
    }

    /// In a forked child: makes a slab of the class whole by its bitmap, and files it.
    pub(super) fn repair(self, slab: &'static Slab, unused: &mut Unused) {
        slab.rebuild(self.held);
        // Whichever list it was in is no more.
        slab.set_state(SlabState::Full, self.held);
        self.add(slab);
        unused.add(self.file(slab, slab.info()));
    }
}
