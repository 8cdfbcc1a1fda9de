//! Bytes that no heap would have left, where checksums do not tell: whatever stands in the tables, a process that uses
//! the heap ends none of its calls in a crash, waits for nobody who is not there, and gets no block outside of the heap.
//! Where only that is wrong which can be made from the rest, no block is handed out twice, either, and none loses its
//! bytes.

use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::env;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::thread;

use flagstone::allocator_api2::alloc::Allocator;
use flagstone::allocator_api2::boxed::Box;
use flagstone::{Mapped, MappedError};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::children::{end_of, start};
use crate::common::process::begin;
use crate::image::{Image, ROOT, SIZES, layout};
use crate::kinds::{KINDS, Kind, memory_file, of_each};
use crate::tables::{BYTES, Part, base_of, start_of, tables_of};

/// Images that one process attaches, one after the other.
const BATCH: usize = 250;
/// Where the first of these lies, and how far the next is from it. Behind each a neighbour lies.
const PLACE: usize = 0x2000_0000_0000;
const STEP: usize = 16 << 20;
const NEIGHBOUR: usize = 4 << 20;
const PLACES: usize = BATCH * STEP;

/// Those that are tried: `MAPPED_IMAGES=5..6` is one that failed, `0..1000000` takes some minutes.
fn images(kind: &Kind) -> Range<usize> {
    if let Ok(range) = env::var("MAPPED_IMAGES") {
        let (first, last) = range.split_once("..").expect("a range");
        let number = |text: &str| text.parse().expect("a number");
        return number(first)..number(last);
    }
    let is_long = env::var_os("TEST_LONG").is_some();
    0..kind.share(if is_long { 30_000 } else { 2_500 })
}

/// A file behind the heap, mapped as that is: bytes of it that go are seen by its length in memory.
pub(crate) struct Neighbour(File);

impl Neighbour {
    pub(crate) fn new() -> Self {
        let file = File::from(memory_file(NEIGHBOUR));
        file.write_all_at(&[1; NEIGHBOUR], 0).expect("room");
        Self(file)
    }

    #[expect(clippy::disallowed_methods, reason = "what the allocator does not own")]
    pub(crate) fn lie_at(&self, place: usize) {
        use std::os::fd::AsRawFd;
        let place = core::ptr::without_provenance_mut(place);
        let (access, flags) = (
            libc::PROT_NONE,
            libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE,
        );
        // SAFETY: a mapping that replaces nothing.
        let mapped = unsafe { libc::mmap(place, NEIGHBOUR, access, flags, self.0.as_raw_fd(), 0) };
        assert_eq!(mapped, place);
    }

    pub(crate) fn expect_whole(&self) {
        let blocks = self.0.metadata().expect("open").blocks();
        assert_eq!(blocks * 512, NEIGHBOUR as u64, "outside of the heap");
    }
}

/// Blocks that this process has, with marks at both ends.
struct Shadow<'a> {
    heap: &'a Mapped,
    inside: Range<usize>,
    /// Whether no two overlap.
    is_strict: bool,
    live: Vec<(NonNull<u8>, usize)>,
}

impl<'a> Shadow<'a> {
    fn new(image: &Image, heap: &'a Mapped, is_strict: bool) -> Self {
        let base = base_of(heap);
        Self {
            heap,
            inside: base + image.tables..base + BYTES,
            is_strict,
            live: Vec::new(),
        }
    }

    fn ends(block: NonNull<u8>, size: usize) -> [NonNull<u64>; 2] {
        // SAFETY: inside the block, which is no shorter.
        let last = unsafe { block.add(size - 8) };
        [block.cast(), last.cast()]
    }

    fn enter(&mut self, block: NonNull<u8>, size: usize) {
        let first = block.addr().get();
        assert!(
            self.inside.contains(&first) && size <= self.inside.end - first,
            "{first:#x}, {size} bytes: outside of {:x?}",
            self.inside
        );
        for end in Self::ends(block, size) {
            // SAFETY: in the heap.
            unsafe { end.write_unaligned(first as u64) };
        }
        self.live.push((block, size));
    }

    fn check(&self, block: NonNull<u8>, size: usize) {
        for end in Self::ends(block, size) {
            // SAFETY: in the heap.
            let found = unsafe { end.read_unaligned() };
            assert!(
                !self.is_strict || found == block.addr().get() as u64,
                "{block:p} of {size} bytes has {found:#x}"
            );
        }
    }

    fn alloc(&mut self, size: usize) {
        if let Ok(found) = self.heap.handle().allocate(layout(size)) {
            assert!(found.len() >= size);
            self.enter(found.cast(), found.len());
        }
    }

    fn free(&mut self, place: usize) {
        let (block, size) = self.live.swap_remove(place);
        self.check(block, size);
        // SAFETY: in the heap, and not used any more.
        unsafe { self.heap.handle().deallocate(block, layout(size)) };
    }

    fn resize(&mut self, place: usize, to: usize) {
        let (block, size) = self.live.swap_remove(place);
        self.check(block, size);
        let (handle, old, new) = (self.heap.handle(), layout(size), layout(to));
        let found = if to < size {
            // SAFETY: in the heap, and not used any more if there is another; here and below.
            unsafe { handle.shrink(block, old, new) }
        } else {
            // SAFETY: as above.
            unsafe { handle.grow(block, old, new) }
        };
        match found {
            Ok(found) => self.enter(found.cast(), found.len()),
            Err(_) => self.live.push((block, size)),
        }
    }

    fn use_all(&mut self, random: &mut SmallRng) {
        for _ in 0..24 {
            match random.random_range(0..8) {
                0..4 => self.alloc(SIZES[random.random_range(0..SIZES.len())]),
                4..7 if !self.live.is_empty() => self.free(random.random_range(0..self.live.len())),
                7 if !self.live.is_empty() => {
                    let size = SIZES[random.random_range(0..SIZES.len())];
                    self.resize(random.random_range(0..self.live.len()), size);
                }
                _ => {}
            }
        }
    }

    /// All that there is to ask of a heap.
    fn ask(&mut self, random: &mut SmallRng) {
        let stats = self.heap.stats();
        assert!(stats.held <= BYTES && stats.live <= stats.held, "{stats:?}");
        for name in [ROOT, "second"] {
            if let Some((place, _)) = self.heap.root(name) {
                assert!(
                    self.inside.contains(&place.addr().get()),
                    "{name}: {place:p}"
                );
            }
        }
        let place = core::ptr::without_provenance::<u8>(self.inside.start);
        let _ = self.heap.set_root(ROOT, place, 3);
        let _ = self.heap.remove_root("second");
        if random.random_range(0..4) == 0 {
            self.heap.purge().expect("a heap");
        }
        let found = self.heap.verify();
        assert!(
            matches!(found, Ok(()) | Err(MappedError::Damaged)),
            "{found:?}"
        );
    }
}

/// What is tried of an image: a few words are others.
fn try_image(image: &Image, kind: &Kind, file: &OwnedFd, neighbour: &Neighbour, number: usize) {
    let mut random = SmallRng::seed_from_u64(number as u64);
    let written = File::from(file.try_clone().expect("a descriptor"));
    let place = PLACE + number % BATCH * STEP;
    let (is_strict, moves) = (number.is_multiple_of(3), number % 64 == 7);
    let part = if is_strict { Part::Derived } else { Part::Any };
    // The first is as it was.
    let count = number.min(random.random_range(1..6));
    image.write_to(&written, |tables| {
        tables.set_base(place);
        (0..count).for_each(|_| tables.spoil(&mut random, part));
        if moves {
            tables.change_base(&mut random, PLACE..PLACE + PLACES);
        }
        if number % 500 == 77 {
            tables.spoil_lock(&mut random);
        }
    });
    let heap = match (kind.attach)(file) {
        Ok(heap) => heap,
        Err(
            MappedError::BaseBusy { .. }
            | MappedError::System { .. }
            | MappedError::Damaged
            // Another that moved lay there.
            | MappedError::Closed,
        ) if moves => return,
        Err(error) => panic!("{error}"),
    };
    if !moves {
        neighbour.lie_at(place + BYTES);
    }
    let base = base_of(&heap);
    let mut places = [
        0x1000_0000_0000..0x5000_0000_0000,
        0x10_0000_0000..0x40_0000_0000,
    ]
    .iter();
    assert!(
        places.any(|place| place.contains(&base)),
        "{base:#x}: none of a heap's places"
    );
    let mut shadow = Shadow::new(image, &heap, is_strict);
    for block in &image.blocks {
        // SAFETY: in the heap.
        shadow.enter(unsafe { start_of(&heap).add(block.distance) }, block.size);
    }
    shadow.use_all(&mut random);
    shadow.ask(&mut random);
    if !is_strict {
        // Others write there at any time.
        let tables = tables_of(&heap);
        for _ in 0..random.random_range(0..4) {
            tables.spoil(&mut random, part);
            shadow.use_all(&mut random);
        }
        for _ in 0..8 {
            let distance =
                random.random_range(0..BYTES) & ![7, 0xfff, 0xffff][random.random_range(0..3)];
            let size = SIZES[random.random_range(0..SIZES.len())];
            // SAFETY: in the heap; what is no block is refused, or is one by the tables.
            let block = unsafe { start_of(&heap).add(distance) };
            // SAFETY: as above.
            unsafe { heap.handle().deallocate(block, layout(size)) };
        }
        shadow.ask(&mut random);
    }
    while !shadow.live.is_empty() {
        shadow.free(shadow.live.len() - 1);
    }
    if is_strict {
        let stats = heap.stats();
        assert_eq!((stats.live, stats.refused), (0, 0), "{stats:?}");
    }
    if number == 0 {
        heap.verify().expect("a sound heap");
    }
    // SAFETY: nobody else is there.
    unsafe { heap.close() }.expect("not closed yet");
    neighbour.expect_whole();
}

/// Tries all images of a kind, of which one child after the other takes some.
fn try_images(kind: &Kind) {
    let shared = Mapped::create(1 << 20).expect("a heap");
    // The image that a child is at.
    let at: &AtomicU64 = Box::leak(Box::new_in(AtomicU64::new(0), shared.handle()));
    let image = Image::new(kind);
    let all = images(kind);
    let mut first = all.start;
    while first < all.end {
        let last = all.end.min(first + BATCH);
        let child = start(|| {
            let (file, neighbour) = ((kind.blank)(BYTES), Neighbour::new());
            for number in first..last {
                at.store(number as u64, Ordering::Relaxed);
                try_image(&image, kind, &file, &neighbour, number);
            }
        });
        let status = end_of(child);
        let number = at.load(Ordering::Relaxed);
        assert_eq!(
            status,
            0,
            "{}: once more with MAPPED_IMAGES={number}..{}",
            kind.name,
            number + 1
        );
        // SAFETY: `alarm` has no preconditions. All of them may take longer than a test.
        unsafe { libc::alarm(600) };
        first = last;
    }
}

#[test]
fn whatever_stands_in_the_tables() {
    let _turn = begin();
    of_each(try_images);
}

/// Stops a thread, however its own ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The same while another writes there all the time: what was checked is not read again.
#[test]
fn whatever_is_written_meanwhile() {
    let _turn = begin();
    let count = if env::var_os("TEST_LONG").is_some() {
        30
    } else {
        5
    };
    for kind in &KINDS {
        let image = Image::new(kind);
        for number in 0..kind.share(count) as u64 {
            let child = start(|| {
                let (file, neighbour) = ((kind.blank)(BYTES), Neighbour::new());
                let written = File::from(file.try_clone().expect("a descriptor"));
                image.write_to(&written, |tables| tables.set_base(PLACE));
                let heap = (kind.attach)(&file).expect("a heap");
                neighbour.lie_at(PLACE + BYTES);
                let mut random = SmallRng::seed_from_u64(number);
                let stop = AtomicBool::new(false);
                thread::scope(|scope| {
                    scope.spawn(|| {
                        let (mut random, tables) =
                            (SmallRng::seed_from_u64(!number), tables_of(&heap));
                        while !stop.load(Ordering::Relaxed) {
                            tables.spoil(&mut random, Part::Any);
                        }
                    });
                    let _stop = Stop(&stop);
                    let mut shadow = Shadow::new(&image, &heap, false);
                    for _ in 0..1_000 {
                        shadow.use_all(&mut random);
                        shadow.ask(&mut random);
                        shadow.live.truncate(50);
                    }
                });
                // SAFETY: nobody else is there.
                unsafe { heap.close() }.expect("not closed yet");
                neighbour.expect_whole();
            });
            assert_eq!(end_of(child), 0, "{}: {number}", kind.name);
        }
    }
}

/// The lock's word names somebody who does not have it: this process itself, one that never was, or nobody at all.
#[test]
fn a_lock_that_nobody_has() {
    let _turn = begin();
    of_each(|kind| {
        let heap = (kind.create)(BYTES).expect("a heap");
        let block = Box::new_in(7, heap.handle());
        let tables = tables_of(&heap);
        for holder in [tables.own_bits(), 2, 5 << 10 | 1, 1 << 10, u32::MAX] {
            tables.set_lock(holder);
            heap.verify().expect("a sound heap");
            heap.set_root("block", &raw const *block, 0).expect("room");
        }
        drop(block);
        assert_eq!(heap.stats().live, 0);
        // SAFETY: nobody else is there.
        unsafe { heap.close() }.expect("not closed yet");
    });
}
