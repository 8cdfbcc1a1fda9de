//! What a thread has of a heap: which slab of each class is its current one. It owns others, of which the mapping knows.
//!
//! It lies on a page that the kernel wipes in forked children: there it has no slabs, and leads to the slow path.

use core::ptr::NonNull;

use super::area::Area;
use super::geometry::{CLASSES, blocks_of};
use super::handover;
use super::slab::Slab;
use super::words::{Owner, Process, Unit};
use crate::first_class;
use crate::size_class::SizeClass;
use crate::sync::{GuardedPtr, GuardedU8, GuardedU32, GuardedU64};
use crate::units::UNIT;

/// Slabs of no use to the thread, at which a look for one stops: each costs a line or two of memory.
const TRIES: usize = 64;

/// All slabs are looked at once so many units were claimed, and one part in so many of those that there are.
const LEAST: usize = 64;
const PARTS: usize = 4;

/// All zero is one without slabs.
#[repr(C)]
pub(super) struct Part {
    area: GuardedPtr<Area>,
    owner: GuardedU64,
    pub(super) thread: first_class::Owner,
    pub(super) next: GuardedPtr<Self>,
    /// Units that it claimed, and how many of them when all slabs were last looked at.
    pub(super) claims: GuardedU32,
    swept: GuardedU32,
    /// 1 once it gave up all that it owned, as its thread was gone.
    has_nothing: GuardedU8,
    current: [Current; CLASSES],
}

// A page of the least size there is holds it.
static_assertions::const_assert!(size_of::<Part>() <= 4096);

// SAFETY: 1. `area` leads to what is `Sync`; all else is the thread's, or guarded as the fields say.
unsafe impl Sync for Part {}

/// The current slab of a class.
struct Current {
    /// Its descriptor, or none.
    slab: GuardedPtr<Slab>,
    /// Its first byte.
    start: GuardedPtr<u8>,
    /// 0 for none.
    unit: GuardedU32,
    /// The word in which blocks are looked for.
    word: GuardedU32,
    /// The unit at which the last look for another slab ended.
    looked: GuardedU32,
}

impl Current {
    #[inline(always)]
    fn get(&self) -> Option<(&'static Slab, NonNull<u8>)> {
        // SAFETY: 1. set by `set`: a descriptor in the mapping, which stays.
        let slab: &'static Slab = unsafe { self.slab.get()?.as_ref() };
        Some((slab, self.start.get()?))
    }

    fn set(&self, area: &Area, unit: u32) {
        self.slab.set(Some(area.slab(unit).into()));
        self.start.set(Some(area.start(unit)));
        self.unit.set(unit);
        self.word.set(0);
    }

    fn forget(&self) {
        self.slab.set(None);
        self.unit.set(0);
    }
}

/// Takes back the block that begins so far inside a slab, by its owner; the block's number, or `None` if it is none.
#[inline(always)]
fn put_at(slab: &Slab, class: SizeClass, distance: usize) -> Option<usize> {
    let (block, rest) = class.info().locate(distance);
    let is_one = rest == 0 && distance + class.size() <= UNIT;
    (is_one && slab.put(block).is_ok()).then_some(block)
}

/// The class as it stands in words.
#[inline(always)]
fn number(class: SizeClass) -> u8 {
    #[expect(clippy::cast_possible_truncation, reason = "`CLASSES` fits a byte")]
    {
        class.index() as u8
    }
}

impl Part {
    /// # Safety
    /// 1. A page of zeros that nobody else has, and that is never unmapped.
    pub(super) unsafe fn begin_at(
        place: NonNull<Self>,
        area: &'static Area,
        owner: Owner,
    ) -> &'static Self {
        // SAFETY: 1. our own. All zero is one without slabs.
        let part: &'static Self = unsafe { place.as_ref() };
        part.be(area, owner);
        part
    }

    fn be(&self, area: &'static Area, owner: Owner) {
        self.owner.set(owner.bits());
        self.area.set(Some(area.into()));
    }

    /// Leads nowhere from now on, as the heap is closed.
    pub(super) fn end(&self) {
        self.area.set(None);
    }

    /// The heap's mapping; `None` in a forked child.
    #[inline(always)]
    pub(super) fn area(&self) -> Option<&'static Area> {
        // SAFETY: 1. set by `begin_at`, never unmapped.
        self.area.get().map(|area| unsafe { area.as_ref() })
    }

    #[inline(always)]
    fn owner(&self) -> Owner {
        Owner::from_bits(self.owner.get())
    }

    /// The process whose part it is.
    fn process(&self) -> Option<Process> {
        self.owner().process()
    }

    #[inline(always)]
    fn current(&self, class: SizeClass) -> Option<&Current> {
        self.current.get(class.index())
    }

    /// A block of the current slab's current word.
    #[inline(always)]
    pub(super) fn take(&self, class: SizeClass) -> Option<NonNull<u8>> {
        let current = self.current(class)?;
        let (slab, start) = current.get()?;
        let block = slab.take(current.word.get() as usize)?;
        let distance = block * class.size();
        // Bits beyond the blocks are somebody else's doing.
        if distance + class.size() > UNIT {
            return None;
        }
        // SAFETY: 1. a block of the unit.
        Some(unsafe { crate::ptr::advance(start, distance) })
    }

    /// A block of a class, of whose current word none is free; `None` if the heap has no room.
    pub(super) fn refill(&self, class: SizeClass) -> Option<NonNull<u8>> {
        let (current, area) = (self.current(class)?, self.area()?);
        let unit = current.unit.get();
        let goes_on = |slab: &Slab| {
            let from = current.word.get() as usize;
            let word = slab
                .next_word(from)
                .or_else(|| slab.collect(blocks_of(class)))?;
            Self::set_word(current, word);
            Some(())
        };
        if unit != 0 && goes_on(area.slab(unit)).is_some() {
            return self.take(class);
        }
        let unit = self
            .look(area, class, current)
            .or_else(|| self.claim(area, class))?;
        current.set(area, unit);
        goes_on(area.slab(unit))?;
        self.take(class)
    }

    fn set_word(current: &Current, word: usize) {
        #[expect(clippy::cast_possible_truncation, reason = "some tens")]
        current.word.set(word as u32);
    }

    /// A slab with free blocks that is this part's, or was nobody's.
    fn look(&self, area: &Area, class: SizeClass, current: &Current) -> Option<u32> {
        let mut left = TRIES;
        for unit in area.hinted(class.index(), current.looked.get()) {
            let Unit::Slab {
                class: found,
                owner,
            } = area.unit(unit)
            else {
                continue;
            };
            let slab = area.slab(unit);
            if usize::from(found) == class.index() && unit != current.unit.get() {
                let is_own = owner == self.owner();
                if is_own || !area.lives(owner) && self.adopt(area, unit, class, owner) {
                    area.clear_hint(class.index(), unit);
                    slab.collect(blocks_of(class));
                    if slab.next_word(0).is_some() {
                        current.looked.set(unit);
                        return Some(unit);
                    }
                    continue;
                }
            }
            left -= 1;
            if left == 0 {
                current.looked.set(unit);
                return None;
            }
        }
        None
    }

    /// Takes over a slab whose owner does not live; `false` if another did, or it is none any more.
    fn adopt(&self, area: &Area, unit: u32, class: SizeClass, owner: Owner) -> bool {
        let Some(word) = area.word(unit) else {
            return false;
        };
        let (from, to) = (owner.slab(number(class)), self.owner().slab(number(class)));
        let adopted = handover::adopt(word, from, to);
        if adopted {
            area.slab(unit).finish(blocks_of(class));
        }
        adopted
    }

    /// A fresh slab.
    fn claim(&self, area: &Area, class: SizeClass) -> Option<u32> {
        let held = area.lock(self.process()?).ok()?;
        let begin = |unit| area.slab(unit).begin(blocks_of(class));
        let unit = held.claim_slab(number(class), self.owner(), begin)?;
        self.claims.set(self.claims.get().wrapping_add(1));
        Some(unit)
    }

    /// Takes back a block of one of its slabs of this class; `false` if it is none.
    #[inline(always)]
    pub(super) fn put(&self, class: SizeClass, block: NonNull<u8>) -> bool {
        if let Some((slab, start)) = self.current(class).and_then(Current::get) {
            // OVERFLOW: what lies before the slab wraps to more than it has.
            let distance = block.addr().get().wrapping_sub(start.addr().get());
            if distance < UNIT {
                return put_at(slab, class, distance).is_some();
            }
        }
        self.put_elsewhere(class, block)
    }

    /// The same, of a slab that is not current.
    fn put_elsewhere(&self, class: SizeClass, block: NonNull<u8>) -> bool {
        let Some(area) = self.area() else {
            return false;
        };
        let Some((unit, distance)) = area.locate(block.addr().get()) else {
            return false;
        };
        if area.raw_word(unit) != self.owner().slab(number(class)) {
            return false;
        }
        let Some(block) = put_at(area.slab(unit), class, distance) else {
            return false;
        };
        self.note_free(area, unit, class, block);
        true
    }

    /// Sees to a slab that is not current, of which a block came back.
    #[cold]
    #[inline(never)]
    fn note_free(&self, area: &Area, unit: u32, class: SizeClass, block: usize) {
        let (slab, blocks) = (area.slab(unit), blocks_of(class));
        if slab.is_word_free(block, blocks) && slab.is_empty(blocks) {
            self.release(area, unit, class);
        } else {
            area.set_hint(class.index(), unit);
        }
    }

    fn release(&self, area: &Area, unit: u32, class: SizeClass) {
        // First: once it is free, the hint may be another's.
        area.clear_hint(class.index(), unit);
        match self.process().map(|process| area.lock(process)) {
            Some(Ok(held)) => held.release_slab(unit),
            // It stays this part's, and empty.
            _ => area.set_hint(class.index(), unit),
        }
    }

    /// Looks at all slabs that are its own or nobody's alive, and frees those in which no block is used: for other classes,
    /// and for runs.
    pub(super) fn sweep(&self) {
        let Some(area) = self.area() else { return };
        self.swept.set(self.claims.get());
        for unit in area.touched() {
            let Unit::Slab { class, owner } = area.unit(unit) else {
                continue;
            };
            let size = SizeClass::new(class.into());
            if !area.slab(unit).may_be_empty(blocks_of(size)) {
                continue;
            }
            let is_current = self
                .current(size)
                .is_some_and(|current| current.unit.get() == unit);
            let is_own = owner == self.owner() && !is_current;
            if is_own || !area.lives(owner) && self.adopt(area, unit, size, owner) {
                let (slab, blocks) = (area.slab(unit), blocks_of(size));
                slab.collect(blocks);
                if slab.is_empty(blocks) {
                    self.release(area, unit, size);
                } else if slab.next_word(0).is_some() {
                    area.set_hint(size.index(), unit);
                }
            }
        }
    }

    /// Whether a look at all slabs is paid for by the units that were claimed since the last.
    pub(super) fn is_time_to_sweep(&self) -> bool {
        let claimed = self.claims.get().wrapping_sub(self.swept.get());
        let touched = self.area().map_or(0, |area| area.touched().len());
        claimed as usize > touched / PARTS + LEAST
    }

    /// It owns nothing any more, as the heap's tables became those of another time.
    pub(super) fn forget(&self) {
        self.current.iter().for_each(Current::forget);
    }

    /// It has a thread that may own something, and is this process's, which may have closed the heap since it last was.
    pub(super) fn begin_anew(&self, area: &'static Area, process: Process) {
        self.be(area, process.part(self.owner().number()));
        self.has_nothing.set(0);
    }

    pub(super) fn has_nothing(&self) -> bool {
        self.has_nothing.get() != 0
    }

    /// Gives up all that it owns. By its thread, or for one that is gone.
    pub(super) fn give_up(&self) {
        let Some(area) = self.area() else { return };
        self.has_nothing.set(1);
        self.current.iter().for_each(Current::forget);
        for unit in area.touched() {
            let Unit::Slab { class, owner } = area.unit(unit) else {
                continue;
            };
            if owner != self.owner() {
                continue;
            }
            let (slab, size) = (area.slab(unit), SizeClass::new(class.into()));
            slab.collect(blocks_of(size));
            if slab.is_empty(blocks_of(size)) {
                self.release(area, unit, size);
                continue;
            }
            if let Some(word) = area.word(unit) {
                let nobody = Unit::Slab {
                    class,
                    owner: Owner::NOBODY,
                };
                handover::give_up(word, nobody.bits());
            }
            area.set_hint(class.into(), unit);
        }
    }
}
