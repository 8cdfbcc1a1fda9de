//! Geometry newtypes and constants: units, chunks, pages. Plain `usize` means bytes.
#![forbid(unsafe_code)]

use static_assertions::const_assert;

/// Bytes of a cache line, as far as layout and false sharing are concerned.
pub(crate) const LINE: usize = 64;
/// Bytes of a unit, the granule in which chunks are divided. No supported page is larger.
pub(crate) const UNIT: usize = 1 << UNIT_SHIFT;
/// log2 of [`UNIT`].
pub(crate) const UNIT_SHIFT: u32 = 16;
/// Bytes of a chunk, aligned to its own size.
pub(crate) const CHUNK: usize = 1 << CHUNK_SHIFT;
/// log2 of [`CHUNK`].
pub(crate) const CHUNK_SHIFT: u32 = 22;
/// Units of a chunk: one bit each in a `u64`, which `arena::chunk` relies on.
pub(crate) const UNITS_PER_CHUNK: usize = CHUNK / UNIT;

const_assert!(UNITS_PER_CHUNK == 64);

/// Bytes of the longest pages that the kernel has, aligned to their own size.
#[cfg(feature = "heaps")]
pub(crate) const GIGANTIC: usize = 1 << 30;

/// A number below `bound` that goes with the unit at `address`, spread evenly: what begins at equal places in
/// different units would collide in the caches' sets.
pub(crate) fn colour(address: usize, bound: u16) -> u16 {
    // A multiplicative hash of the unit's number (Knuth, TAOCP 6.4).
    part_of(
        ((address >> UNIT_SHIFT) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        bound,
    )
}

/// A number below `bound`, by the upper half of a random one.
pub(crate) fn part_of(random: u64, bound: u16) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "below `bound`")]
    {
        (((random >> 32) * u64::from(bound)) >> 32) as u16
    }
}

/// log2 of the bytes that a process can address.
pub(crate) const ADDRESS_BITS: u32 = 48;

/// A number of units, 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UnitCount(u8);

impl UnitCount {
    /// The least count that holds `bytes`, or `None` when no chunk does.
    pub(crate) const fn holding(bytes: usize) -> Option<Self> {
        let units = bytes.div_ceil(UNIT);
        match units {
            #[expect(clippy::cast_possible_truncation, reason = "the arm bounds it to 64")]
            1..=UNITS_PER_CHUNK => Some(Self(units as u8)),
            _ => None,
        }
    }

    /// A count known to be between 1 and 64.
    pub(crate) const fn new(units: u8) -> Self {
        assert!(units >= 1 && units as usize <= UNITS_PER_CHUNK);
        Self(units)
    }

    pub(crate) const fn get(self) -> u32 {
        self.0 as u32
    }

    pub(crate) const fn bytes(self) -> usize {
        self.0 as usize * UNIT
    }
}

/// The place of a unit in its chunk, 0 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnitIndex(u8);

impl UnitIndex {
    /// The unit of a chunk that holds `address`.
    pub(crate) const fn of(address: usize) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "below 64")]
        Self(((address >> UNIT_SHIFT) % UNITS_PER_CHUNK) as u8)
    }

    /// An index known to be below 64.
    pub(crate) const fn new(index: u32) -> Self {
        assert!((index as usize) < UNITS_PER_CHUNK);
        #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
        Self(index as u8)
    }

    /// Every unit of a chunk.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..64).map(Self::new)
    }

    pub(crate) const fn get(self) -> usize {
        self.0 as usize
    }

    /// Mask of `count` units from here on, in a chunk's word of units.
    pub(crate) const fn mask(self, count: UnitCount) -> u64 {
        (u64::MAX >> (64 - count.get())) << self.0
    }
}

/// A word in which the lowest `count` bits are set, or all.
pub(crate) const fn low_bits(count: usize) -> u64 {
    if count >= u64::BITS as usize {
        u64::MAX
    } else {
        (1 << count) - 1
    }
}

/// `value` rounded up to a multiple of `align`, a power of two; `None` past the end of memory.
pub(crate) const fn round_up(value: usize, align: usize) -> Option<usize> {
    match value.checked_add(align - 1) {
        Some(sum) => Some(sum & !(align - 1)),
        None => None,
    }
}

/// The runs of ones in `word`, lowest first, each as (first bit, length).
pub(crate) fn runs(mut word: u64) -> impl Iterator<Item = (u32, u32)> {
    core::iter::from_fn(move || {
        let first = word.trailing_zeros();
        if first == 64 {
            return None;
        }
        let length = (word >> first).trailing_ones();
        word &= !((u64::MAX >> (64 - length)) << first);
        Some((first, length))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_round_up_and_refuse_more_than_a_chunk() {
        assert_eq!(UnitCount::holding(0), None);
        assert_eq!(UnitCount::holding(1).map(UnitCount::get), Some(1));
        assert_eq!(UnitCount::holding(UNIT + 1).map(UnitCount::get), Some(2));
        assert_eq!(UnitCount::holding(CHUNK).map(UnitCount::get), Some(64));
        assert_eq!(UnitCount::holding(CHUNK + 1), None);
        assert_eq!(UnitIndex::new(3).mask(UnitCount::new(2)), 0b11000);
        assert_eq!(UnitIndex::new(0).mask(UnitCount::new(64)), u64::MAX);
        assert_eq!(UnitIndex::of(CHUNK * 7 + UNIT * 5 + 9).get(), 5);
    }

    #[test]
    fn runs_are_found_lowest_first() {
        let found: [Option<(u32, u32)>; 3] = {
            let mut all = runs(0b1110_0110);
            [all.next(), all.next(), all.next()]
        };
        assert_eq!(found, [Some((1, 2)), Some((5, 3)), None]);
        assert_eq!(runs(u64::MAX).next(), Some((0, 64)));
    }

    #[test]
    fn rounding_reports_overflow() {
        assert_eq!(round_up(1, 4096), Some(4096));
        assert_eq!(round_up(usize::MAX, 4096), None);
    }
}
