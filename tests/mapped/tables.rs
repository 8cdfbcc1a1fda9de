//! The tables of a heap as they lie in its mapping, and changes to them that no heap makes.

use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use flagstone::{Handle, Mapped};
use rand::RngExt;
use rand::rngs::SmallRng;

/// Bytes of the heaps whose tables are changed: a bitmap has two words, of which the second has bits beyond the heap.
pub(crate) const BYTES: usize = 80 * UNIT;
pub(crate) const UNIT: usize = 1 << 16;
const UNITS: usize = BYTES / UNIT;

/// The places of words, as `src/mapped/geometry.rs` and `header.rs` have them; `expect_places` tells when they moved.
const BASE: usize = 2;
const CHECKSUM: usize = 6;
const BOOT: usize = 8;
const LOCK: usize = 16;
const REAPED: usize = 32;
const FIRST_FREE: usize = 48;
const HIGH: usize = 56;
const TABLED: usize = 80;
const ROOTS: usize = 96;
const LINES: usize = ROOTS + 65 * 8;
const LINES_END: usize = LINES + 512 * 8;
const WORDS: usize = UNIT / 8;
const SLABS: usize = WORDS + UNITS;
const SLAB: usize = 1_088 / 8;
const FREE: usize = SLABS + UNITS * SLAB;
const RESERVED: usize = FREE + 8;
const HINTS: usize = RESERVED + 8;
/// Hints and what sums them up, of 71 classes.
const HINTS_END: usize = HINTS + 71 * 16;

/// The words of a heap's tables, in an image or in the mapping itself.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'a>(pub(crate) &'a [AtomicU64]);

pub(crate) fn base_of(heap: &Mapped) -> usize {
    start_of(heap).addr().get()
}

/// The first byte of the heap.
pub(crate) fn start_of(heap: &Mapped) -> NonNull<u8> {
    // SAFETY: a handle is the address of its heap.
    unsafe { core::mem::transmute::<Handle, NonNull<u8>>(heap.handle()) }
}

pub(crate) fn tables_of(heap: &Mapped) -> Tables<'_> {
    let (first, words) = (start_of(heap).cast::<AtomicU64>(), heap.stats().tables / 8);
    // SAFETY: mapped, and changed as atomics alone.
    Tables(unsafe { core::slice::from_raw_parts(first.as_ptr(), words) })
}

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// What can be made from the rest, or only leads to it: no change of these may cost a block.
    Derived,
    /// All but constants.
    Any,
}

/// A word instead of another.
fn word(random: &mut SmallRng, old: u64) -> u64 {
    match random.random_range(0..9) {
        0..3 => old ^ (1 << random.random_range(0..64)),
        3 => random.random(),
        4 => [0, u64::MAX, u64::MAX >> 32][random.random_range(0..3)],
        5 => random.random_range(0..2 * UNITS as u64),
        6 => old.wrapping_add(1),
        7 => old.wrapping_sub(1),
        _ => u64::MAX << random.random_range(0..64),
    }
}

/// The word of a unit, of any kind and owner: that of a process that is about to attach the heap, often.
fn unit_word(random: &mut SmallRng) -> u64 {
    let owner = match random.random_range(0..3) {
        0 => 0,
        1 => random.random_range(0..u64::MAX >> 12),
        _ => {
            let (slot, part) = (random.random_range(1..4_u64), random.random_range(0..3_u64));
            slot | (random.random_range(0..4) << 10) | (part << 32)
        }
    };
    let class = random.random_range(0..76_u64);
    match random.random_range(0..6) {
        0 => 0,
        1 | 2 => 1 | (class << 4) | (owner << 12),
        3 => 2,
        4 => 3 | (random.random_range(0..UNITS as u64) << 12),
        _ => 4 | (owner << 12),
    }
}

impl Tables<'_> {
    fn get(self, place: usize) -> u64 {
        self.0[place].load(Ordering::Relaxed)
    }

    fn change(self, place: usize, change: impl FnOnce(u64) -> u64) {
        self.0[place].store(change(self.get(place)), Ordering::Relaxed);
    }

    /// Fails if the places above are no more those of the library: `tables` bytes, a heap that this process has, a root
    /// of this name, some units in use.
    pub(crate) fn expect_places(self, tables: usize, root: &str) {
        let first = tables / UNIT;
        assert_eq!(first, (HINTS_END * 8).div_ceil(UNIT));
        assert_eq!(self.get(1), BYTES as u64);
        assert_eq!(self.get(CHECKSUM), self.checksum());
        assert!((first as u64..=UNITS as u64).contains(&self.get(HIGH)));
        let (used, number) = (self.get(LINES) >> 32, self.get(LINES + 1));
        assert_eq!((used, number), (1, std::process::id().into()));
        let name = self.get(ROOTS + 2).to_le_bytes();
        assert_eq!(&name[..root.len()], root.as_bytes());
        let kinds = |from: usize, step: usize| (from..UNITS).step_by(step).map(|unit| WORDS + unit);
        assert!(kinds(first, 1).all(|place| self.get(place) & 15 < 5));
        assert_eq!(self.get(WORDS + first) & 15, 1);
        let free = (0..UNITS).filter(|unit| self.get(FREE + unit / 64) >> (unit % 64) & 1 != 0);
        assert!(free.into_iter().all(|unit| self.get(WORDS + unit) == 0));
        assert_eq!(self.get(FREE + 1) >> (UNITS % 64), 0);
        assert_eq!(self.get(LOCK), 0);
        let tabled = self.get(TABLED);
        assert!((first as u64..=UNITS as u64).contains(&tabled));
    }

    fn checksum(self) -> u64 {
        (0..CHECKSUM).fold(0xcbf2_9ce4_8422_2325, |sum, place| {
            (sum ^ self.get(place)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    /// It is one that nobody has, and that was closed.
    pub(crate) fn set_closed(self) {
        self.change(BOOT, |_| 0);
    }

    /// It is one that lies at this address.
    pub(crate) fn set_base(self, base: usize) {
        self.change(BASE, |_| base as u64);
        let sum = self.checksum();
        self.change(CHECKSUM, |_| sum);
    }

    /// An address that no heap would have chosen, none of these, with a sum that fits.
    pub(crate) fn change_base(self, random: &mut SmallRng, but: Range<usize>) {
        let old = self.get(BASE);
        loop {
            let base = match random.random_range(0..3) {
                0 => word(random, old),
                1 => word(random, old) & !0xff_ffff,
                _ => random.random_range(0..1_u64 << 23) << 24,
            };
            let base = usize::try_from(base).expect("64 bits");
            if !but.contains(&base) {
                return self.set_base(base);
            }
        }
    }

    /// Changes a word, or a range of them.
    pub(crate) fn spoil(self, random: &mut SmallRng, part: Part) {
        let most = if part == Part::Derived { 8 } else { 14 };
        let one = |random: &mut SmallRng, from: usize, to: usize| {
            let place = random.random_range(from..to);
            self.change(place, |old| word(random, old));
        };
        match random.random_range(0..most) {
            0 => {
                let table = [FREE, RESERVED][random.random_range(0..2)];
                one(random, table, table + 2);
            }
            1 => one(random, HINTS, HINTS_END),
            2 => self.fill(random, HINTS, HINTS_END),
            3 => one(random, HIGH, HIGH + 1),
            4 => {
                let place = random.random_range(FIRST_FREE / 8..=TABLED / 8) * 8;
                one(random, place, place + 1);
            }
            5 => {
                let place = random.random_range(REAPED / 8..FIRST_FREE / 8) * 8;
                one(random, place, place + 1);
            }
            // The first few processes are those that there were.
            6 => one(random, LINES, LINES + 32),
            7 => self.fill(random, LINES, LINES_END),
            8 => one(random, ROOTS, LINES),
            9 | 10 => {
                let place = WORDS + random.random_range(0..UNITS);
                self.change(place, |_| unit_word(random));
            }
            11 => one(random, WORDS, SLABS),
            12 => {
                let place = SLABS + random.random_range(0..UNITS) * SLAB;
                // The length of a run, or bits of blocks.
                let length = random.random_range(0..2) == 0;
                let place = if length {
                    place
                } else {
                    place + random.random_range(8..SLAB)
                };
                self.change(place, |old| word(random, old));
            }
            _ => self.fill(random, WORDS, HINTS_END),
        }
    }

    /// One word at all places of a range.
    fn fill(self, random: &mut SmallRng, from: usize, to: usize) {
        let first = random.random_range(from..to);
        let count = 1_usize << random.random_range(0..10);
        let with = word(random, self.get(first));
        for place in first..to.min(first + count) {
            self.change(place, |_| with);
        }
    }

    /// The bits of this process, as the lock's word has them while it holds the lock.
    pub(crate) fn own_bits(self) -> u32 {
        let own = u64::from(std::process::id());
        let is_own = |line: &usize| self.get(*line) >> 32 == 1 && self.get(line + 1) == own;
        let line = (LINES..LINES_END)
            .step_by(8)
            .find(is_own)
            .expect("a process of the heap");
        let (slot, generation) = ((line - LINES) / 8 + 1, self.get(line) << 32 >> 32);
        u32::try_from(slot as u64 | (generation << 10)).expect("32 bits")
    }

    /// The lock is this one's.
    pub(crate) fn set_lock(self, holder: u32) {
        self.change(LOCK, |_| holder.into());
    }

    /// The lock is somebody's, who never was, or is gone.
    pub(crate) fn spoil_lock(self, random: &mut SmallRng) {
        self.change(LOCK, |_| random.random_range(1..5 << 10));
    }
}
