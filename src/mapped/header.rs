//! The first unit of a heap: what it is, its lock, its roots, and a line for each process.

use super::geometry::Geometry;
use super::names::{Names, Root};
use super::words::MOST_SLOTS;
use crate::os::files::mix;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::units::{CHUNK, UNIT};

/// "flagmap" and the version of all that lies in the mapping.
const MAGIC: u64 = u64::from_le_bytes(*b"flagmap\x02");

/// Processes that can have a heap at once: as many lines as the first unit has room for.
pub(super) const SLOTS: usize = 512;
static_assertions::const_assert!(SLOTS <= MOST_SLOTS);

/// Things that are found by name.
pub(super) const ROOTS: usize = 64;

/// What is written once, before anyone else can know the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Constants {
    /// Bytes of the heap.
    pub(super) bytes: u64,
    /// The address that it lies at in every process.
    pub(super) base: u64,
    /// A random number, which no other heap has.
    pub(super) id: u64,
    pub(super) kind: Kind,
    /// Bytes of a page where it was made: by those the file got its space.
    pub(super) page: u64,
}

/// What a heap lies in: see [`Mapped::kind`](super::Mapped::kind).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A file of memory.
    Object,
    /// A file without a name.
    Spill,
    /// A file that stays when all processes are gone.
    File,
    /// One that has what was committed: see [`Committed`](super::Committed).
    Committed,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Object, Self::Spill, Self::File, Self::Committed];

    /// Whether it lies in a file that has to have room for what is handed out: space is reserved first.
    pub(super) fn is_on_disk(self) -> bool {
        self != Self::Object
    }

    /// Whether it stays when nobody has it: who opens it sees how it was left.
    pub(super) fn is_found_by_path(self) -> bool {
        matches!(self, Self::File | Self::Committed)
    }
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

/// What lies in the first unit.
#[repr(C)]
pub(super) struct Header {
    magic: AtomicU64,
    bytes: AtomicU64,
    base: AtomicU64,
    id: AtomicU64,
    kind: AtomicU64,
    page: AtomicU64,
    checksum: AtomicU64,
    _rest: u64,
    /// Of a file: 0 if it was closed by all who used it, else the number of the boot in which they did. Written with the
    /// byte of openings locked, and on disk before anything else of that time is.
    pub(super) boot: Lone<AtomicU64>,
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
    /// Units up to this one have space for their tables. Written with the lock, once they have.
    pub(super) tabled: Lone<AtomicU64>,
    /// The identity of the file of which all that is marked as reserved has space: a copy has another.
    pub(super) home: Lone<AtomicU64>,
    /// One more than there can be: for another that takes a name over.
    roots: [Root; ROOTS + 1],
    pub(super) lines: [Line; SLOTS],
    /// Goes up with each change of `roots`.
    roots_version: Lone<AtomicU64>,
}

/// Alone in its line.
#[repr(C, align(64))]
pub(super) struct Lone<T>(pub(super) T);

static_assertions::const_assert!(size_of::<Header>() <= UNIT);

/// Words of the constants, their sum the last.
pub(super) const CONSTANTS: usize = 7;

impl Constants {
    /// As they stand in a header.
    pub(super) fn words(self) -> [u64; CONSTANTS] {
        let kind = self.kind as u64;
        let words = [MAGIC, self.bytes, self.base, self.id, kind, self.page];
        let [magic, bytes, base, id, kind, page] = words;
        [magic, bytes, base, id, kind, page, mix(&words)]
    }

    /// Where everything lies in the heap.
    pub(super) fn geometry(self) -> Option<Geometry> {
        Geometry::of(usize::try_from(self.bytes).ok()?)
    }

    /// Those that stand in a file of this length, if it has one, and is a heap of a machine with such pages.
    pub(super) fn from_words(
        words: [u64; CONSTANTS],
        length: Option<usize>,
        page_size: usize,
    ) -> Result<Self, Unfit> {
        let [magic, bytes, base, id, kind, page, sum] = words;
        if magic != MAGIC {
            return Err(match () {
                () if is_of_another_order(magic) => Unfit::ByteOrder,
                () if is_of_any_version(magic) => Unfit::Version,
                () => Unfit::NoHeap,
            });
        }
        if sum != mix(&words[..CONSTANTS - 1]) {
            return Err(Unfit::Damaged);
        }
        if page != page_size as u64 {
            return Err(Unfit::PageSize);
        }
        let has_place = usize::try_from(base).is_ok_and(|base| base != 0 && base % CHUNK == 0);
        let kind = usize::try_from(kind)
            .ok()
            .and_then(|kind| Kind::ALL.get(kind));
        match kind {
            Some(kind) if has_place => {
                // Behind one that commits stands its log.
                let fits = |length: usize| match kind {
                    Kind::Committed => bytes < length as u64,
                    _ => bytes == length as u64,
                };
                if !length.is_none_or(fits) {
                    return Err(Unfit::Length);
                }
                Ok(Self {
                    bytes,
                    base,
                    id,
                    kind: *kind,
                    page,
                })
            }
            _ => Err(Unfit::Damaged),
        }
    }
}

/// Whether a first word is that of a heap of any version, by a machine with any order of bytes.
pub(super) fn is_of_any_version(magic: u64) -> bool {
    magic << 8 == MAGIC << 8 || is_of_another_order(magic)
}

/// Whether it is that of a heap by a machine with the other order of bytes.
fn is_of_another_order(magic: u64) -> bool {
    magic.swap_bytes() << 8 == MAGIC << 8
}

impl Header {
    pub(super) fn names(&self) -> Names<'_> {
        Names {
            roots: &self.roots,
            version: &self.roots_version.0,
        }
    }

    /// By the creator, before anyone else can know it.
    pub(super) fn begin(&self, constants: Constants) {
        let places = [
            &self.magic,
            &self.bytes,
            &self.base,
            &self.id,
            &self.kind,
            &self.page,
            &self.checksum,
        ];
        for (place, word) in places.into_iter().zip(constants.words()) {
            // ORDERING: the descriptor, or the name, travels to who reads them.
            place.store(word, Ordering::Relaxed);
        }
    }
}

/// Why something is no heap that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    NoHeap,
    Version,
    ByteOrder,
    PageSize,
    Length,
    Damaged,
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 1 << 30;
    const PAGE: usize = 4096;

    fn read(words: [u64; CONSTANTS], length: usize) -> Result<Constants, Unfit> {
        Constants::from_words(words, Some(length), PAGE)
    }

    fn words(base: u64) -> [u64; CONSTANTS] {
        let constants = Constants {
            bytes: BYTES as u64,
            base,
            id: 7,
            kind: Kind::File,
            page: PAGE as u64,
        };
        constants.words()
    }

    /// Whatever stands in the constants, with a sum that fits.
    #[test]
    fn constants_that_make_no_sense_are_damaged() {
        assert_eq!(read([0; CONSTANTS], BYTES), Err(Unfit::NoHeap));
        let good = words(0x1000_0000_0000);
        let found = read(good, BYTES).expect("a heap");
        assert_eq!(found.words(), good);
        assert_eq!(read(good, BYTES * 2), Err(Unfit::Length));
        for base in [0, 1, UNIT as u64, (CHUNK - 1) as u64, u64::MAX] {
            let found = read(words(base), BYTES);
            assert_eq!(found, Err(Unfit::Damaged), "{base:#x}");
        }
        let mut other = good;
        other[0] = MAGIC ^ (3 << 56);
        assert_eq!(read(other, BYTES), Err(Unfit::Version));
        let mut other = good;
        other[0] = MAGIC.swap_bytes();
        assert_eq!(read(other, BYTES), Err(Unfit::ByteOrder));
        let found = Constants::from_words(good, Some(BYTES), 4 * PAGE);
        assert_eq!(found, Err(Unfit::PageSize));
        for place in 1..CONSTANTS {
            let mut other = good;
            other[place] ^= 1;
            assert_eq!(read(other, BYTES), Err(Unfit::Damaged));
        }
        let mut other = good;
        other[4] = 4;
        other[6] = mix(&other[..6]);
        assert_eq!(read(other, BYTES), Err(Unfit::Damaged));
    }
}
