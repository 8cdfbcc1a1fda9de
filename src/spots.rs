//! Where the magazine of each class stands in a thread cache, its *spot*: the tables of the fast paths.
//!
//! Magazines of small classes stand together behind one that has no room for any block, the spot of what is
//! no block; those of the others [`FAR`] bytes on.
#![forbid(unsafe_code)]

use static_assertions::const_assert;

use crate::size_class::{CLASSES, FINE, SMALL_CLASSES, SMALL_MAX, SizeClass, block_size, class_of};

/// Bytes of a magazine's header.
pub(crate) const HEADER: usize = 24;
/// Where the magazines of the classes that are not small begin.
pub(crate) const FAR: usize = 8192;
/// The spot of the magazine without room.
pub(crate) const NOWHERE: u32 = 0;

/// Largest size that is reached without the gate: see `cache::slow`.
pub(crate) const MEDIUM_MAX: usize = 32 << 10;
/// Every class of more than [`SMALL_MAX`] is a multiple of this.
const MEDIUM_STEP: usize = SMALL_MAX / FINE;

const_assert!(FAR + (CLASSES - SMALL_CLASSES) * HEADER <= u16::MAX as usize);

/// The spot of the class with this index.
#[expect(clippy::cast_possible_truncation, reason = "asserted above")]
const fn spot_of(class: usize) -> u16 {
    let offset = match class.checked_sub(SMALL_CLASSES) {
        None => (class + 1) * HEADER,
        Some(far) => FAR + far * HEADER,
    };
    offset as u16
}

/// The spot of a class.
pub(crate) const fn spot(class: SizeClass) -> usize {
    spot_of(class.index()) as usize
}

/// The class whose spot this is, which is none without room.
pub(crate) fn class_of_spot(spot: usize) -> SizeClass {
    let index = match spot.checked_sub(FAR) {
        None => spot / HEADER - 1,
        Some(far) => far / HEADER + SMALL_CLASSES,
    };
    SizeClass::new(index)
}

/// What is noted for the addresses of a slab of `class`: its spot, if its magazine is reached without the
/// gate.
pub(crate) const fn noted(class: SizeClass) -> u32 {
    if block_size(class.index()) > MEDIUM_MAX {
        NOWHERE
    } else {
        spot_of(class.index()) as u32
    }
}

/// A table of classes, or of spots. As a `const` each crate that inlines the fast path has one of its own,
/// which a constant size folds away.
struct Table<const SPOTS: bool>;

/// Entries for what is longer than [`SMALL_MAX`]: as many as if that began at 0, so that a shift alone leads to them.
const MEDIUM_ENTRIES: usize = MEDIUM_MAX / MEDIUM_STEP;

impl<const SPOTS: bool> Table<SPOTS> {
    /// By size less one: an entry for each byte saves a shift. Behind these, by size less one in steps, of which
    /// the first are not used.
    const ALL: [u16; SMALL_MAX + MEDIUM_ENTRIES] = {
        let mut table = [0; SMALL_MAX + MEDIUM_ENTRIES];
        let mut last = 0;
        while last < SMALL_MAX {
            table[last] = Self::entry(class_of(last + 1));
            last += 1;
        }
        let mut step = SMALL_MAX / MEDIUM_STEP;
        while step < MEDIUM_ENTRIES {
            table[SMALL_MAX + step] = Self::entry(class_of((step + 1) * MEDIUM_STEP));
            step += 1;
        }
        table
    };

    /// The entry for the size whose last byte this is.
    #[inline(always)]
    fn at(last: usize) -> Option<u16> {
        let index = if last < SMALL_MAX {
            last
        } else if last < MEDIUM_MAX {
            unlikely();
            SMALL_MAX + last / MEDIUM_STEP
        } else {
            return None;
        };
        Some(Self::ALL[index])
    }

    #[expect(clippy::cast_possible_truncation, reason = "CLASSES fits a byte")]
    const fn entry(class: usize) -> u16 {
        if SPOTS { spot_of(class) } else { class as u16 }
    }
}

/// The last byte of the size rounded up to its alignment: all bits below the alignment set.
#[inline(always)]
fn last_byte(size: usize, align: usize) -> usize {
    // OVERFLOW: size 0 wraps to a large number, which the caller's long way handles.
    size.wrapping_sub(1) | (align - 1)
}

/// Keeps the other way the one that falls through.
#[cold]
#[inline(always)]
fn unlikely() {}

/// The spot for layouts of at most [`MEDIUM_MAX`] bytes once rounded up to their alignment. Folds to a
/// constant where the layout is one.
#[inline(always)]
pub(crate) fn table_spot(size: usize, align: usize) -> Option<usize> {
    Some(Table::<true>::at(last_byte(size, align))? as usize)
}

/// The class for such layouts.
#[inline(always)]
pub(crate) fn table_class(size: usize, align: usize) -> Option<SizeClass> {
    let class = Table::<false>::at(last_byte(size, align))?;
    Some(SizeClass::of_table(class as usize))
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
                let found = table_spot(size, align);
                assert_eq!(found, class.map(spot), "{size} aligned {align}");
            }
        }
    }

    #[test]
    fn spots_differ_and_leave_the_first_free() {
        let spots = SizeClass::all().map(spot);
        let mut last = NOWHERE as usize;
        for spot in spots {
            assert!(spot >= last + HEADER);
            last = spot;
        }
        for class in SizeClass::all() {
            assert_eq!(class_of_spot(spot(class)), class);
            let is_gated = class.size() > MEDIUM_MAX;
            let noted = noted(class) as usize;
            assert_eq!(
                noted,
                if is_gated {
                    NOWHERE as usize
                } else {
                    spot(class)
                }
            );
        }
    }
}
