//! A file that commits, with records in its log, to be changed and opened.

use core::hash::Hasher;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use std::fs;

use flagstone::Committed;
use rand::RngExt;
use rand::rngs::SmallRng;
use siphasher::sip::SipHasher13;

use crate::commit_load::State;
use crate::commits::commit;
use crate::files::{Folder, in_child};
use crate::tables::{BYTES, Part, Tables, UNIT};

/// What the log is, as `src/mapped/log.rs` has it.
pub(crate) const BLOCK: usize = 4096;
const RECORDS: usize = BYTES + 2 * BLOCK;
pub(crate) const WORD: usize = 8;
/// As long as the heap's tables, at least.
const TABLES: usize = 3 * UNIT;
const ID: usize = 3 * WORD;

/// A file with some records.
pub(crate) fn image() -> Vec<u8> {
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    in_child(|| {
        let heap = Committed::options().capacity(BYTES).create(&path);
        let heap = heap.expect("a heap");
        let mut state = State::default();
        for _ in 0..6 {
            let next = state.next(11);
            if next.store(heap, &state).is_ok() {
                commit(heap);
                state = next;
            }
        }
        assert!(state.commits > 3);
    });
    fs::read(&path).expect("a file")
}

/// The bytes of such a file, of which some are others.
pub(crate) struct Image<'a> {
    pub(crate) bytes: Vec<u8>,
    pub(crate) random: &'a mut SmallRng,
}

impl Image<'_> {
    pub(crate) fn word(&self, place: usize) -> u64 {
        let bytes = self.bytes.get(place..place + WORD);
        bytes.map_or(0, |bytes| u64::from_ne_bytes(bytes.try_into().expect("8")))
    }

    pub(crate) fn set(&mut self, place: usize, word: u64) {
        if let Some(bytes) = self.bytes.get_mut(place..place + WORD) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
    }

    /// The sum of some words, a head's or a record's: they are what the log's own is.
    fn seal(&mut self, head: usize, changes: Range<usize>, last: u64) {
        let mut sum = SipHasher13::new_with_keys(self.word(ID), self.word(head + WORD));
        // What the file does not have has no sum.
        let Some(changes) = self.bytes.get(changes) else {
            return;
        };
        sum.write(changes);
        sum.write(&last.to_le_bytes());
        let place = head
            + if last == u64::from_le_bytes(*b"flaghead") {
                2
            } else {
                3
            } * WORD;
        self.set(place, sum.finish());
    }

    /// The records, from a byte to another.
    fn records(&self) -> Vec<Range<usize>> {
        let (mut all, mut next) = (Vec::new(), RECORDS);
        while self.word(next) == u64::from_le_bytes(*b"flagdone") {
            let Ok(length) = usize::try_from(self.word(next + 2 * WORD)) else {
                break;
            };
            let end = (next + 4 * WORD).saturating_add(length);
            if end > self.bytes.len() {
                break;
            }
            all.push(next..end);
            next = RECORDS + (end - RECORDS).next_multiple_of(BLOCK);
        }
        all
    }

    fn any(&mut self, old: u64) -> u64 {
        match self.random.random_range(0..8) {
            0..3 => old ^ 1 << self.random.random_range(0..64),
            3 => self.random.random(),
            4 => {
                [0, u64::MAX, u64::MAX / 2, u64::MAX / 2 + 1][self.random.random_range(0..4_usize)]
            }
            5 => self.random.random_range(0..1 << 12),
            6 => old.wrapping_add(1),
            _ => old.wrapping_sub(1),
        }
    }

    fn change(&mut self, place: usize) {
        let word = self.any(self.word(place));
        self.set(place, word);
    }

    /// Changes something of a record, and has it right else.
    pub(crate) fn change_record(&mut self) {
        let records = self.records();
        let Some(record) = records.get(self.random.random_range(0..records.len().max(1))) else {
            return;
        };
        let changes = record.start + 4 * WORD..record.end;
        if changes.len() < WORD {
            return;
        }
        let mut end = changes.end;
        match self.random.random_range(0..6) {
            // Its number, or what it says of its length.
            0 => self.change(record.start + WORD),
            1 => {
                let length = self.any(changes.len() as u64);
                self.set(record.start + 2 * WORD, length);
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                end = changes.start.saturating_add(length).min(self.bytes.len());
            }
            // A change's place and length.
            2 | 3 => {
                let (mut next, mut all) = (changes.start, Vec::new());
                while next < changes.end {
                    all.push(next);
                    next +=
                        WORD * (1 + usize::try_from(self.word(next) & 0xffff).expect("16 bits"));
                }
                let place = all[self.random.random_range(0..all.len())];
                if self.random.random_range(0..2) == 0 {
                    self.change(place);
                } else {
                    // Near the ends of the heap, and of what no commit changes.
                    let ends = [0, 48, 56, BYTES - 8, BYTES, BYTES + BLOCK];
                    let to = ends[self.random.random_range(0..ends.len())] as u64 / 8;
                    let word = to << 16 | self.word(place) & 0xffff;
                    self.set(place, word);
                }
            }
            _ => {
                let place = self.random.random_range(0..changes.len() / WORD) * WORD;
                self.change(changes.start + place);
            }
        }
        let length = self.word(record.start + 2 * WORD);
        if self.random.random_range(0..8) != 0 {
            self.seal(record.start, changes.start..end, length);
        }
    }

    pub(crate) fn change_head(&mut self) {
        let head = BYTES + self.random.random_range(0..2) * BLOCK;
        let word = self.random.random_range(0..3);
        self.change(head + word * WORD);
        if self.random.random_range(0..4) != 0 {
            self.seal(head, head..head, u64::from_le_bytes(*b"flaghead"));
        }
    }

    /// Changes the heap's tables, as the last checkpoint left them, and has no record say otherwise, at times.
    pub(crate) fn change_tables(&mut self) {
        let words = TABLES / WORD;
        let all: Vec<_> = (0..words)
            .map(|word| AtomicU64::new(self.word(word * WORD)))
            .collect();
        let tables = Tables(&all);
        for _ in 0..self.random.random_range(1..6) {
            tables.spoil(self.random, Part::Any);
        }
        for (word, value) in all.iter().enumerate() {
            self.set(word * WORD, value.load(Ordering::Relaxed));
        }
    }

    pub(crate) fn change_length(&mut self) {
        let length = match self.random.random_range(0..5) {
            0 => self.random.random_range(0..self.bytes.len()),
            1 => BYTES + self.random.random_range(0..3 * BLOCK),
            2 => self.bytes.len() + self.random.random_range(1..10_000),
            3 => self.bytes.len() + (1 << 20),
            _ => self.bytes.len() - self.random.random_range(1..BLOCK),
        };
        self.bytes.resize(length, 0);
    }
}
