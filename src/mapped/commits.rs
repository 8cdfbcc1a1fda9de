//! Commits: what a process stored in its private mapping goes to the log, then to the file. See docs/committed.md.

use core::ops::Range;

use super::area::Area;
use super::changed::{Noting, PIECE, Pages, Runs, each_difference};
use super::error::MappedError;
use super::header::CONSTANTS;
use super::log::{Commits, Condition, LEAST, Log, Record};
use super::logged::WORD;
use super::private::Same;
use super::replay::Change;
use super::source::{refused, without_proc};
use crate::os::PageLen;
use crate::os::pagemap::{Noted, Pagemap};
use crate::os::shared::File;
use crate::units::UNIT;

/// Bytes of constants, which no commit changes.
const FIRST: usize = CONSTANTS * WORD;
/// Of a heap, one part in so many may stand in the log, and at least [`LEAST`]: who opens the heap after a kill writes
/// that much, and each checkpoint waits for the disk twice.
const PART: usize = 16;

/// Bytes of a heap from which on the kernel is asked to note what is stored: without that, a look at their pages takes as
/// long as a wait for the disk.
const NOTED: usize = 8 << 20;

/// Has the file what a record changes.
fn write(file: File, change: &Change) -> Result<(), MappedError> {
    // SAFETY: 1. in the mapping of the log.
    let written = unsafe { file.write_at(change.place, change.from, change.length) };
    written.map_err(refused)
}

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
        let was_left = log.replay(file, FIRST, |change| write(file, &change))?;
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
        let map = Pagemap::open().map_err(without_proc)?;
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
        log.replay_last(file, |change| write(file, &change))?;
        log.set_behind(false);
        Ok(())
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
        let map = Pagemap::open().map_err(without_proc)?;
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

    /// Has all that was committed in the file and on the disk, and begins the log anew.
    pub(super) fn checkpoint(&self) -> Result<(), MappedError> {
        let (commits, file) = (self.commits()?, self.descriptor()?);
        let mut log = commits.log();
        self.catch_up(&mut log, file)?;
        log.restart(file, LEAST)
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
