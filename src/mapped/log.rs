//! The log of a heap that commits: what each commit changed, behind the heap's bytes in the same file. See
//! docs/committed.md.

use core::ops::Range;
use core::ptr::NonNull;

use siphasher::sip::SipHasher13;

use super::buffer::Buffer;
use super::changed::Noting;
use super::error::MappedError;
use super::logged::{WORD, add, end_of, sum_of};
use super::source::refused;
use crate::os::shared::{File, Sharing};
use crate::os::{self, Held, Lock, PageLen};

/// The longest piece that a disk writes whole or not at all, of those in use. Nothing that counts shares one with what
/// is written later.
pub(super) const BLOCK: usize = 4096;
/// Two heads, of which the newer counts, then the records.
pub(super) const RECORDS: usize = 2 * BLOCK;
/// Bytes of a log, at least: some hundred small commits. Grows by as much.
pub(super) const LEAST: usize = 1 << 20;
/// Bytes of a small write: many of these follow it in what the log grows by.
const SMALL: usize = LEAST / 16;
/// Bytes that are written at once, and waited for: so many take longer to write than to wait for.
const BUFFER: usize = 1 << 20;

/// Numbers of records that can be counted on from: no heap ever had so many.
pub(super) const MOST: u64 = u64::MAX / 2;

/// "flaghead" and "flagdone".
pub(super) const HEAD: u64 = u64::from_le_bytes(*b"flaghead");
pub(super) const DONE: u64 = u64::from_le_bytes(*b"flagdone");
/// Words before a record's changes: a mark, its number, the bytes that follow, and the sum of these two and all that
/// follows.
pub(super) const RECORD_WORDS: usize = 4;
/// Bits of a change's first word that count its words. The others are its place, in words.
pub(super) const COUNT_BITS: u32 = 16;

/// Whether the log can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Nobody has read it yet.
    Unread,
    Good,
    /// The file has not all of the last record's changes, as its disk had no room: they are in the log alone.
    Behind,
    /// The kernel could not write: nobody knows what is on the disk.
    Poisoned,
}

pub(super) struct Log {
    /// Where it begins in the file: behind the heap.
    pub(super) start: usize,
    /// The heap's: what another heap left on the disk is none of this one's.
    pub(super) id: u64,
    /// The number of the last record.
    pub(super) sequence: u64,
    /// Which of the heads is the newer one.
    pub(super) head: usize,
    /// Where the next record goes, where the last is, and how far the file has room, from `start`.
    pub(super) next: usize,
    pub(super) last: usize,
    pub(super) end: usize,
    pub(super) condition: Condition,
    /// The first block of a record, and what of the others is not written yet.
    buffer: Buffer,
}

/// The first word of a change.
fn word_of(place: usize, count: usize) -> u64 {
    ((place / WORD) as u64) << COUNT_BITS | count as u64
}

impl Log {
    /// The log of a heap that ends there.
    pub(super) fn new(start: usize, id: u64) -> Result<Self, MappedError> {
        let buffer = Buffer::new(BUFFER)?;
        Ok(Self {
            start,
            id,
            sequence: 0,
            head: 0,
            next: RECORDS,
            last: RECORDS,
            end: LEAST,
            condition: Condition::Unread,
            buffer,
        })
    }

    /// Makes it, in a file that is so long already, and that nobody else knows.
    pub(super) fn create(&mut self, file: File) -> Result<(), MappedError> {
        let room = PageLen::kept(LEAST);
        file.reserve(self.start, room).map_err(refused)?;
        // Disks are slower where nothing was written before. Once, not at each commit.
        self.buffer.fill(0);
        for place in (0..LEAST).step_by(BUFFER) {
            let words = &self.buffer[..BUFFER.min(LEAST - place) / WORD];
            file.write_words(self.start + place, words)
                .map_err(refused)?;
        }
        self.write_head(file)?;
        self.condition = Condition::Good;
        Ok(())
    }

    /// An error unless the log can be written to.
    pub(super) fn check(&self) -> Result<(), MappedError> {
        match self.condition {
            Condition::Unread => Err(MappedError::Closed),
            Condition::Poisoned => Err(MappedError::Poisoned),
            Condition::Good | Condition::Behind => Ok(()),
        }
    }

    pub(super) fn condition(&self) -> Condition {
        self.condition
    }

    /// Bytes of records since the last checkpoint.
    pub(super) fn length(&self) -> usize {
        self.next - RECORDS
    }

    /// The file has not all of the last record's changes, or has them again.
    pub(super) fn set_behind(&mut self, is_behind: bool) {
        self.condition = match is_behind {
            true => Condition::Behind,
            false => Condition::Good,
        };
    }

    /// Nobody writes to it any more, as nobody knows what is on the disk.
    fn poisoned(&mut self) -> MappedError {
        self.condition = Condition::Poisoned;
        MappedError::Poisoned
    }

    /// Says that all records up to the last are home.
    fn write_head(&mut self, file: File) -> Result<(), MappedError> {
        let sum = end_of(sum_of(self.id, self.sequence), HEAD);
        self.buffer[..BLOCK / WORD].fill(0);
        self.buffer[..3].copy_from_slice(&[HEAD, self.sequence, sum]);
        let (other, block) = (1 - self.head, &self.buffer[..BLOCK / WORD]);
        let place = self.start + other * BLOCK;
        // A disk without room refuses the first.
        file.write_words(place, block).map_err(refused)?;
        let written = file.write_durably(place, block);
        written.map_err(|_| self.poisoned())?;
        self.head = other;
        Ok(())
    }

    /// Begins anew, once the file has all changes: has them on the disk first, and keeps so many bytes for the next
    /// records.
    pub(super) fn restart(&mut self, file: File, keep: usize) -> Result<(), MappedError> {
        self.check()?;
        if self.condition == Condition::Behind {
            return Err(MappedError::NoSpace);
        }
        if self.next != RECORDS {
            self.settle(file)?;
        }
        self.shorten(file, keep);
        Ok(())
    }

    /// The same by who opens the file, whatever it has, and whether or not there were records: what was read may be in the
    /// kernel's memory alone, as those who wrote it were killed before they had waited for it, or the disk failed. So may
    /// a record that was not finished be on the disk alone: it gets a number that means nothing.
    pub(super) fn begin(&mut self, file: File, keep: usize) -> Result<(), MappedError> {
        self.check()?;
        self.sequence += 1;
        self.settle(file)?;
        self.shorten(file, keep);
        Ok(())
    }

    /// Has all changes on the disk, then says so.
    fn settle(&mut self, file: File) -> Result<(), MappedError> {
        self.sync(file)?;
        self.write_head(file)?;
        (self.next, self.last) = (RECORDS, RECORDS);
        Ok(())
    }

    /// Has all on the disk that the file was told.
    pub(super) fn sync(&mut self, file: File) -> Result<(), MappedError> {
        file.sync().map_err(|_| self.poisoned())
    }

    /// Keeps so many bytes for the next records.
    fn shorten(&mut self, file: File, keep: usize) {
        let keep = keep.next_multiple_of(LEAST);
        // If the kernel refuses, the file is longer than it need be.
        if self.end > keep && self.set_end(file, keep).is_ok() {
            self.end = keep;
        }
    }

    fn set_end(&self, file: File, end: usize) -> Result<(), MappedError> {
        file.set_length(PageLen::kept(self.start + end))
            .map_err(refused)
    }

    /// Has room for these bytes of a record.
    fn make_room(&mut self, file: File, bytes: Range<usize>) -> Result<(), MappedError> {
        if bytes.end <= self.end {
            return Ok(());
        }
        let end = bytes.end.next_multiple_of(LEAST);
        self.set_end(file, end)?;
        let room = PageLen::kept(end - self.end);
        if let Err(refusal) = file.reserve(self.start + self.end, room) {
            let _ = self.set_end(file, self.end);
            return Err(refused(refusal));
        }
        if bytes.len() <= SMALL {
            self.write_zeros(file, self.end..end);
        }
        self.end = end;
        Ok(())
    }

    /// Has these bytes on the disk as zeros, for small records to come: where a filesystem has reserved blocks that were never
    /// written, each wait for one is a wait for its journal, too. If something is refused, it is so.
    fn write_zeros(&self, file: File, bytes: Range<usize>) {
        const ZEROS: [u64; BLOCK / WORD] = [0; BLOCK / WORD];
        let (start, length) = (self.start + bytes.start, bytes.len());
        let mut places = (start..start + length).step_by(BLOCK);
        if places.all(|place| file.write_words(place, &ZEROS).is_ok()) {
            let _ = file.write_out(start, length);
        }
    }
}

/// A record that is being written.
pub(super) struct Record<'a> {
    log: &'a mut Log,
    file: File,
    /// Words in the buffer.
    filled: usize,
    /// Those of these that the sum has.
    summed: usize,
    /// Words behind the first block that are on the disk.
    written: usize,
    sum: SipHasher13,
}

impl<'a> Record<'a> {
    pub(super) fn new(log: &'a mut Log, file: File) -> Self {
        let sum = sum_of(log.id, log.sequence + 1);
        Self {
            log,
            file,
            filled: RECORD_WORDS,
            summed: RECORD_WORDS,
            written: 0,
            sum,
        }
    }

    fn words(&self) -> usize {
        self.written + self.filled
    }

    /// Adds words of the heap, below 65 536 of them.
    pub(super) fn add(&mut self, place: usize, words: &[u64]) -> Result<(), MappedError> {
        self.put(&[word_of(place, words.len())])?;
        self.put(words)
    }

    fn put(&mut self, mut words: &[u64]) -> Result<(), MappedError> {
        while !words.is_empty() {
            if self.filled == self.log.buffer.len() {
                self.write_rest()?;
            }
            let (next, left) = words.split_at(words.len().min(self.log.buffer.len() - self.filled));
            let end = self.filled + next.len();
            self.log.buffer[self.filled..end].copy_from_slice(next);
            self.filled = end;
            words = left;
        }
        Ok(())
    }

    /// Writes what stands in the buffer behind the first block, whole blocks.
    fn write_rest(&mut self) -> Result<(), MappedError> {
        self.add_to_sum();
        let first = BLOCK / WORD;
        let end = self.filled.next_multiple_of(first);
        self.log.buffer[self.filled..end].fill(0);
        self.write(first..end, self.written * WORD)?;
        self.written += self.filled - first;
        (self.filled, self.summed) = (first, first);
        Ok(())
    }

    fn add_to_sum(&mut self) {
        add(&mut self.sum, &self.log.buffer[self.summed..self.filled]);
        self.summed = self.filled;
    }

    /// Writes words of the buffer so many bytes behind where they stand there, and waits until they are on the disk.
    fn write(&mut self, words: Range<usize>, behind: usize) -> Result<(), MappedError> {
        if words.is_empty() {
            return Ok(());
        }
        let (log, file) = (&mut *self.log, self.file);
        let place = log.next + behind + words.start * WORD;
        log.make_room(file, place..place + words.len() * WORD)?;
        let (place, words) = (log.start + place, &log.buffer[words]);
        // A disk without room refuses the first: nothing is lost then.
        file.write_words(place, words).map_err(refused)?;
        let written = file.write_durably(place, words);
        written.map_err(|_| log.poisoned())
    }

    /// The record is on the disk, if there is anything in it: whether it is.
    pub(super) fn finish(mut self) -> Result<bool, MappedError> {
        if self.words() == RECORD_WORDS {
            return Ok(false);
        }
        self.add_to_sum();
        let (first, total) = (BLOCK / WORD, self.words());
        let length = ((total - RECORD_WORDS) * WORD) as u64;
        let sum = end_of(self.sum, length);
        let head = [DONE, self.log.sequence + 1, length, sum];
        self.log.buffer[..RECORD_WORDS].copy_from_slice(&head);
        let done = match self.written {
            0 => {
                let end = self.filled.next_multiple_of(first);
                self.log.buffer[self.filled..end].fill(0);
                self.write(0..end, 0)
            }
            _ => self.write_rest().and_then(|()| self.write(0..first, 0)),
        };
        let log = self.log;
        if let Err(error) = done {
            // What the kernel has of it shall be no record to who opens the file next.
            log.buffer[..first].fill(0);
            let _ = self
                .file
                .write_words(log.start + log.next, &log.buffer[..first]);
            return Err(error);
        }
        log.last = log.next;
        log.next += (total * WORD).next_multiple_of(BLOCK);
        log.sequence += 1;
        Ok(true)
    }
}

/// What a heap that commits has besides its mapping.
pub(super) struct Commits {
    log: Lock<Log>,
    pub(super) noting: Lock<Noting>,
    /// The file as it is: all that was committed.
    pub(super) view: NonNull<u8>,
    length: PageLen,
}

// SAFETY: 1. the view is only read.
unsafe impl Send for Commits {}
// SAFETY: 1. as above.
unsafe impl Sync for Commits {}

impl Commits {
    /// For a heap of so many bytes, at the beginning of this file.
    pub(super) fn new(file: File, bytes: usize, id: u64) -> Result<Self, MappedError> {
        let log = Log::new(bytes, id)?;
        let length = PageLen::kept(bytes);
        let view = file.map(length, None, Sharing::Reader).map_err(refused)?;
        Ok(Self {
            log: Lock::new(log),
            noting: Lock::new(Noting::No),
            view,
            length,
        })
    }

    /// The log. A forked child finds it as whatever its parent was at, and changes nothing of the file by it before it
    /// has opened that itself.
    pub(super) fn log(&self) -> Held<'_, Log> {
        self.log.break_inherited();
        self.log.lock()
    }
}

impl Drop for Commits {
    fn drop(&mut self) {
        self.noting.lock().end();
        // SAFETY: 1. our own, and nobody uses it any more.
        let _ = unsafe { os::unmap(self.view, self.length) };
    }
}
