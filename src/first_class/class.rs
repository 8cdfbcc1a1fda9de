//! The classes of a heap: those of the engine to 64 bytes, and every second one above. A small heap has a sub-slab for
//! each class that it uses, so that few classes save more than short blocks do.
#![forbid(unsafe_code)]

use crate::arena;
use crate::size_class::{LINEAR_MAX, SMALL_MAX, block_size, class_of};
use crate::size_map::{MEDIUM_STEP, last_byte};

/// Longest block that comes from a sub-slab; what is longer is a block of the engine.
const LONGEST: usize = 8 << 10;

/// Classes of the engine that blocks of sub-slabs have.
const OF_ENGINE: usize = class_of(LONGEST) + 1;
/// To here every one of them is a class.
const LINEAR: usize = class_of(LINEAR_MAX) + 1;
/// Classes of a heap.
pub(super) const CLASSES: usize = LINEAR + (OF_ENGINE - LINEAR) / 2;

/// Fewest blocks of a sub-slab.
const LEAST: usize = 4;
/// Most: as many as its bitmap has bits.
pub(super) const MOST: usize = 256;
/// Bytes of the longest sub-slab and of the shortest.
const MOST_BYTES: usize = 32 << 10;
const LEAST_BYTES: usize = arena::GRANULE;
/// A sub-slab is at least as long as one of so many parts of what the heap holds, so that there are not many in a heap
/// that is large.
const PARTS: usize = 16;

/// A class of blocks, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class(u8);

/// What is known of a class.
#[derive(Clone, Copy)]
struct Info {
    size: u32,
    /// `2^32 / size`, rounded up.
    reciprocal: u32,
    /// Bytes of its shortest and longest sub-slab.
    least: u32,
    most: u32,
}

/// The class of a heap that serves one of the engine; of what is longer, none.
const fn of_engine(class: usize) -> usize {
    if class < LINEAR {
        class
    } else {
        LINEAR + (class - LINEAR) / 2
    }
}

/// The class of a heap for blocks of `size` bytes, at least 1 and at most [`LONGEST`].
#[expect(clippy::cast_possible_truncation, reason = "`CLASSES` fits a byte")]
const fn of_size(size: usize) -> u8 {
    of_engine(class_of(size)) as u8
}

/// Tables of classes. As a `const` each crate that inlines the fast path has one of its own, which a constant size folds
/// away.
struct Table;

impl Table {
    /// By size less one.
    const SMALL: [u8; SMALL_MAX] = {
        let mut table = [0; SMALL_MAX];
        let mut last = 0;
        while last < SMALL_MAX {
            table[last] = of_size(last + 1);
            last += 1;
        }
        table
    };

    /// Bytes of a block, by class.
    const SIZES: [u16; CLASSES] = {
        let mut table = [0; CLASSES];
        let mut class = 0;
        while class < CLASSES {
            #[expect(clippy::cast_possible_truncation, reason = "at most `LONGEST`")]
            let size = INFO[class].size as u16;
            table[class] = size;
            class += 1;
        }
        table
    };

    /// By size less one in steps.
    const MEDIUM: [u8; LONGEST / MEDIUM_STEP] = {
        let mut table = [0; LONGEST / MEDIUM_STEP];
        let mut step = 0;
        while step < LONGEST / MEDIUM_STEP {
            table[step] = of_size((step + 1) * MEDIUM_STEP);
            step += 1;
        }
        table
    };
}

#[expect(clippy::cast_possible_truncation, reason = "at most 32 KiB")]
const INFO: [Info; CLASSES] = {
    let mut table = [Info {
        size: 0,
        reciprocal: 0,
        least: 0,
        most: 0,
    }; CLASSES];
    let mut class = 0;
    while class < OF_ENGINE {
        // The longer of two is written last.
        let size = block_size(class);
        let least = (LEAST * size).next_power_of_two();
        let most = 1 << (MOST * size).ilog2();
        table[of_engine(class)] = Info {
            size: size as u32,
            reciprocal: ((1_u64 << 32) / size as u64 + 1) as u32,
            least: if least < LEAST_BYTES {
                LEAST_BYTES
            } else {
                least
            } as u32,
            most: if most > MOST_BYTES { MOST_BYTES } else { most } as u32,
        };
        class += 1;
    }
    table
};

impl Class {
    /// What serves a layout, if a sub-slab does.
    #[inline(always)]
    pub(super) fn of(size: usize, align: usize) -> Option<Self> {
        // Of no bytes it is a large number, which no class serves.
        let last = last_byte(size, align);
        if last < SMALL_MAX {
            return Some(Self(Table::SMALL[last]));
        }
        (last < LONGEST).then(|| Self(Table::MEDIUM[last / MEDIUM_STEP]))
    }

    /// That with this index.
    pub(super) fn new(index: u8) -> Self {
        assert!(usize::from(index) < CLASSES);
        Self(index)
    }

    pub(super) fn all() -> impl Iterator<Item = Self> {
        #[expect(clippy::cast_possible_truncation, reason = "`CLASSES` fits a byte")]
        (0..CLASSES as u8).map(Self)
    }

    /// Below [`CLASSES`].
    #[inline(always)]
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    pub(super) fn number(self) -> u8 {
        self.0
    }

    #[inline(always)]
    pub(super) fn size(self) -> usize {
        usize::from(Table::SIZES[self.index()])
    }

    pub(super) fn reciprocal(self) -> u32 {
        INFO[self.index()].reciprocal
    }

    /// Bytes of the shortest sub-slab.
    pub(super) fn least(self) -> usize {
        INFO[self.index()].least as usize
    }

    /// Bytes of the sub-slab that is to be the `nth`, from 0, of its part, in a heap that holds so much. Each is twice as
    /// long as the one before: what is not used is at most about as much as what is.
    pub(super) fn sub_slab(self, nth: usize, held: usize) -> usize {
        let Info { least, most, .. } = INFO[self.index()];
        let share = 1 << (held / PARTS).max(1).ilog2();
        // OVERFLOW: from at most 32 KiB by at most 4.
        let doubled = (least as usize) << nth.min(4);
        doubled.max(share).min(most as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_serves_what_it_is_said_to() {
        for shift in 0..=13 {
            let align = 1_usize << shift;
            for size in 1..=LONGEST {
                let rounded = size.next_multiple_of(align);
                let Some(class) = Class::of(size, align) else {
                    assert!(rounded > LONGEST, "{size} aligned {align}");
                    continue;
                };
                assert!(class.size() >= size && class.size().is_multiple_of(align));
                assert!(rounded <= 64 || class.size() * 4 <= rounded * 5, "{size}");
                // Whatever layout fits a block leads to its class.
                assert_eq!(Class::of(class.size(), align), Some(class));
            }
            assert_eq!(Class::of(LONGEST + 1, align), None);
        }
    }

    #[test]
    fn sub_slabs_have_as_many_blocks_as_bits() {
        for class in Class::all() {
            assert_eq!(Class::of(class.size(), 1), Some(class));
            for (nth, held) in [(0, 4096), (1, 4096), (9, 4096), (0, 1 << 40)] {
                let bytes = class.sub_slab(nth, held);
                let blocks = bytes / class.size();
                assert!(bytes.is_power_of_two());
                assert!((LEAST_BYTES..=MOST_BYTES).contains(&bytes));
                assert!((LEAST..=MOST).contains(&blocks), "{bytes} {}", class.size());
                for distance in 0..bytes {
                    let block = (distance as u64 * u64::from(class.reciprocal())) >> 32;
                    assert_eq!(block as usize, distance / class.size());
                }
            }
        }
    }
}
