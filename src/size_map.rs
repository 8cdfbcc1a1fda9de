//! From a size to its class, and to the place of the class's magazine in a thread cache: the tables of the
//! fast paths.
//!
//! Magazines of small classes stand together behind one that has no room for any block,
//! [`MagazineOffset::NONE`]; those of the others [`FAR`] bytes on.
#![forbid(unsafe_code)]

use static_assertions::const_assert;

use crate::size_class::{CLASSES, FINE, SMALL_CLASSES, SMALL_MAX, SizeClass, block_size, class_of};

/// Bytes of a magazine's header.
pub(crate) const HEADER: usize = 24;
/// Where the magazines of the classes that are not small begin.
pub(crate) const FAR: usize = 8192;

/// Largest size that is reached without the gate: see `thread_cache::is_gated`.
pub(crate) const MEDIUM_MAX: usize = 32 << 10;
/// Every class of more than [`SMALL_MAX`] is a multiple of this.
pub(crate) const MEDIUM_STEP: usize = SMALL_MAX / FINE;

const_assert!(FAR + (CLASSES - SMALL_CLASSES) * HEADER <= u16::MAX as usize);

/// How many bytes into a thread cache a magazine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct MagazineOffset(usize);

impl MagazineOffset {
    /// That of the magazine without room, which is none of a class: what is no block leads there.
    pub(crate) const NONE: Self = Self(0);

    /// That of a class.
    pub(crate) const fn of(class: SizeClass) -> Self {
        Self(offset_of(class.index()) as usize)
    }

    /// That of a class if its magazine is reached without the gate, or that of none: what is noted for the
    /// addresses of a slab.
    pub(crate) const fn noted(class: SizeClass) -> Self {
        if block_size(class.index()) > MEDIUM_MAX {
            Self::NONE
        } else {
            Self::of(class)
        }
    }

    /// The class whose offset this is. It is not that of none.
    pub(crate) fn class(self) -> SizeClass {
        let bytes = self.bytes();
        let index = match bytes.checked_sub(FAR) {
            None => bytes / HEADER - 1,
            Some(far) => far / HEADER + SMALL_CLASSES,
        };
        SizeClass::new(index)
    }

    #[inline(always)]
    pub(crate) const fn bytes(self) -> usize {
        self.0
    }

    /// As a number, and back.
    #[expect(clippy::cast_possible_truncation, reason = "an offset fits 16 bits")]
    pub(crate) const fn to_bits(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits as usize)
    }
}

/// The offset of the class with this index.
#[expect(clippy::cast_possible_truncation, reason = "asserted above")]
const fn offset_of(class: usize) -> u16 {
    let offset = match class.checked_sub(SMALL_CLASSES) {
        None => (class + 1) * HEADER,
        Some(far) => FAR + far * HEADER,
    };
    offset as u16
}

/// A table of classes, or of offsets. As a `const` each crate that inlines the fast path has one of its own,
/// which a constant size folds away.
struct Table<const OFFSETS: bool>;

/// Entries for what is longer than [`SMALL_MAX`]: as many as if that began at 0, so that a shift alone leads to them.
const MEDIUM_ENTRIES: usize = MEDIUM_MAX / MEDIUM_STEP;

impl<const OFFSETS: bool> Table<OFFSETS> {
    /// By size: an entry for each byte saves a shift, and one for 0, which is that of none, a subtraction.
    const SMALL: [u16; 1 + SMALL_MAX] = {
        let mut table = [0; 1 + SMALL_MAX];
        let mut size = 1;
        while size <= SMALL_MAX {
            table[size] = Self::entry(class_of(size));
            size += 1;
        }
        table
    };

    /// By size less one in steps, of which the first are not used. Of words, so that the compiler does not make one
    /// load of both tables, for which the way of small sizes would copy its index to another register.
    const MEDIUM: [u32; MEDIUM_ENTRIES] = {
        let mut table = [0; MEDIUM_ENTRIES];
        let mut step = SMALL_MAX / MEDIUM_STEP;
        while step < MEDIUM_ENTRIES {
            table[step] = Self::entry(class_of((step + 1) * MEDIUM_STEP)) as u32;
            step += 1;
        }
        table
    };

    /// The entry for the size whose last byte this is.
    #[inline(always)]
    fn at(last: usize) -> Option<usize> {
        if last < SMALL_MAX {
            return Some(Self::SMALL[last + 1] as usize);
        }
        Self::medium(last)
    }

    /// The entry for a size that is not small.
    #[inline(always)]
    fn medium(last: usize) -> Option<usize> {
        if last >= MEDIUM_MAX {
            return None;
        }
        unlikely();
        Some(Self::MEDIUM[last / MEDIUM_STEP] as usize)
    }

    #[expect(clippy::cast_possible_truncation, reason = "CLASSES fits a byte")]
    const fn entry(class: usize) -> u16 {
        if OFFSETS {
            offset_of(class)
        } else {
            class as u16
        }
    }
}

/// The last byte of the size rounded up to its alignment: all bits below the alignment set.
#[inline(always)]
pub(crate) fn last_byte(size: usize, align: usize) -> usize {
    // OVERFLOW: size 0 wraps to a large number, which the caller's long way handles.
    size.wrapping_sub(1) | (align - 1)
}

/// Keeps the other way the one that falls through.
#[cold]
#[inline(always)]
fn unlikely() {}

/// The offset for layouts of at most [`MEDIUM_MAX`] bytes once rounded up to their alignment. Folds to a
/// constant where the layout is one.
#[inline(always)]
pub(crate) fn table_offset(size: usize, align: usize) -> Option<MagazineOffset> {
    let offset = Table::<true>::at(last_byte(size, align))?;
    Some(MagazineOffset(offset))
}

/// The class for such layouts.
#[inline(always)]
pub(crate) fn table_class(size: usize, align: usize) -> Option<SizeClass> {
    let class = Table::<false>::at(last_byte(size, align))?;
    Some(SizeClass::of_table(class))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size_class::{Request, classify};

    #[test]
    fn tables_and_function_agree() {
        for shift in 0..=16 {
            let align = 1_usize << shift;
            for size in 0..=MEDIUM_MAX + 1 {
                let rounded = size.next_multiple_of(align);
                let class = match classify(size, align) {
                    Request::Block(class) if size > 0 && rounded <= MEDIUM_MAX => Some(class),
                    _ => None,
                };
                assert_eq!(table_class(size, align), class, "{size} aligned {align}");
                let found = table_offset(size, align);
                let offset = class.map(MagazineOffset::of);
                assert_eq!(found, offset, "{size} aligned {align}");
            }
        }
    }

    #[test]
    fn offsets_differ_and_leave_the_first_free() {
        let mut last = MagazineOffset::NONE.bytes();
        for class in SizeClass::all() {
            let offset = MagazineOffset::of(class);
            assert!(offset.bytes() >= last + HEADER);
            last = offset.bytes();
            assert_eq!(offset.class(), class);
            assert_eq!(MagazineOffset::from_bits(offset.to_bits()), offset);
            let is_gated = class.size() > MEDIUM_MAX;
            let noted = if is_gated {
                MagazineOffset::NONE
            } else {
                offset
            };
            assert_eq!(MagazineOffset::noted(class), noted);
        }
    }
}
