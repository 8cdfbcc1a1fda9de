//! Space in the file, which is reserved before anyone touches it: a disk without room is an error then, and no signal.
//!
//! The kernel has pages of a file in pieces, and asks the disk for all of a piece when somebody stores in it. So of a disk
//! space comes and goes by steps as long as the longest of these, at multiples of it; in memory by units.
//!
//! A bit in `reserved` says that a unit has space. It is set with the heap's lock, after the space was reserved, and cleared
//! before it goes back. So a process that is killed leaves space without a bit, which is reserved once more, and never a
//! bit without space.

use core::ops::Range;

use super::area::Area;
use super::error::MappedError;
use super::geometry::BITS;
use super::lock::Held;
use super::source::refused;
use super::words::Unit;
use crate::os::PageLen;
use crate::os::files::{Populate, populate};
use crate::os::shared::File;
use crate::sync::Ordering;
use crate::units::{UNIT, low_bits, runs};

/// Space is reserved ahead: of what the heap has, one part in so many.
const AHEAD: u32 = 16;
/// And at least so many units: a megabyte, as the call and what a disk's filesystem writes down for it cost some
/// microseconds.
const LEAST: u32 = 16;

/// Bytes of memory that are reserved at once: some hundred pages that the kernel fills with zeros.
const PART: usize = 1 << 20;

impl Area {
    fn reserve(&self, bytes: Range<usize>) -> Result<(), MappedError> {
        let file = self.source.open().ok_or(MappedError::Closed)?;
        let Range { mut start, mut end } = bytes;
        if self.source.step > 1 {
            let step = self.source.step as usize * UNIT;
            (start, end) = (start / step * step, end.next_multiple_of(step));
        }
        // Bits beyond the heap are somebody else's doing.
        let bytes = start..end.min(self.geometry.bytes());
        if bytes.is_empty() {
            return Ok(());
        }
        if self.source.step > 1 {
            let (from, length) = pages_of(bytes);
            return file.reserve(from, length).map_err(refused);
        }
        // In parts: some kernels give up and begin anew with each signal that comes meanwhile.
        let mut next = bytes.start;
        while next < bytes.end {
            let end = bytes.end.min(next + PART);
            let (from, length) = pages_of(next..end);
            file.reserve(from, length).map_err(refused)?;
            next = end;
        }
        Ok(())
    }

    /// Reserves what every heap needs. By the creator.
    pub(super) fn reserve_first(&self) -> Result<(), MappedError> {
        if self.source.has_space_reserved() {
            self.reserve(0..UNIT)?;
            self.reserve(self.geometry.bitmaps())?;
            let file = self.source.open().ok_or(MappedError::Closed)?;
            let home = file.identity().map_err(refused)?;
            self.header().home.0.store(home, Ordering::Relaxed);
        }
        // ORDERING: nobody else knows the heap yet.
        let tabled = &self.header().tabled.0;
        tabled.store(self.geometry.first.into(), Ordering::Relaxed);
        Ok(())
    }

    /// Reserves the space of units, and of their tables. By the creator.
    pub(super) fn reserve_all(&self, units: Range<u32>) -> Result<(), MappedError> {
        if !self.source.has_space_reserved() {
            return Ok(());
        }
        self.reserve_tables(units.clone())?;
        self.reserve(units.start as usize * UNIT..units.end as usize * UNIT)?;
        // ORDERING: nobody else knows the heap yet, here and below.
        let tabled = &self.header().tabled.0;
        tabled.store(units.end.into(), Ordering::Relaxed);
        for (word, bits) in words_of(units.start, units.end - units.start) {
            self.reserved(word).store(bits, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Has all of a new heap in memory. By the creator.
    pub(super) fn populate_all(&self) -> Result<(), MappedError> {
        let purpose = match self.commits {
            // Whoever stores in a page has a copy of it.
            Some(_) => Populate::Read,
            None => Populate::Write,
        };
        self.populate(0..self.geometry.bytes(), purpose)
    }

    /// Has in memory what somebody had of the heap. Of the tables no more than that: others may have no space.
    pub(super) fn populate_touched(&self) -> Result<(), MappedError> {
        let Range { start, end } = self.touched();
        let (start, end) = (start as usize, end as usize);
        let tables = self.geometry.tables_of(start..end);
        tables
            .chain([0..UNIT, self.geometry.bitmaps(), start * UNIT..end * UNIT])
            .filter(|range| !range.is_empty())
            .try_for_each(|range| self.populate(range, Populate::Read))
    }

    fn populate(&self, bytes: Range<usize>, purpose: Populate) -> Result<(), MappedError> {
        let (from, length) = pages_of(bytes);
        // SAFETY: 1. inside the mapping.
        let place = unsafe { crate::ptr::advance(self.base(), from) };
        populate(place, length, purpose).map_err(refused)
    }

    fn reserve_tables(&self, units: Range<u32>) -> Result<(), MappedError> {
        let is_first = units.start == self.geometry.first;
        let page = PageLen::pages(1).bytes();
        let tables = self
            .geometry
            .tables_of(units.start as usize..units.end as usize);
        for Range { start, end } in tables {
            // A page in which units before these have a part has space.
            let start = if is_first {
                start
            } else {
                start.next_multiple_of(page)
            };
            if start < end {
                self.reserve(start..end)?;
            }
        }
        Ok(())
    }

    /// Units of these whose space is to go back, from one on and so many: whole steps. Their bits go first. By who has them
    /// to himself.
    pub(super) fn give_space_up(&self, first: u32, count: u32) -> (u32, u32) {
        if !self.source.has_space_reserved() {
            return (first, count);
        }
        let step = self.source.step;
        let from = first.next_multiple_of(step);
        let length = ((first + count) / step * step).saturating_sub(from);
        for (word, bits) in words_of(from, length) {
            // ORDERING: see above; who reserves them next has the heap's lock.
            self.reserved(word).fetch_and(!bits, Ordering::Relaxed);
        }
        (from, length)
    }

    /// Sees to it that all which is marked as reserved is, in a file that nobody has: a copy may have holes where the file
    /// had zeros.
    pub(super) fn reserve_again(&self, own: File, may_be_torn: bool) -> Result<(), MappedError> {
        if !self.source.has_space_reserved() {
            return Ok(());
        }
        let home = own.identity().map_err(refused)?;
        // These two are read below.
        self.reserve(0..UNIT)?;
        self.reserve(self.geometry.bitmaps())?;
        let words = self.geometry.words_of_bits();
        let marked = |word: usize| self.reserved(word).load(Ordering::Relaxed);
        let (first, tabled) = (self.geometry.first, self.tabled());
        // But for those of the tables, which share a step with others.
        let all = words_of(first, self.geometry.units - first);
        let units: usize = all
            .map(|(word, bits)| (marked(word) & bits).count_ones() as usize)
            .sum();
        let tables = self.geometry.tables_of(first as usize..tabled as usize);
        let tables: usize = tables.map(|range| range.len()).sum();
        let least = units * UNIT + tables + UNIT + self.geometry.bitmaps().len();
        // ORDERING: the byte of openings orders it.
        let is_home = self.header().home.0.load(Ordering::Relaxed) == home;
        if is_home && !may_be_torn && own.space().map_err(refused)? >= least {
            return Ok(());
        }
        self.reserve_tables(first..tabled)?;
        // Runs over several words at once.
        let mut run = 0..0;
        for word in 0..words {
            for (bit, length) in runs(marked(word)) {
                let from = (word * BITS + bit as usize) * UNIT;
                if from != run.end {
                    self.reserve(run)?;
                    run = from..from;
                }
                run.end += length as usize * UNIT;
            }
        }
        self.reserve(run)?;
        self.header().home.0.store(home, Ordering::Relaxed);
        Ok(())
    }

    /// Whole steps of free units, and how many. While nobody takes any.
    pub(super) fn free_runs(&self) -> impl Iterator<Item = (u32, u32)> {
        let Range { mut start, end } = self.touched();
        core::iter::from_fn(move || {
            let is_free = |unit: &u32| self.unit(*unit) == Unit::Free;
            let first = (start..end).find(is_free)?;
            let behind = (first..end).find(|unit| !is_free(unit)).unwrap_or(end);
            start = behind;
            Some(self.give_space_up(first, behind - first))
        })
    }

    /// Units up to this one have space for their tables.
    pub(super) fn tabled(&self) -> u32 {
        let tabled = self.header().tabled.0.load(Ordering::Relaxed);
        let (first, units) = (self.geometry.first, self.geometry.units);
        u32::try_from(tabled).unwrap_or(first).clamp(first, units)
    }
}

/// The pages that have these bytes: where they begin, and their length.
pub(super) fn pages_of(bytes: Range<usize>) -> (usize, PageLen) {
    let page = PageLen::pages(1).bytes();
    let from = bytes.start & !(page - 1);
    let length = bytes.end.next_multiple_of(page) - from;
    (from, PageLen::kept(length))
}

/// The words of a bitmap in which units have bits, and these.
pub(super) fn words_of(first: u32, count: u32) -> impl Iterator<Item = (usize, u64)> {
    let (from, to) = (first as usize, (first + count) as usize);
    (from / BITS..to.div_ceil(BITS)).map(move |word| {
        let bit = |unit: usize| unit.clamp(word * BITS, (word + 1) * BITS) - word * BITS;
        (word, low_bits(bit(to)) & !low_bits(bit(from)))
    })
}

impl Held<'_> {
    /// Sees to it that free units that are about to be somebody's have space, and their tables.
    pub(super) fn reserve(&self, first: u32, count: u32) -> Result<(), MappedError> {
        let area = self.area;
        if !area.source.has_space_reserved() {
            return Ok(());
        }
        let end = first + count;
        let touched = area.touched();
        let ahead = ((touched.end - touched.start) / AHEAD).max(LEAST);
        let tabled = area.tabled();
        if end > tabled {
            let to = end.saturating_add(ahead).min(area.geometry.units);
            let reserved = area.reserve_tables(tabled..to).map(|()| to);
            let to = reserved.or_else(|_| area.reserve_tables(tabled..end).map(|()| end))?;
            // ORDERING: the lock orders it.
            area.header().tabled.0.store(to.into(), Ordering::Relaxed);
        }
        let has_space =
            |(word, bits): (usize, u64)| area.reserved(word).load(Ordering::Relaxed) & bits == bits;
        if words_of(first, count).all(has_space) {
            return Ok(());
        }
        let is_next = |unit: &u32| {
            let (word, bit) = (*unit as usize / BITS, 1_u64 << (*unit as usize % BITS));
            let bits = |word: &crate::sync::AtomicU64| word.load(Ordering::Relaxed) & bit;
            bits(area.free(word)) != 0 && bits(area.reserved(word)) == 0
        };
        let most = end.saturating_add(ahead).min(area.geometry.units);
        let beyond = (end..most).take_while(is_next).count();
        #[expect(clippy::cast_possible_truncation, reason = "at most `ahead`")]
        let to = end + beyond as u32;
        let bytes = |to: u32| first as usize * UNIT..to as usize * UNIT;
        let reserved = area.reserve(bytes(to)).map(|()| to);
        let to = reserved.or_else(|_| area.reserve(bytes(end)).map(|()| end))?;
        let (step, units) = (area.source.step, area.geometry.units);
        let first = first / step * step;
        let to = to
            .checked_next_multiple_of(step)
            .map_or(units, |to| to.min(units));
        for (word, bits) in words_of(first, to - first) {
            // ORDERING: the lock orders it; those who give space up change other bits.
            area.reserved(word).fetch_or(bits, Ordering::Relaxed);
        }
        Ok(())
    }
}
