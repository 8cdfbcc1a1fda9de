//! Bytes that no heap would have left, in the heap of a file that commits and in its log: whatever stands there, who opens
//! and uses it ends in no crash, waits for nobody, and stores nothing outside.

use core::hash::Hasher;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::{env, fs};

use flagstone::allocator_api2::alloc::Allocator;
use flagstone::failpoints::{self, Recorder, Written};
use flagstone::{Committed, MappedError};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use siphasher::sip::SipHasher13;

use crate::children::{end_of, start};
use crate::commit_kills::board;
use crate::commit_load::State;
use crate::commits::{commit, open};
use crate::common::process::begin;
use crate::files::{Folder, in_child};
use crate::image::{SIZES, layout};
use crate::images::Neighbour;
use crate::tables::{BYTES, Part, Tables};

/// Images that one process opens, one after the other.
const BATCH: usize = 250;
/// Where the first lies, and how far the next is from it.
const PLACE: usize = 0x2800_0000_0000;
const STEP: usize = 16 << 20;
/// What the log is, as `src/mapped/log.rs` has it.
const BLOCK: usize = 4096;
const RECORDS: usize = BYTES + 2 * BLOCK;
const WORD: usize = 8;
const ID: usize = 3 * WORD;

fn images() -> Range<usize> {
    if let Ok(range) = env::var("MAPPED_IMAGES") {
        let (first, last) = range.split_once("..").expect("a range");
        let number = |text: &str| text.parse().expect("a number");
        return number(first)..number(last);
    }
    let is_long = env::var_os("TEST_LONG").is_some();
    0..if is_long { 30_000 } else { 1_500 }
}

/// A file with some records.
fn image() -> Vec<u8> {
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

struct Image<'a> {
    bytes: Vec<u8>,
    random: &'a mut SmallRng,
}

impl Image<'_> {
    fn word(&self, place: usize) -> u64 {
        let bytes = self.bytes.get(place..place + WORD);
        bytes.map_or(0, |bytes| u64::from_ne_bytes(bytes.try_into().expect("8")))
    }

    fn set(&mut self, place: usize, word: u64) {
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
            let end = next + 4 * WORD + length;
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
    fn change_record(&mut self) {
        let records = self.records();
        let Some(record) = records.get(self.random.random_range(0..records.len().max(1))) else {
            return;
        };
        let changes = record.start + 4 * WORD..record.end;
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

    fn change_head(&mut self) {
        let head = BYTES + self.random.random_range(0..2) * BLOCK;
        let word = self.random.random_range(0..3);
        self.change(head + word * WORD);
        if self.random.random_range(0..4) != 0 {
            self.seal(head, head..head, u64::from_le_bytes(*b"flaghead"));
        }
    }

    /// Changes the heap's tables, as the last checkpoint left them, and has no record say otherwise, at times.
    fn change_tables(&mut self) {
        let words = BYTES / WORD;
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

    fn change_length(&mut self) {
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

/// Has all in the heap's own place, as an opening does.
fn apply(bytes: &[u8]) -> Vec<u8> {
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    fs::write(&path, bytes).expect("room");
    in_child(|| crate::commits::close(open(&path).expect("a heap")));
    fs::read(&path).expect("a file")
}

/// Nothing is written outside of the file that the heap has.
fn look(_: i32, what: Written<'_>) {
    if let Written::Bytes { place, bytes } = what {
        assert!(place + bytes.len() <= BYTES + (64 << 20), "{place}");
    }
}
static LOOK: Recorder = look;

/// Whatever stands there: it is used, if it can be.
fn use_image(path: &str, random: &mut SmallRng, neighbour: &Neighbour) -> Result<(), MappedError> {
    let heap = open(path)?;
    neighbour.lie_at(heap.base().addr().get() + BYTES);
    let mut blocks = Vec::new();
    for _ in 0..random.random_range(1..4) {
        for _ in 0..10 {
            let size = SIZES[random.random_range(0..SIZES.len())];
            if let Ok(block) = heap.handle().allocate(layout(size)) {
                let first = block.cast::<u8>();
                assert!(heap.contains(first.as_ptr()));
                // SAFETY: a block of so many bytes.
                unsafe { first.write_bytes(7, size) };
                blocks.push((first, size));
            }
        }
        for _ in 0..random.random_range(0..8) {
            if !blocks.is_empty() {
                let (block, size) = blocks.swap_remove(random.random_range(0..blocks.len()));
                // SAFETY: allocated above, and not used any more.
                unsafe { heap.handle().deallocate(block, layout(size)) };
            }
        }
        let found = heap.verify();
        assert!(matches!(found, Ok(()) | Err(MappedError::Damaged)));
        // SAFETY: nobody else uses it; here and below.
        unsafe { heap.commit() }?;
        match random.random_range(0..4) {
            0 => {
                // SAFETY: as above, and nothing of it.
                unsafe { heap.rollback() }?;
                blocks.clear();
            }
            1 => heap.checkpoint()?,
            // SAFETY: as above.
            2 => unsafe { heap.compact() }?,
            _ => {}
        }
    }
    // SAFETY: as above.
    unsafe { heap.close() }
}

fn try_image(images: [&[u8]; 2], path: &str, neighbour: &Neighbour, number: usize) -> bool {
    let mut random = SmallRng::seed_from_u64(number as u64);
    // A log with records, or one without: tables that no record mends.
    let which = random.random_range(0..2);
    let mut image = Image {
        bytes: images[which].to_vec(),
        random: &mut random,
    };
    // The first is as it was.
    for _ in 0..number.min(image.random.random_range(1..4)) {
        match image.random.random_range(0..10) {
            0..4 => image.change_record(),
            4 | 5 => image.change_head(),
            6..9 => image.change_tables(),
            _ => image.change_length(),
        }
    }
    let all: Vec<_> = (0..7)
        .map(|word| AtomicU64::new(image.word(word * WORD)))
        .collect();
    // The constants are what they were, but for the place.
    Tables(&all).set_base(PLACE + number % BATCH * STEP);
    for (word, value) in all.iter().enumerate() {
        image.set(word * WORD, value.load(Ordering::Relaxed));
    }
    let bytes = image.bytes;
    fs::write(path, &bytes).expect("room");
    let used = use_image(path, &mut random, neighbour);
    neighbour.expect_whole();
    let is_typed = matches!(
        used,
        Ok(())
            | Err(MappedError::Damaged
                | MappedError::Length
                | MappedError::NoHeap
                | MappedError::NoSpace)
    );
    assert!(is_typed, "{used:?}");
    assert!(number != 0 || used.is_ok());
    let _ = fs::remove_file(path);
    used.is_ok()
}

#[test]
fn whatever_stands_in_the_log() {
    let _turn = begin();
    let image = image();
    let applied = apply(&image);
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    let [at, good] = board();
    good.store(0, Ordering::Relaxed);
    let all = images();
    let mut first = all.start;
    while first < all.end {
        let last = all.end.min(first + BATCH);
        let child = start(|| {
            let neighbour = Neighbour::new();
            failpoints::record(Some(&LOOK));
            for number in first..last {
                at.store(number as u64, Ordering::Relaxed);
                let is_good = try_image([&image, &applied], &path, &neighbour, number);
                good.fetch_add(u64::from(is_good), Ordering::Relaxed);
            }
        });
        let status = end_of(child);
        let number = at.load(Ordering::Relaxed);
        let again = format!("once more with MAPPED_IMAGES={number}..{}", number + 1);
        assert_eq!(status, 0, "{again}");
        let _ = fs::remove_file(&path);
        // SAFETY: `alarm` has no preconditions. All of them may take longer than a test.
        unsafe { libc::alarm(600) };
        first = last;
    }
    let good = good.load(Ordering::Relaxed);
    println!("{good} of {} were used", all.len());
    assert!(all.len() < 100 || good as usize > all.len() / 4, "{good}");
}

#[test]
fn files_of_other_machines_are_named_as_such() {
    let _turn = begin();
    let image = image();
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    let named = |change: &dyn Fn(&mut [u64; 7])| {
        let mut words: [u64; 7] = core::array::from_fn(|word| {
            u64::from_ne_bytes(image[word * WORD..][..WORD].try_into().expect("8"))
        });
        change(&mut words);
        let mut other = image.clone();
        for (place, word) in other.chunks_mut(WORD).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        fs::write(&path, other).expect("room");
        let found = open(&path).err();
        // Nobody changed it.
        let file = fs::File::open(&path).expect("there");
        let mut rest = vec![0; image.len() - 56];
        file.read_exact_at(&mut rest, 56).expect("there");
        assert!(file.as_raw_fd() >= 0 && rest[..] == image[56..]);
        found
    };
    let seal = |words: &mut [u64; 7]| {
        words[6] = words[..6].iter().fold(0xcbf2_9ce4_8422_2325, |sum, word| {
            (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3)
        });
    };
    let order = named(&|words| words.iter_mut().for_each(|word| *word = word.swap_bytes()));
    assert_eq!(order, Some(MappedError::ByteOrder));
    let version = named(&|words| words[0] ^= 3 << 56);
    assert_eq!(version, Some(MappedError::Version));
    let page = named(&|words| {
        words[5] *= 4;
        seal(words);
    });
    assert_eq!(page, Some(MappedError::PageSize));
    let kind = named(&|words| {
        words[4] = 2;
        words[1] = image.len() as u64;
        seal(words);
    });
    assert_eq!(kind, Some(MappedError::Kind));
    assert_eq!(named(&|words| words[6] ^= 1), Some(MappedError::Damaged));
}
