//! From a layout to what serves it: one pure function, the same for `alloc` and `dealloc`.
//!
//! Classes step by 8 bytes to 64, then by an eighth of the doubling to 8 KiB, then by a quarter to
//! 256 KiB, of which the last are for processes with safeguards. In each doubling the classes are *all* multiples of the step, so a size rounded up to its
//! alignment meets a class that is a multiple of that alignment: either the alignment divides the
//! step, or the rounded size is itself a class. Proved by exhaustion below.
#![forbid(unsafe_code)]

use static_assertions::const_assert;

use crate::units::{CHUNK, UNIT, UnitCount, round_up};

/// Largest size of a small class, see [`crate::size_map`].
pub(crate) const SMALL_MAX: usize = 1024;
/// Largest block of a slab without safeguards; what is longer has a span.
pub(crate) const BLOCK_MAX: usize = 64 << 10;
/// Largest block of any class: with safeguards, what is longer has a mapping between guards, which costs more.
pub(crate) const CLASS_MAX: usize = 256 << 10;
/// Largest span carved from a chunk; longer requests have a mapping of their own.
pub(crate) const SPAN_MAX: usize = 1 << 20;
/// Largest alignment that a slab gives: its units are aligned so.
pub(crate) const ALIGN_MAX: usize = UNIT;
/// What the size of every class is a multiple of.
pub(crate) const ALIGN_OF_ALL: usize = 8;
/// Largest alignment that a span gives: its chunk is aligned so.
const SPAN_ALIGN_MAX: usize = CHUNK;

const MIN: usize = 16;
/// From [`MIN`] to this, classes step by 8 bytes.
pub(crate) const LINEAR_MAX: usize = 64;
const LINEAR: usize = (LINEAR_MAX - MIN) / 8 + 1;
/// Classes per doubling up to [`FINE_MAX`], and above: powers of two, of which the first steps by 8
/// bytes or more.
pub(crate) const FINE: usize = 8;
const COARSE: usize = 4;
const_assert!(FINE.is_power_of_two() && COARSE.is_power_of_two() && LINEAR_MAX / FINE >= 8);
const FINE_MAX: usize = 8192;
const FINE_DOUBLINGS: usize = (FINE_MAX / LINEAR_MAX).ilog2() as usize;
const COARSE_DOUBLINGS: usize = (CLASS_MAX / FINE_MAX).ilog2() as usize;

/// Number of size classes.
pub(crate) const CLASSES: usize = LINEAR + FINE * FINE_DOUBLINGS + COARSE * COARSE_DOUBLINGS;

/// Number of classes of at most [`SMALL_MAX`] bytes.
pub(crate) const SMALL_CLASSES: usize = class_of(SMALL_MAX) + 1;

const_assert!(CLASSES <= 255);

/// A class of block sizes; the index of its row in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SizeClass(u8);

/// What serves a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A block of a slab.
    Block(SizeClass),
    /// A run of units inside a chunk.
    Span(UnitCount),
    /// A mapping of its own.
    Large,
}

/// The smallest class of blocks of at least `size` bytes; `size` at most [`CLASS_MAX`].
pub(crate) const fn class_of(size: usize) -> usize {
    if size <= MIN {
        return 0;
    }
    if size <= LINEAR_MAX {
        return size.div_ceil(8) - 2;
    }
    let last = size - 1;
    let doubling = last.ilog2() as usize;
    if size <= FINE_MAX {
        LINEAR + step_of::<LINEAR_MAX, FINE>(last, doubling)
    } else {
        LINEAR + FINE * FINE_DOUBLINGS + step_of::<FINE_MAX, COARSE>(last, doubling)
    }
}

/// How many steps `last` lies beyond `FROM`, where each doubling has `STEPS` of them.
const fn step_of<const FROM: usize, const STEPS: usize>(last: usize, doubling: usize) -> usize {
    let inside = last >> (doubling - STEPS.ilog2() as usize) & (STEPS - 1);
    (doubling - FROM.ilog2() as usize) * STEPS + inside
}

/// What serves `size` bytes aligned to `align`, a power of two.
#[inline(never)]
pub(crate) const fn classify(size: usize, align: usize) -> Request {
    classify_to(BLOCK_MAX, size, align)
}

/// The same where blocks are as long as `most` bytes, which a class is.
pub(crate) const fn classify_to(most: usize, size: usize, align: usize) -> Request {
    let Some(rounded) = round_up(size, align) else {
        return Request::Large;
    };
    if align > ALIGN_MAX {
        return aligned(size, align);
    }
    if rounded > SPAN_MAX {
        return Request::Large;
    }
    if rounded <= most {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "CLASSES fits a byte, asserted above"
        )]
        return Request::Block(SizeClass(class_of(rounded) as u8));
    }
    match UnitCount::holding(rounded) {
        Some(units) => Request::Span(units),
        None => Request::Large,
    }
}

/// Units of the span that [`classify`] chooses, if it does and the alignment is no more than a unit: sooner, for who
/// hopes so.
#[inline(always)]
pub(crate) const fn span_units(size: usize, align: usize) -> Option<UnitCount> {
    // OVERFLOW: what is no longer than a block wraps to more than any span.
    if size.wrapping_sub(BLOCK_MAX + 1) < SPAN_MAX - BLOCK_MAX && align <= UNIT {
        UnitCount::holding(size)
    } else {
        None
    }
}

/// The same, for an alignment of more than a unit: the span is as long as the size wants.
const fn aligned(size: usize, align: usize) -> Request {
    match UnitCount::holding(size) {
        Some(units) if align <= SPAN_ALIGN_MAX && size <= SPAN_MAX => Request::Span(units),
        _ => Request::Large,
    }
}

/// The fixed facts of one class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClassInfo {
    /// Bytes of a block.
    pub(crate) size: u32,
    /// Blocks of a slab.
    pub(crate) blocks: u16,
    /// Units of a slab.
    pub(crate) units: UnitCount,
    /// `2^RECIPROCAL_SHIFT / size`, rounded up: division by multiplication.
    reciprocal: u64,
    /// `2^EIGHTHS_SHIFT * 8 / blocks`, rounded down.
    eighths: u32,
}

const RECIPROCAL_SHIFT: u32 = 40;
const EIGHTHS_SHIFT: u32 = 16;

/// Bytes of a block of the class with this index.
pub(crate) const fn block_size(class: usize) -> usize {
    if class < LINEAR {
        return MIN + class * 8;
    }
    let fine = class - LINEAR;
    if fine < FINE * FINE_DOUBLINGS {
        let base = LINEAR_MAX << (fine / FINE);
        return base + base / FINE * (fine % FINE + 1);
    }
    let coarse = fine - FINE * FINE_DOUBLINGS;
    let base = FINE_MAX << (coarse / COARSE);
    base + base / COARSE * (coarse % COARSE + 1)
}

/// Fewest blocks of a slab: few enough that the slabs of big classes stay within a megabyte.
const fn least_blocks(size: usize) -> usize {
    if size <= 32 << 10 { 8 } else { 4 }
}

const fn info(class: usize) -> ClassInfo {
    let size = block_size(class);
    let mut units = 1;
    loop {
        let blocks = units * UNIT / size;
        // Waste under a sixteenth of the slab.
        if blocks >= least_blocks(size) && (units * UNIT - blocks * size) * 16 <= units * UNIT {
            #[expect(clippy::cast_possible_truncation, reason = "a test proves the bounds")]
            return ClassInfo {
                size: size as u32,
                blocks: blocks as u16,
                units: UnitCount::new(units as u8),
                reciprocal: (1 << RECIPROCAL_SHIFT) / size as u64 + 1,
                eighths: (8 << EIGHTHS_SHIFT) / blocks as u32,
            };
        }
        units += 1;
    }
}

static CLASS_INFO: [ClassInfo; CLASSES] = {
    let mut infos = [info(0); CLASSES];
    let mut class = 0;
    while class < CLASSES {
        infos[class] = info(class);
        class += 1;
    }
    infos
};

impl SizeClass {
    /// The class of the shortest blocks.
    pub(crate) const MIN: Self = Self(0);

    /// The class with this index, below [`CLASSES`].
    pub(crate) fn new(index: usize) -> Self {
        assert!(index < CLASSES);
        #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
        Self(index as u8)
    }

    /// The class with this index, which a table says.
    #[inline]
    pub(crate) fn of_table(index: usize) -> Self {
        debug_assert!(index < CLASSES);
        #[expect(clippy::cast_possible_truncation, reason = "CLASSES fits a byte")]
        Self(index as u8)
    }

    /// Every class, smallest first.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..CLASSES).map(Self::new)
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    pub(crate) fn info(self) -> &'static ClassInfo {
        &CLASS_INFO[self.index()]
    }

    /// Bytes of a block.
    pub(crate) fn size(self) -> usize {
        self.info().size as usize
    }
}

impl ClassInfo {
    /// How many eighths of a slab `free` blocks are, rounded down, by a hair too low at times; below
    /// 8 for less than all blocks.
    pub(crate) fn eighths(&self, free: usize) -> usize {
        (free * self.eighths as usize) >> EIGHTHS_SHIFT
    }

    /// The fewest free blocks that are so many eighths of a slab.
    pub(crate) fn reaches_eighths(&self, eighths: usize) -> usize {
        (eighths * self.blocks as usize).div_ceil(8)
    }

    /// The block that holds the byte at `offset` of its slab, and the offset inside that block.
    #[inline]
    pub(crate) fn locate(&self, offset: usize) -> (usize, usize) {
        // OVERFLOW: offsets are below 2^22 and reciprocals below 2^37.
        let block = ((offset as u64 * self.reciprocal) >> RECIPROCAL_SHIFT) as usize;
        (block, offset - block * self.size as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_class(size: usize, align: usize) -> SizeClass {
        match classify_to(CLASS_MAX, size, align) {
            Request::Block(class) => class,
            other => panic!("{size} aligned {align} is {other:?}"),
        }
    }

    #[test]
    fn every_size_and_alignment_fits_its_class() {
        for shift in 0..=12 {
            let align = 1 << shift;
            for size in 1..=CLASS_MAX - align {
                let class = block_class(size, align);
                let block = class.size();
                assert!(
                    block >= size && block.is_multiple_of(align),
                    "{size} aligned {align}: {block}"
                );
            }
        }
    }

    #[test]
    fn classes_are_minimal_and_round_trip() {
        for size in 1..=CLASS_MAX {
            let class = block_class(size, 1);
            assert!(class.index() == 0 || SizeClass::new(class.index() - 1).size() < size);
            assert_eq!(block_class(class.size(), 1), class);
        }
        assert_eq!(SizeClass::new(CLASSES - 1).size(), CLASS_MAX);
    }

    #[test]
    fn waste_of_a_block_is_bounded() {
        for size in 17..=CLASS_MAX {
            let waste = block_class(size, 1).size() - size;
            let bound = if size <= LINEAR_MAX {
                8
            } else {
                size / if size <= FINE_MAX { FINE } else { COARSE }
            };
            assert!(waste <= bound, "{size} wastes {waste}");
        }
    }

    #[test]
    fn big_alignments_and_sizes_leave_the_slabs() {
        assert_eq!(
            classify(16, ALIGN_MAX * 2),
            Request::Span(UnitCount::new(1))
        );
        assert_eq!(classify(SPAN_MAX, CHUNK), Request::Span(UnitCount::new(16)));
        assert_eq!(classify(SPAN_MAX + 1, CHUNK), Request::Large);
        assert_eq!(classify(16, CHUNK * 2), Request::Large);
        assert_eq!(classify(SPAN_MAX + 1, 1), Request::Large);
        assert_eq!(classify(usize::MAX, 1), Request::Large);
        assert_eq!(classify(usize::MAX, 4096), Request::Large);
        assert_eq!(classify(BLOCK_MAX + 1, 8), Request::Span(UnitCount::new(2)));
        assert_eq!(
            classify(BLOCK_MAX, 8),
            Request::Block(block_class(BLOCK_MAX, 8))
        );
        let longest = classify_to(CLASS_MAX, CLASS_MAX + 1, 8);
        assert_eq!(longest, Request::Span(UnitCount::new(5)));
    }

    #[test]
    fn every_offset_of_every_slab_is_located() {
        for class in SizeClass::all() {
            let info = class.info();
            let size = info.size as usize;
            for block in 0..info.blocks as usize {
                for inside in [0, 1, size / 2, size - 1] {
                    assert_eq!(info.locate(block * size + inside), (block, inside));
                }
            }
            for free in 1..info.blocks as usize {
                let exact = free * 8 / info.blocks as usize;
                assert!(info.eighths(free) <= exact && info.eighths(free) + 1 >= exact);
            }
            let waste = info.units.bytes() - info.blocks as usize * size;
            assert!(waste * 16 <= info.units.bytes() && info.blocks <= 64 * 64);
            assert!(waste == 0 || info.locate(info.units.bytes() - 1).0 >= info.blocks as usize);
        }
    }
}
