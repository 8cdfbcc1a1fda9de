//! The first unit of a heap: what it is, its lock, its roots, and a line for each process.

use super::geometry::Geometry;
use super::words::MOST_SLOTS;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::units::{CHUNK, UNIT};

/// "flagmap" and the version of all that lies in the mapping.
const MAGIC: u64 = u64::from_le_bytes(*b"flagmap\x01");

/// Processes that can have a heap at once: as many lines as the first unit has room for.
pub(super) const SLOTS: usize = 512;
static_assertions::const_assert!(SLOTS <= MOST_SLOTS);

/// Things that are found by name.
pub(super) const ROOTS: usize = 64;
/// Bytes of a root's name, at most.
pub(super) const NAME: usize = 48;

/// What is written once, before anyone else can know the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Constants {
    /// Bytes of the heap.
    pub(super) bytes: u64,
    /// The address that it lies at in every process.
    pub(super) base: u64,
    /// A random number, which no other heap has.
    pub(super) id: u64,
}

/// A process's line.
#[repr(C, align(64))]
pub(super) struct Line {
    /// Goes up when the slot changes hands. Written by who has locked its byte.
    pub(super) generation: AtomicU32,
    /// 1 from when a process has it until it gives it up, or is reaped.
    pub(super) is_used: AtomicU32,
    /// The number of the process, for people.
    pub(super) process: AtomicU32,
}

/// A thing with a name. Written with the heap's lock, `place` last.
#[repr(C, align(64))]
pub(super) struct Root {
    /// Bytes from the base; 0 is none.
    pub(super) place: AtomicU64,
    /// What the program says it is.
    pub(super) kind: AtomicU64,
    pub(super) name: [AtomicU64; NAME / 8],
}

/// What lies in the first unit.
#[repr(C)]
pub(super) struct Header {
    magic: AtomicU64,
    bytes: AtomicU64,
    base: AtomicU64,
    id: AtomicU64,
    checksum: AtomicU64,
    _rest: [u64; 3],
    /// Bits of the process that has the lock, and below [`super::lock`] more; 0 is free.
    pub(super) lock: Lone<AtomicU32>,
    /// 1 if somebody may sleep until the lock is let go.
    pub(super) sleepers: Lone<AtomicU32>,
    /// How often a process was reaped, and how often of these the bitmap of free units was made anew since: by who takes
    /// the lock. A process that is gone may have been claiming or freeing units.
    pub(super) reaped: Lone<AtomicU32>,
    pub(super) mended: Lone<AtomicU32>,
    /// The first word of the bitmap of free units that may have a bit. Written with the lock.
    pub(super) first_free: Lone<AtomicU64>,
    /// Units from this one on were never anybody's. Written with the lock, before the word of one is.
    pub(super) high: Lone<AtomicU64>,
    /// Free units that were somebody's since they were last purged, about so many, and the word of the bitmap of free
    /// units at which the next slice of a purge begins. Written with the lock.
    pub(super) dirty: Lone<AtomicU64>,
    pub(super) purged: Lone<AtomicU64>,
    /// One more than there can be: for another that takes a name over.
    pub(super) roots: [Root; ROOTS + 1],
    pub(super) lines: [Line; SLOTS],
}

/// Alone in its line.
#[repr(C, align(64))]
pub(super) struct Lone<T>(pub(super) T);

static_assertions::const_assert!(size_of::<Header>() <= UNIT);

impl Constants {
    fn words(self) -> [u64; 4] {
        [MAGIC, self.bytes, self.base, self.id]
    }

    /// The sum of the words before it (FNV-1a by words).
    fn checksum(self) -> u64 {
        self.words()
            .into_iter()
            .fold(0xcbf2_9ce4_8422_2325, |sum, word| {
                (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3)
            })
    }
}

impl Header {
    /// By the creator, before anyone else can know it.
    pub(super) fn begin(&self, constants: Constants) {
        let places = [&self.magic, &self.bytes, &self.base, &self.id];
        for (place, word) in places.into_iter().zip(constants.words()) {
            // ORDERING: the descriptor travels to who reads them.
            place.store(word, Ordering::Relaxed);
        }
        self.checksum.store(constants.checksum(), Ordering::Relaxed);
    }

    /// The constants of a heap of `bytes`, if this is one. Each is read once.
    pub(super) fn constants(&self, bytes: usize) -> Result<Constants, Unfit> {
        // ORDERING: constants.
        let read = |place: &AtomicU64| place.load(Ordering::Relaxed);
        let magic = read(&self.magic);
        let (found, sum) = (
            Constants {
                bytes: read(&self.bytes),
                base: read(&self.base),
                id: read(&self.id),
            },
            read(&self.checksum),
        );
        if magic != MAGIC {
            let is_other = magic << 8 == MAGIC << 8 || magic.swap_bytes() << 8 == MAGIC << 8;
            return Err(if is_other {
                Unfit::Version
            } else {
                Unfit::NoHeap
            });
        }
        let is_whole = sum == found.checksum() && found.bytes == bytes as u64;
        let has_place =
            usize::try_from(found.base).is_ok_and(|base| base != 0 && base % CHUNK == 0);
        if is_whole && has_place && Geometry::of(bytes).is_some() {
            Ok(found)
        } else {
            Err(Unfit::Damaged)
        }
    }
}

/// Why something is no heap that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    NoHeap,
    Version,
    Damaged,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;

    /// Whatever stands in the constants, with a sum that fits.
    #[test]
    fn constants_that_make_no_sense_are_damaged() {
        // SAFETY: 1. all of it is atomic; all zero is such a header.
        let header = unsafe { Box::<Header>::new_zeroed().assume_init() };
        let bytes = 1 << 30;
        let with = |base: u64| {
            let bytes = bytes as u64;
            header.begin(Constants { bytes, base, id: 7 });
        };
        assert_eq!(header.constants(bytes), Err(Unfit::NoHeap));
        with(0x1000_0000_0000);
        assert!(header.constants(bytes).is_ok());
        assert_eq!(header.constants(bytes * 2), Err(Unfit::Damaged));
        for base in [0, 1, UNIT as u64, (CHUNK - 1) as u64, u64::MAX] {
            with(base);
            assert_eq!(header.constants(bytes), Err(Unfit::Damaged), "{base:#x}");
        }
    }
}
