//! Bytes that no heap would have left, in the heap of a file that commits and in its log: whatever stands there, who opens
//! and uses it ends in no crash, waits for nobody, and stores nothing outside.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::{env, fs};

use flagstone::MappedError;
use flagstone::allocator_api2::alloc::Allocator;
use flagstone::failpoints::{self, Recorder, Written};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::children::{end_of, start};
use crate::commit_image::{BLOCK, Image, WORD, image};
use crate::commit_kills::board;
use crate::commits::open;
use crate::common::process::begin;
use crate::files::{Folder, in_child};
use crate::image::{SIZES, layout};
use crate::images::Neighbour;
use crate::tables::{BYTES, Tables};

/// Images that one process opens, one after the other.
const BATCH: usize = 250;
/// Where the first lies, and how far the next is from it.
const PLACE: usize = 0x2800_0000_0000;
const STEP: usize = 16 << 20;

fn images() -> Range<usize> {
    if let Ok(range) = env::var("MAPPED_IMAGES") {
        let (first, last) = range.split_once("..").expect("a range");
        let number = |text: &str| text.parse().expect("a number");
        return number(first)..number(last);
    }
    let is_long = env::var_os("TEST_LONG").is_some();
    0..if is_long { 5_000 } else { 1_000 }
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

/// Zeros are holes.
fn write(path: &str, bytes: &[u8]) {
    let file = fs::File::create(path).expect("a file");
    file.set_len(bytes.len() as u64).expect("a length");
    for (place, block) in bytes.chunks(BLOCK).enumerate() {
        if *block != [0; BLOCK][..block.len()] {
            file.write_all_at(block, (place * BLOCK) as u64)
                .expect("room");
        }
    }
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
    write(path, &image.bytes);
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
    assert!(all.len() < 100 || good > all.len() as u64 / 4, "{good}");
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
