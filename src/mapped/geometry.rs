//! Where everything lies in the mapping, by its length alone.
#![forbid(unsafe_code)]

use core::ops::Range;

use super::slab::Slab;
use crate::size_class::{SizeClass, class_of};
use crate::size_map::MEDIUM_MAX;
use crate::units::{LINE, UNIT};

/// Classes of slabs: all of the engine's that a unit holds two blocks of.
pub(super) const CLASSES: usize = class_of(MEDIUM_MAX) + 1;

/// Blocks of a slab of a class.
pub(super) fn blocks_of(class: SizeClass) -> usize {
    UNIT / class.size()
}

/// Bits of a word of a bitmap.
pub(super) const BITS: usize = u64::BITS as usize;

/// Units of the longest heap: numbers of units are 32 bits.
const MOST_UNITS: usize = u32::MAX as usize;

/// The places of tables, in bytes from the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Units, tables included.
    pub(super) units: u32,
    /// The first that is no table's.
    pub(super) first: u32,
    pub(super) words: usize,
    pub(super) slabs: usize,
    pub(super) free: usize,
    /// A bit for each unit, as in `free`.
    pub(super) reserved: usize,
    pub(super) hints: usize,
    /// Bytes of the hints of one class: a bit for each unit, and one for each word of these.
    pub(super) hints_of_class: usize,
    /// Where the bits for words begin in these.
    pub(super) summary: usize,
}

impl Geometry {
    /// That of a heap of so many bytes, whole units; `None` if there is no room for a block, or it is too long.
    pub(super) fn of(bytes: usize) -> Option<Self> {
        let units = bytes / UNIT;
        if units > MOST_UNITS || !bytes.is_multiple_of(UNIT) {
            return None;
        }
        let lines = |bytes: usize| bytes.next_multiple_of(LINE);
        let words_of_bits = units.div_ceil(BITS);
        let words = UNIT;
        let slabs = lines(words + units * size_of::<u64>());
        let free = slabs + units * size_of::<Slab>();
        let bits = lines(words_of_bits * size_of::<u64>());
        let reserved = lines(free + bits);
        let (hints, summary) = (reserved + bits, bits);
        let hints_of_class = summary + lines(words_of_bits.div_ceil(BITS) * size_of::<u64>());
        let first = (hints + CLASSES * hints_of_class).div_ceil(UNIT);
        if first >= units {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most `MOST_UNITS`")]
        Some(Self {
            units: units as u32,
            first: first as u32,
            words,
            slabs,
            free,
            reserved,
            hints,
            hints_of_class,
            summary,
        })
    }

    /// Where the tables have what they say of units from one to another, but for the bitmaps of all units: from a byte to
    /// another.
    pub(super) fn tables_of(self, units: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let Range { start, end } = units;
        let of = move |table: usize, bytes: usize| table + start * bytes..table + end * bytes;
        let word = size_of::<u64>();
        let bits = move |table: usize, units: usize| {
            let to = end.div_ceil(units * BITS) * word;
            table + start / (units * BITS) * word..table + to
        };
        let hints = (0..CLASSES).map(move |class| self.hints + class * self.hints_of_class);
        let hints = hints.flat_map(move |table| [bits(table, 1), bits(table + self.summary, BITS)]);
        [of(self.words, word), of(self.slabs, size_of::<Slab>())]
            .into_iter()
            .chain(hints)
    }

    /// Where the bitmaps of all units are: from a byte to another.
    pub(super) fn bitmaps(self) -> Range<usize> {
        self.free..self.hints
    }

    pub(super) fn bytes(self) -> usize {
        self.units as usize * UNIT
    }

    /// Words of a bitmap with a bit for each unit.
    pub(super) fn words_of_bits(self) -> usize {
        (self.units as usize).div_ceil(BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_follow_each_other_and_fit() {
        assert_eq!(Geometry::of(0), None);
        assert_eq!(Geometry::of(UNIT), None);
        assert_eq!(Geometry::of((1 << 30) + 1), None);
        assert_eq!(Geometry::of(1 << 60), None);
        for shift in 18..=44 {
            let geometry = Geometry::of(1 << shift).expect("room");
            let Geometry {
                words,
                slabs,
                free,
                reserved,
                hints,
                hints_of_class,
                summary,
                ..
            } = geometry;
            let units = geometry.units as usize;
            assert_eq!(geometry.bytes(), 1 << shift);
            assert!(words + units * 8 <= slabs && slabs.is_multiple_of(LINE));
            assert!(slabs + units * size_of::<Slab>() <= free);
            assert!(free + units.div_ceil(8) <= reserved);
            assert!(reserved + units.div_ceil(8) <= hints);
            assert!(summary >= units.div_ceil(8) && hints_of_class > summary);
            assert!(hints + CLASSES * hints_of_class <= geometry.first as usize * UNIT);
            // Tables take less than a fortieth, but for a unit or so.
            assert!((geometry.first as usize) <= 2 + units / 40, "{geometry:?}");
        }
    }

    /// What is said of all units fills the tables, and no byte of it is said to lie elsewhere.
    #[test]
    fn tables_of_units_cover_the_tables() {
        let geometry = Geometry::of(5 << 30).expect("room");
        let units = geometry.units as usize;
        let end = geometry.first as usize * UNIT;
        let all = geometry.tables_of(0..units);
        let covered: usize = all.map(|range| range.len()).sum();
        let bitmaps = geometry.bitmaps().len();
        assert!(covered + bitmaps + UNIT <= end && covered + bitmaps + 3 * UNIT > end);
        for unit in [0, 63, 64, units / 2, units - 1] {
            for range in geometry.tables_of(unit..unit + 1) {
                assert!(range.start >= UNIT && range.end <= end && !range.is_empty());
            }
        }
    }
}
