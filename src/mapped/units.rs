//! Runs of units, with the heap's lock.

use super::area::Area;
use super::error::MappedError;
use super::geometry::{BITS, blocks_of};
use super::lock::Held;
use super::words::{Owner, Unit};
use crate::os::failpoints::{self, Point};
use crate::size_class::SizeClass;
use crate::sync::Ordering;
use crate::units::{low_bits, runs};

/// Of a heap, one part in so many may be free and in memory, and a slice more.
const SHARE: u64 = 8;
/// Units of a slice: a word of the bitmap, 4 MiB.
const SLICE: u64 = BITS as u64;
/// Units of which a run's memory goes back at once: a megabyte. Shorter ones are used again, and would cost as much to
/// fault in.
pub(super) const LONG: u32 = 16;

impl Area {
    /// Whether the process of an owner has its slot still.
    pub(super) fn lives(&self, owner: Owner) -> bool {
        owner
            .process()
            .is_some_and(|process| self.is_current(process))
    }

    /// Units of the run that begins at a head: at least one, and none beyond the heap.
    pub(super) fn run(&self, head: u32) -> u32 {
        // ORDERING: written before the head, which was read.
        let length = self.slab(head).length.load(Ordering::Relaxed);
        let most = self.geometry.units - head;
        u32::try_from(length).unwrap_or(most).clamp(1, most)
    }

    /// Begins the bitmap of free units: from this one on all are, before it none.
    pub(super) fn begin_free(&self, from: u32) {
        let (from, units) = (from as usize, self.geometry.units as usize);
        for word in 0..self.geometry.words_of_bits() {
            let bit = |unit: usize| unit.clamp(word * BITS, (word + 1) * BITS) - word * BITS;
            let bits = low_bits(bit(units)) & !low_bits(bit(from));
            // ORDERING: the lock orders it, here and below.
            self.free(word).store(bits, Ordering::Relaxed);
        }
        self.header().first_free.0.store(0, Ordering::Relaxed);
    }

    /// Whether a unit is free by the bitmap.
    pub(super) fn is_free(&self, unit: u32) -> bool {
        let bits = self.free(unit as usize / BITS).load(Ordering::Relaxed);
        bits >> (unit as usize % BITS) & 1 != 0
    }
}

impl Held<'_> {
    /// Makes the bitmap of free units from the units' words.
    pub(super) fn make_free_anew(&self) {
        let touched = self.area.touched();
        self.area.begin_free(touched.end);
        let mut unit = touched.start;
        while unit < touched.end {
            let length = match self.area.unit(unit) {
                Unit::Slab { .. } => 1,
                Unit::Head => self.area.run(unit),
                Unit::Going { owner } if self.area.lives(owner) => self.area.run(unit),
                Unit::Going { .. } => {
                    self.release_run(unit);
                    // What of it was a tail is free now, and looked at next.
                    1
                }
                // A tail without a head is nobody's.
                Unit::Free | Unit::Tail { .. } | Unit::Unknown => {
                    self.set_unit(unit, Unit::Free);
                    self.mark(unit, 1, true);
                    1
                }
            };
            unit += length;
        }
    }

    fn set_unit(&self, unit: u32, what: Unit) {
        if let Some(word) = self.area.word(unit) {
            // ORDERING: publishes what the unit is to who finds a block there.
            word.store(what.bits(), Ordering::Release);
        }
    }

    fn mark(&self, first: u32, count: u32, is_free: bool) {
        for unit in first..first + count {
            let word = self.area.free(unit as usize / BITS);
            let bit = 1_u64 << (unit as usize % BITS);
            let bits = word.load(Ordering::Relaxed);
            word.store(
                if is_free { bits | bit } else { bits & !bit },
                Ordering::Relaxed,
            );
        }
        let (place, word) = (&self.area.header().first_free.0, first as usize / BITS);
        if is_free && (word as u64) < place.load(Ordering::Relaxed) {
            place.store(word as u64, Ordering::Relaxed);
        }
    }

    fn raise(&self, end: u32) {
        let high = &self.area.header().high.0;
        if high.load(Ordering::Relaxed) < end.into() {
            high.store(end.into(), Ordering::Relaxed);
        }
    }

    /// The first free run of `count` units that begins at a multiple of `step`, by the bitmap.
    fn find(&self, count: u32, step: u32) -> Option<u32> {
        let geometry = self.area.geometry;
        let first_free = &self.area.header().first_free.0;
        let words = geometry.words_of_bits();
        let begin =
            usize::try_from(first_free.load(Ordering::Relaxed)).map_or(0, |word| word.min(words));
        let nonzero = |word: &usize| self.area.free(*word).load(Ordering::Relaxed) != 0;
        let begin = (begin..words).find(nonzero)?;
        first_free.store(begin as u64, Ordering::Relaxed);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "units are counted by 32 bits"
        )]
        let mut unit = ((begin * BITS) as u32)
            .max(geometry.first)
            .checked_next_multiple_of(step)?;
        while unit.checked_add(count)? <= geometry.units {
            if self.area.free(unit as usize / BITS).load(Ordering::Relaxed) == 0 {
                // Nothing in all of this word.
                let next = (unit + 1).next_multiple_of(u64::BITS);
                unit = next.checked_next_multiple_of(step)?;
                continue;
            }
            let mut run = unit..unit + count;
            match run.rfind(|unit| !self.area.is_free(*unit)) {
                None => return Some(unit),
                Some(taken) => unit = (taken + 1).checked_next_multiple_of(step)?,
            }
        }
        None
    }

    /// A unit for a slab, whose descriptor `begin` makes before anyone can know it.
    pub(super) fn claim_slab(
        &self,
        class: u8,
        owner: Owner,
        begin: impl FnOnce(u32),
    ) -> Option<u32> {
        let unit = self.find(1, 1)?;
        // Before anything of it is read: what has no space could end who reads it, too.
        self.reserve(unit, 1).ok()?;
        // A word that contradicts the bitmap is somebody's, or nothing at all.
        if self.area.unit(unit) != Unit::Free {
            self.mark(unit, 1, false);
            return None;
        }
        begin(unit);
        self.raise(unit + 1);
        self.mark(unit, 1, false);
        failpoints::at(Point::Units);
        self.set_unit(unit, Unit::Slab { class, owner });
        Some(unit)
    }

    /// A run for one block.
    pub(super) fn claim_run(&self, count: u32, step: u32) -> Option<u32> {
        let first = self.find(count, step)?;
        self.reserve(first, count).ok()?;
        let mut units = first..first + count;
        if let Some(taken) = units.find(|unit| self.area.unit(*unit) != Unit::Free) {
            self.mark(taken, 1, false);
            return None;
        }
        self.raise(first + count);
        self.mark(first, count, false);
        for distance in 1..count {
            self.set_unit(first + distance, Unit::Tail { distance });
        }
        // ORDERING: the lock orders it.
        self.area
            .slab(first)
            .length
            .store(count.into(), Ordering::Relaxed);
        failpoints::at(Point::Units);
        self.set_unit(first, Unit::Head);
        Some(first)
    }

    /// Frees the run of a head that is [going](Unit::Going).
    pub(super) fn release_run(&self, first: u32) {
        let count = self.area.run(first);
        // First: without a head the others are nobody's, should this process end here.
        self.set_unit(first, Unit::Free);
        failpoints::at(Point::Units);
        for distance in 1..count {
            if self.area.unit(first + distance) == (Unit::Tail { distance }) {
                self.set_unit(first + distance, Unit::Free);
                self.mark(first + distance, 1, true);
            }
        }
        self.mark(first, 1, true);
        if count < LONG {
            self.soil(count);
        }
    }

    /// Frees a slab without used blocks. By its owner, who has it no more.
    pub(super) fn release_slab(&self, unit: u32) {
        self.set_unit(unit, Unit::Free);
        self.mark(unit, 1, true);
        self.soil(1);
    }

    /// Units were given up whose pages may be in memory: beyond a share of the heap a slice of such goes back.
    fn soil(&self, units: u32) {
        let dirty = &self.area.header().dirty.0;
        let count = dirty.load(Ordering::Relaxed).saturating_add(units.into());
        dirty.store(count, Ordering::Relaxed);
        let touched = self.area.touched();
        if count > u64::from(touched.end - touched.start) / SHARE + SLICE {
            self.purge_slice(false);
        }
    }

    /// Gives the memory of free units back: of those in the next word of the bitmap that has some; `false` at its end. All
    /// of them are also those that were never anybody's, and have space on a disk.
    pub(super) fn purge_slice(&self, is_all: bool) -> bool {
        let header = self.area.header();
        let (touched, is_reserved) = (self.area.touched(), self.area.source.has_space_reserved());
        let end = match is_all && is_reserved {
            true => self.area.geometry.units,
            false => touched.end,
        };
        let words = (end as usize).div_ceil(BITS);
        let from = usize::try_from(header.purged.0.load(Ordering::Relaxed))
            .map_or(0, |word| word.min(words));
        let free = |word: usize| {
            let bits = self.area.free(word).load(Ordering::Relaxed);
            match is_reserved {
                true => bits & self.area.reserved(word).load(Ordering::Relaxed),
                false => bits,
            }
        };
        let Some(word) = (from..words).find(|word| free(*word) != 0) else {
            header.purged.0.store(0, Ordering::Relaxed);
            header.dirty.0.store(0, Ordering::Relaxed);
            return false;
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "units are counted by 32 bits"
        )]
        let before = (word * BITS) as u32;
        // The bitmap may say anything: that somebody's unit is free, or one behind the heap.
        let is_nobodys = |bit: &u32| {
            let unit = before + bit;
            // Beyond its word could have no space.
            let is_told = !is_reserved || unit < self.area.tabled();
            is_told && self.area.unit(unit) == Unit::Free
        };
        let bits = free(word);
        let nobodys = (0..u64::BITS).filter(|bit| bits >> bit & 1 != 0 && is_nobodys(bit));
        for (first, length) in runs(nobodys.fold(0, |all, bit| all | 1 << bit)) {
            // Nobody takes them without the lock.
            self.area.empty(before + first, length);
        }
        header.purged.0.store(word as u64 + 1, Ordering::Relaxed);
        true
    }

    /// Whether units, runs, bitmaps and the bitmap of free units agree.
    pub(super) fn verify(&self) -> Result<(), MappedError> {
        let area = self.area;
        let check = |holds: bool| {
            if holds {
                Ok(())
            } else {
                Err(MappedError::Damaged)
            }
        };
        let is_free = |unit: u32| area.is_free(unit);
        let mut units = area.touched();
        while let Some(unit) = units.next() {
            match area.unit(unit) {
                Unit::Free => {}
                Unit::Slab { class, .. } => {
                    let blocks = blocks_of(SizeClass::new(class.into()));
                    check(!is_free(unit) && !area.slab(unit).has_stray_bits(blocks))?;
                }
                Unit::Head => {
                    let count = area.run(unit);
                    let is_tail = |distance: u32| {
                        area.unit(unit + distance) == (Unit::Tail { distance })
                            && !is_free(unit + distance)
                    };
                    check(!is_free(unit) && (1..count).all(is_tail))?;
                    units = unit + count..units.end;
                }
                Unit::Going { .. } => {
                    check(!is_free(unit))?;
                    units = unit + area.run(unit)..units.end;
                }
                Unit::Tail { .. } | Unit::Unknown => check(false)?,
            }
        }
        Ok(())
    }
}
