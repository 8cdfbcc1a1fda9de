//! Commits: what a process stored in its private mapping goes to the log, then to the file. See docs/committed.md.

use core::ops::Range;
use core::ptr::NonNull;

use super::area::Area;
use super::changed::{Noting, PIECE, Pages, Piece, Runs, each_difference};
use super::error::MappedError;
use super::header::CONSTANTS;
use super::log::{Commits, Condition, LEAST, Log, Record};
use super::logged::WORD;
use super::source::refused;
use super::words::Unit;
use crate::os::PageLen;
use crate::os::durable::drop_copies;
use crate::os::pagemap::{Noted, Pagemap};
use crate::os::shared::{self, File};
use crate::units::UNIT;

/// Bytes of constants, which no commit changes.
const FIRST: usize = CONSTANTS * WORD;
/// Of a heap, one part in so many may stand in the log, and at least [`LEAST`]: who opens the heap after a kill writes
/// that much, and each checkpoint waits for the disk twice.
const PART: usize = 16;

/// Free units that are passed over: two megabytes, of which the kernel has a table of its own.
const MANY: usize = 32;
/// Bytes of a heap from which on the kernel is asked to note what is stored: without that, a look at their pages takes as
/// long as a wait for the disk.
const NOTED: usize = 8 << 20;

impl Area {
    fn commits(&self) -> Result<&Commits, MappedError> {
        self.commits.as_ref().ok_or(MappedError::Kind)
    }

    fn descriptor(&self) -> Result<File, MappedError> {
        self.source.open().ok_or(MappedError::Closed)
    }

    /// Has the log of a new heap made, if it commits. By the creator.
    pub(super) fn begin_log(&self) -> Result<(), MappedError> {
        match &self.commits {
            Some(commits) => commits.log().create(self.descriptor()?),
            None => Ok(()),
        }
    }

    /// Has all in the file that was stored so far. By the creator.
    pub(super) fn commit_first(&self) -> Result<(), MappedError> {
        if self.commits.is_none() {
            return Ok(());
        }
        self.commit()?;
        self.checkpoint()
    }

    /// The mapping is another, of the same file.
    pub(super) fn forget_notes(&self) {
        if let Some(commits) = &self.commits {
            commits.noting.lock().end();
        }
    }

    /// Whether who had the heap left more in the log than in the file.
    pub(super) fn has_log_left(&self) -> bool {
        let left = |commits: &Commits| commits.log().length() != 0;
        self.commits.as_ref().is_some_and(left)
    }

    /// Has all in the file that was committed; whether something was not. By who opens it, and is alone.
    pub(super) fn recover(&self) -> Result<bool, MappedError> {
        let (commits, file) = (self.commits()?, self.descriptor()?);
        commits.noting.break_inherited();
        commits.noting.lock().end();
        let mut log = commits.log();
        // Before anything is written home: who wrote the last record may have been killed before it was on the disk, and
        // a part of its changes without it is no commit.
        log.sync(file)?;
        let was_left = log.replay(file, FIRST, |change| {
            // SAFETY: 1. in the mapping of the log.
            let written = unsafe { file.write_at(change.place, change.from, change.length) };
            written.map_err(refused)
        })?;
        log.begin(file, self.most_logged())?;
        Ok(was_left)
    }

    /// The same for who only reads: in memory.
    pub(super) fn recover_copy(&self) -> Result<bool, MappedError> {
        let (commits, file) = (self.commits()?, self.descriptor()?);
        commits.log().replay(file, FIRST, |change| {
            // SAFETY: 1. inside the mapping, as the log saw to.
            let to = unsafe { crate::ptr::advance::<u8>(self.base(), change.place) };
            // SAFETY: 1. both are so long, and the mapping is this process's own.
            unsafe { to.copy_from_nonoverlapping(change.from, change.length) };
            Ok(())
        })
    }

    /// Bytes that may stand in the log.
    fn most_logged(&self) -> usize {
        (self.touched().end as usize * UNIT / PART).max(LEAST)
    }

    /// Makes all durable that was stored since the last time.
    ///
    /// The caller sees to it that nobody stores anything meanwhile.
    pub(super) fn commit(&self) -> Result<(), MappedError> {
        let (commits, file) = (self.commits()?, self.descriptor()?);
        let map = Pagemap::open().map_err(refused)?;
        let pages = self.pages(commits, map);
        let done = self.commit_pages(commits, file, &pages);
        map.close();
        done
    }

    /// How pages are found in which something was stored since the last commit.
    fn pages(&self, commits: &Commits, map: Pagemap) -> Pages {
        let base = self.base().addr().get();
        let mut noting = commits.noting.lock();
        let are_noted = match *noting {
            Noting::Yes(_) => map.is_noted(base..base + PageLen::pages(1).bytes()),
            _ => false,
        };
        if matches!(*noting, Noting::Yes(_)) && !are_noted {
            // The program closed the descriptor.
            noting.end();
            *noting = Noting::Refused;
        }
        let touched = self.touched().end as usize * UNIT;
        Pages {
            map,
            all: base..base + touched,
            are_noted,
        }
    }

    fn commit_pages(
        &self,
        commits: &Commits,
        file: File,
        pages: &Pages,
    ) -> Result<(), MappedError> {
        let mut log = commits.log();
        self.catch_up(&mut log, file)?;
        let recorded = self.record(commits, &mut log, file, pages);
        let (has_changes, runs) = match recorded {
            Err(MappedError::NoSpace) if log.length() != 0 => {
                // Those before this one have room that they need no more once they are home.
                log.restart(file, LEAST)?;
                self.record(commits, &mut log, file, pages)?
            }
            recorded => recorded?,
        };
        // From here on it is there, whatever happens.
        if has_changes && self.write_home(commits, file, pages, &runs).is_err() {
            log.set_behind(true);
            return Ok(());
        }
        runs.protect(pages);
        let most = self.most_logged();
        // What fails here fails the next.
        if log.length() > most && log.restart(file, most).is_ok() && pages.are_noted {
            // Else those that are the same as in the file are dropped by the next.
            let _ = pages
                .map
                .each_changed::<MappedError>(pages.all.clone(), |run| {
                    self.drop_copies(self.bytes_of(run));
                    Ok(())
                });
        }
        self.begin_noting(commits, pages);
        Ok(())
    }

    /// Has the changes of all pages in the log, on the disk: whether there were some, and where.
    fn record(
        &self,
        commits: &Commits,
        log: &mut Log,
        file: File,
        pages: &Pages,
    ) -> Result<(bool, Runs), MappedError> {
        let mut record = Record::new(log, file);
        let mut same = Same::new(self);
        let mut runs = Runs::new();
        self.each_run(pages, |run| {
            runs.add(run.clone());
            self.each_page(run, |page| {
                let mut is_same = true;
                for piece in page.clone().step_by(PIECE) {
                    let (old, new) = self.both(commits, piece);
                    if old != new {
                        is_same = false;
                        each_difference(old, new, |run| {
                            record.add(piece + run.start * WORD, &new[run])
                        })?;
                    }
                }
                if is_same {
                    same.add(page);
                }
                Ok(())
            })
        })?;
        same.drop_copies();
        Ok((record.finish()?, runs))
    }

    /// Has the kernel note what is stored from here on, if there is enough that finding it costs more than that.
    fn begin_noting(&self, commits: &Commits, pages: &Pages) {
        let mut noting = commits.noting.lock();
        if !matches!(*noting, Noting::No) || pages.all.len() < NOTED {
            return;
        }
        let length = PageLen::kept(self.geometry.bytes());
        *noting = match Noted::begin(self.base(), length) {
            Ok(noted) => Noting::Yes(noted),
            Err(_) => Noting::Refused,
        };
        if matches!(*noting, Noting::Yes(_)) {
            // What is refused here is compared by the next.
            let _ = pages.map.protect(pages.all.clone());
        }
    }

    /// Has the file all changes of the last record, if it has not.
    pub(super) fn catch_up(&self, log: &mut Log, file: File) -> Result<(), MappedError> {
        log.check()?;
        if log.condition() != Condition::Behind {
            return Ok(());
        }
        log.replay_last(file, |change| {
            // SAFETY: 1. in the mapping of the log.
            let written = unsafe { file.write_at(change.place, change.from, change.length) };
            written.map_err(refused)
        })?;
        log.set_behind(false);
        Ok(())
    }

    /// A piece as it was committed, and as it is. Until the one is written into the file, nobody stores there.
    fn both<'a>(&self, commits: &Commits, piece: usize) -> (&'a Piece, &'a Piece) {
        let at = |base: NonNull<u8>| {
            // SAFETY: 1. inside the heap, as its pages are whole pieces.
            let place = unsafe { crate::ptr::advance::<Piece>(base, piece) };
            // SAFETY: 1. mapped, aligned to a page, and any bytes are words. Nobody stores in the heap meanwhile, as who
            // commits sees to, nor in the file, as who opened it does.
            unsafe { place.as_ref() }
        };
        (at(commits.view), at(self.base()))
    }

    /// Writes the changes of all pages into the file.
    fn write_home(
        &self,
        commits: &Commits,
        file: File,
        pages: &Pages,
        runs: &Runs,
    ) -> Result<(), MappedError> {
        let mut home = Home {
            area: self,
            file,
            bytes: 0..0,
        };
        self.each_of(runs, pages, |run| {
            self.each_page(run, |page| {
                for piece in page.step_by(PIECE) {
                    let (old, new) = self.both(commits, piece);
                    let differs = |word: &usize| old[*word] != new[*word];
                    let words = 0..new.len();
                    // From the first to the last: what lies between is the same.
                    if let (Some(first), Some(last)) =
                        (words.clone().find(differs), words.rev().find(differs))
                    {
                        home.add(piece + first * WORD..piece + (last + 1) * WORD)?;
                    }
                }
                Ok(())
            })
        })?;
        home.write()
    }

    /// Calls for each run of pages in which something was stored, but where many units are free: nobody wants those.
    fn each_run(
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
    fn each_of(
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
    fn each_page(
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
    fn drop_copies(&self, pages: Range<usize>) -> bool {
        if pages.is_empty() {
            return true;
        }
        // SAFETY: 1. inside the mapping.
        let from = unsafe { crate::ptr::advance::<u8>(self.base(), pages.start) };
        // SAFETY: 1. the same bytes, or nobody's.
        unsafe { drop_copies(from, PageLen::kept(pages.len())) }.is_ok()
    }

    /// The same, whether or not the kernel refuses.
    fn put_back(&self, commits: &Commits, pages: Range<usize>) {
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

    /// Gives the space of units back to the disk.
    pub(super) fn punch(&self, first: u32, count: u32) -> Result<(), MappedError> {
        if count == 0 {
            return Ok(());
        }
        let length = PageLen::units(count as usize);
        let punched = self.descriptor()?.punch(first as usize * UNIT, length);
        punched.map_err(refused)
    }

    /// Has on the disk what was punched, before anything is committed: a record has what differs from the zeros that are
    /// there now, and would be made over what was there before.
    pub(super) fn keep_holes(&self) -> Result<(), MappedError> {
        let (commits, file) = (self.commits()?, self.descriptor()?);
        commits.log().sync(file)
    }

    /// Drops all that was stored since the last commit.
    ///
    /// The caller sees to it that nobody uses it, and that what the heap's tables say of processes is made anew.
    pub(super) fn drop_changes(&self) -> Result<(), MappedError> {
        let (commits, file) = (self.commits()?, self.descriptor()?);
        let mut log = commits.log();
        self.catch_up(&mut log, file)?;
        let map = Pagemap::open().map_err(refused)?;
        let all = self.base().addr().get();
        let all = all..all + self.geometry.bytes();
        let pages = Pages {
            all,
            ..self.pages(commits, map)
        };
        let done = pages.each(pages.all.clone(), |run| {
            self.put_back(commits, self.bytes_of(run));
            Ok(())
        });
        map.close();
        if done.is_err() {
            // All of them then, also those that were only read.
            self.put_back(commits, 0..self.geometry.bytes());
        }
        Ok(())
    }

    /// What lies at these addresses, from a byte of the heap to another.
    fn bytes_of(&self, addresses: Range<usize>) -> Range<usize> {
        let base = self.base().addr().get();
        addresses.start - base..addresses.end - base
    }

    /// Has all that was committed in the file and on the disk, and begins the log anew.
    pub(super) fn checkpoint(&self) -> Result<(), MappedError> {
        let (commits, file) = (self.commits()?, self.descriptor()?);
        let mut log = commits.log();
        self.catch_up(&mut log, file)?;
        log.restart(file, LEAST)
    }
}

/// Pages that are the same as in the file: runs of them are dropped at once.
struct Same<'a> {
    area: &'a Area,
    pages: Range<usize>,
}

impl<'a> Same<'a> {
    fn new(area: &'a Area) -> Self {
        Self { area, pages: 0..0 }
    }

    fn add(&mut self, page: Range<usize>) {
        if page.start != self.pages.end {
            self.drop_copies();
            self.pages = page.start..page.start;
        }
        self.pages.end = page.end;
    }

    fn drop_copies(&mut self) {
        self.area.drop_copies(core::mem::take(&mut self.pages));
    }
}

/// Bytes that are on their way to the file: those that follow each other at once.
struct Home<'a> {
    area: &'a Area,
    file: File,
    bytes: Range<usize>,
}

impl Home<'_> {
    fn add(&mut self, bytes: Range<usize>) -> Result<(), MappedError> {
        if bytes.start != self.bytes.end {
            self.write()?;
            self.bytes = bytes.start..bytes.start;
        }
        self.bytes.end = bytes.end;
        Ok(())
    }

    fn write(&mut self) -> Result<(), MappedError> {
        let bytes = core::mem::take(&mut self.bytes);
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: 1. inside the heap.
        let from = unsafe { crate::ptr::advance::<u8>(self.area.base(), bytes.start) };
        // SAFETY: 1. so many bytes of the mapping, in which nobody stores anything meanwhile.
        let written = unsafe { self.file.write_at(bytes.start, from, bytes.len()) };
        written.map_err(refused)
    }
}
