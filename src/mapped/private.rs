//! A private mapping: where its pages hold something else than the file, and how they become the file's again.

use core::ops::Range;
use core::ptr::NonNull;

use super::area::Area;
use super::changed::{PIECE, Pages, Piece, Runs};
use super::error::MappedError;
use super::log::Commits;
use super::words::Unit;
use crate::os::PageLen;
use crate::os::durable::drop_copies;
use crate::os::shared;
use crate::units::UNIT;

/// Free units that are passed over: two megabytes, of which the kernel has a table of its own.
const MANY: usize = 32;

impl Area {
    /// A piece as it was committed, and as it is. Until the one is written into the file, nobody stores there.
    pub(super) fn both<'a>(&self, commits: &Commits, piece: usize) -> (&'a Piece, &'a Piece) {
        let at = |base: NonNull<u8>| {
            // SAFETY: 1. inside the heap, as its pages are whole pieces.
            let place = unsafe { crate::ptr::advance::<Piece>(base, piece) };
            // SAFETY: 1. mapped, aligned to a page, and any bytes are words. Nobody stores in the heap meanwhile, as who
            // commits sees to, nor in the file, as who opened it does.
            unsafe { place.as_ref() }
        };
        (at(commits.view), at(self.base()))
    }

    /// Calls for each run of pages in which something was stored, but where many units are free: nobody wants those.
    pub(super) fn each_run(
        &self,
        pages: &Pages,
        mut act: impl FnMut(Range<usize>) -> Result<(), MappedError>,
    ) -> Result<(), MappedError> {
        let base = self.base().addr().get();
        let end = self.touched().end as usize;
        let (mut first, mut unit) = (0, 0);
        while unit < end {
            if !self.is_nobodys(unit) {
                unit += 1;
                continue;
            }
            let behind = (unit..end).find(|unit| !self.is_nobodys(*unit));
            let behind = behind.unwrap_or(end);
            if behind - unit >= MANY {
                pages.each(base + first * UNIT..base + unit * UNIT, &mut act)?;
                first = behind;
            }
            unit = behind;
        }
        pages.each(base + first * UNIT..base + end * UNIT, act)
    }

    /// Calls for each of these runs.
    pub(super) fn each_of(
        &self,
        runs: &Runs,
        pages: &Pages,
        act: impl FnMut(Range<usize>) -> Result<(), MappedError>,
    ) -> Result<(), MappedError> {
        match runs.all() {
            Some(mut all) => all.try_for_each(act),
            None => self.each_run(pages, act),
        }
    }

    /// Calls for each page of some addresses, from a byte of the heap to another. What lies in free units is nobody's, and
    /// is dropped.
    pub(super) fn each_page(
        &self,
        addresses: Range<usize>,
        mut act: impl FnMut(Range<usize>) -> Result<(), MappedError>,
    ) -> Result<(), MappedError> {
        let (base, page) = (self.base().addr().get(), PageLen::pages(1).bytes());
        let (mut next, end) = (addresses.start - base, addresses.end - base);
        while next < end {
            let unit = next / UNIT;
            let is_nobodys = self.is_nobodys(unit);
            // As far as it is the same.
            let behind =
                (unit + 1..end.div_ceil(UNIT)).find(|unit| self.is_nobodys(*unit) != is_nobodys);
            let to = behind.map_or(end, |unit| unit * UNIT);
            if is_nobodys {
                self.drop_copies(next..to);
            } else {
                (next..to)
                    .step_by(page)
                    .try_for_each(|start| act(start..start + page))?;
            }
            next = to;
        }
        Ok(())
    }

    fn is_nobodys(&self, unit: usize) -> bool {
        let is_free = |unit: u32| self.raw_word(unit) == Unit::Free.bits();
        u32::try_from(unit).is_ok_and(|unit| unit >= self.geometry.first && is_free(unit))
    }

    /// What these pages hold is what the file has, again. If the kernel refuses, as it does for memory that is locked,
    /// they stay, which costs memory: `false`.
    pub(super) fn drop_copies(&self, pages: Range<usize>) -> bool {
        if pages.is_empty() {
            return true;
        }
        // SAFETY: 1. inside the mapping.
        let from = unsafe { crate::ptr::advance::<u8>(self.base(), pages.start) };
        // SAFETY: 1. the same bytes, or nobody's.
        unsafe { drop_copies(from, PageLen::kept(pages.len())) }.is_ok()
    }

    /// The same, whether or not the kernel refuses.
    pub(super) fn put_back(&self, commits: &Commits, pages: Range<usize>) {
        if self.drop_copies(pages.clone()) {
            return;
        }
        for piece in pages.step_by(PIECE) {
            let (old, new) = self.both(commits, piece);
            if old != new {
                // SAFETY: 1. inside the mapping, whose pages are whole pieces.
                let to = unsafe { crate::ptr::advance::<Piece>(self.base(), piece) };
                // SAFETY: 1. as above; nobody uses what is there.
                unsafe { to.write(*old) };
            }
        }
    }

    /// What these units hold is nobody's: the memory goes, and the space if nobody can want it back.
    pub(super) fn empty(&self, first: u32, count: u32) {
        if self.commits.is_some() {
            let bytes = |unit: u32| unit as usize * UNIT;
            self.drop_copies(bytes(first)..bytes(first + count));
            return;
        }
        let (first, count) = self.give_space_up(first, count);
        if count != 0 {
            // SAFETY: 1. units that nobody has. If the kernel refuses, their memory stays.
            let _ = unsafe { shared::remove(self.start(first), PageLen::units(count as usize)) };
        }
    }

    /// What lies at these addresses, from a byte of the heap to another.
    pub(super) fn bytes_of(&self, addresses: Range<usize>) -> Range<usize> {
        let base = self.base().addr().get();
        addresses.start - base..addresses.end - base
    }
}

/// Pages that are the same as in the file: runs of them are dropped at once.
pub(super) struct Same<'a> {
    area: &'a Area,
    pages: Range<usize>,
}

impl<'a> Same<'a> {
    pub(super) fn new(area: &'a Area) -> Self {
        Self { area, pages: 0..0 }
    }

    pub(super) fn add(&mut self, page: Range<usize>) {
        if page.start != self.pages.end {
            self.drop_copies();
            self.pages = page.start..page.start;
        }
        self.pages.end = page.end;
    }

    pub(super) fn drop_copies(&mut self) {
        self.area.drop_copies(core::mem::take(&mut self.pages));
    }
}
