//! The log is read: by who opens a heap, and where the file has not all changes of the last record.

use core::ptr::NonNull;

use super::error::MappedError;
use super::log::{
    BLOCK, COUNT_BITS, Condition, DONE, HEAD, LEAST, Log, MOST, RECORD_WORDS, RECORDS,
};
use super::logged::{Reader, WORD, end_of, sum_of};
use crate::os::shared::File;

/// Bytes of the heap that a record changes: where they belong, and where they stand.
pub(super) struct Change {
    pub(super) place: usize,
    pub(super) from: NonNull<u8>,
    pub(super) length: usize,
}

impl Log {
    /// Reads the log of a file that nobody else writes to, and answers for each change of a record that may not be home, in
    /// order; whether there was one. `first` are bytes at the heap's beginning that no commit changes.
    pub(super) fn replay(
        &mut self,
        file: File,
        first: usize,
        mut act: impl FnMut(Change) -> Result<(), MappedError>,
    ) -> Result<bool, MappedError> {
        let reader = Reader::new(file)?;
        self.end = reader
            .bytes
            .checked_sub(self.start)
            .filter(|end| *end >= LEAST && end.is_multiple_of(LEAST))
            .ok_or(MappedError::Length)?;
        let heads = [0, 1].map(|head| self.head_at(&reader, head));
        let newer = heads[1] > heads[0];
        (self.head, self.sequence) = match heads[usize::from(newer)] {
            Some(sequence) => (usize::from(newer), sequence),
            None => return Err(MappedError::Damaged),
        };
        (self.next, self.last) = (RECORDS, RECORDS);
        while let Some(length) = self.record_at(&reader, self.next) {
            self.check_changes(&reader, self.next, length, first)?;
            self.each_change(&reader, self.next, length, &mut act)?;
            self.last = self.next;
            self.next += (RECORD_WORDS * WORD + length).next_multiple_of(BLOCK);
            self.sequence += 1;
        }
        self.condition = Condition::Good;
        Ok(self.next != RECORDS)
    }

    /// The changes of the last record, once more.
    pub(super) fn replay_last(
        &mut self,
        file: File,
        mut act: impl FnMut(Change) -> Result<(), MappedError>,
    ) -> Result<(), MappedError> {
        let reader = Reader::new(file)?;
        self.sequence -= 1;
        let length = self.record_at(&reader, self.last);
        self.sequence += 1;
        let length = length.ok_or(MappedError::Damaged)?;
        self.each_change(&reader, self.last, length, &mut act)
    }

    /// What a head says; `None` if it says nothing.
    fn head_at(&self, reader: &Reader, head: usize) -> Option<u64> {
        let place = self.start + head * BLOCK;
        let [mark, sequence, sum] = [0, 1, 2].map(|word| reader.word(place + word * WORD));
        let (mark, sequence, sum) = (mark?, sequence?, sum?);
        let own = end_of(sum_of(self.id, sequence), HEAD);
        (mark == HEAD && sum == own && sequence <= MOST).then_some(sequence)
    }

    /// Bytes of changes of the record behind the last, if it is there, whole.
    fn record_at(&self, reader: &Reader, place: usize) -> Option<usize> {
        let place = self.start.checked_add(place)?;
        let word = |word: usize| reader.word(place + word * WORD);
        let sequence = self.sequence.checked_add(1)?;
        if word(0)? != DONE || word(1)? != sequence {
            return None;
        }
        let length = usize::try_from(word(2)?).ok()?;
        let changes = place + RECORD_WORDS * WORD;
        if !length.is_multiple_of(WORD) || length > reader.bytes.checked_sub(changes)? {
            return None;
        }
        let mut sum = sum_of(self.id, sequence);
        reader.add(&mut sum, changes, length)?;
        (word(3)? == end_of(sum, length as u64)).then_some(length)
    }

    /// Calls for each change of a record.
    fn each_change(
        &self,
        reader: &Reader,
        place: usize,
        length: usize,
        act: &mut impl FnMut(Change) -> Result<(), MappedError>,
    ) -> Result<(), MappedError> {
        let mut next = self.start + place + RECORD_WORDS * WORD;
        let end = next + length;
        while next < end {
            let word = reader.word(next).ok_or(MappedError::Damaged)?;
            let (place, count) = (word >> COUNT_BITS, word & ((1 << COUNT_BITS) - 1));
            let place = usize::try_from(place)
                .ok()
                .and_then(|word| word.checked_mul(WORD));
            #[expect(clippy::cast_possible_truncation, reason = "16 bits")]
            let length = count as usize * WORD;
            next += WORD;
            let fits = |place: &usize| {
                let is_inside = place
                    .checked_add(length)
                    .is_some_and(|end| end <= self.start);
                is_inside && length != 0 && length <= end - next
            };
            let place = place.filter(fits).ok_or(MappedError::Damaged)?;
            let from = reader.at(next);
            act(Change {
                place,
                from,
                length,
            })?;
            next += length;
        }
        Ok(())
    }

    /// Whether a record's changes are such, before the first of them is made.
    fn check_changes(
        &self,
        reader: &Reader,
        place: usize,
        length: usize,
        first: usize,
    ) -> Result<(), MappedError> {
        self.each_change(reader, place, length, &mut |change| {
            if change.place < first {
                return Err(MappedError::Damaged);
            }
            Ok(())
        })
    }
}
