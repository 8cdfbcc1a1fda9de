//! Which memory is in use: a bit for each 8 bytes of the address space, in leaves made on demand. All
//! threads share it without a lock, so an overlap is noticed whoever holds the other block.

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// log2 of the bytes of a bit. Blocks begin at multiples of 8, so no two share one.
const GRAIN_SHIFT: u32 = 3;
/// log2 of the bits of a word.
const WORD_SHIFT: u32 = 6;
/// log2 of the bytes of a leaf.
const LEAF_SHIFT: u32 = 22;
/// Words of a leaf.
const LEAF: usize = 1 << (LEAF_SHIFT - GRAIN_SHIFT - WORD_SHIFT);
/// Leaves of all addresses that a process has.
const ROOT: usize = 1 << (47 - LEAF_SHIFT);

type Leaf = [AtomicU64; LEAF];

/// The memory in use. Zero pages until it is needed.
#[derive(Debug)]
pub struct Shadow([AtomicPtr<Leaf>; ROOT]);

/// What to do with bits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Set,
    Clear,
}

impl Shadow {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicPtr::new(ptr::null_mut()) }; ROOT])
    }

    /// Notes that `length` bytes from `start` on are in use; an address that was in use before is an
    /// error.
    #[inline]
    pub(crate) fn insert(&self, start: usize, length: usize) -> Result<(), usize> {
        self.change(start, length, Change::Set)
    }

    /// Notes that they are not in use any more; an address that was not is an error.
    #[inline]
    pub(crate) fn remove(&self, start: usize, length: usize) -> Result<(), usize> {
        self.change(start, length, Change::Clear)
    }

    #[inline]
    fn change(&self, start: usize, length: usize, change: Change) -> Result<(), usize> {
        let mut grain = start >> GRAIN_SHIFT;
        let end = (start + length).div_ceil(1 << GRAIN_SHIFT);
        while grain < end {
            let leaf = self.leaf(grain >> (LEAF_SHIFT - GRAIN_SHIFT));
            let leaf_end = (grain + 1).next_multiple_of(LEAF << WORD_SHIFT);
            let part_end = end.min(leaf_end);
            while grain < part_end {
                let first = grain % 64;
                let count = (64 - first).min(part_end - grain);
                let mask = (u64::MAX >> (64 - count)) << first;
                let word = &leaf[(grain >> WORD_SHIFT) % LEAF];
                let before = exchange(word, mask, change);
                let expected = if change == Change::Set { 0 } else { mask };
                if before & mask != expected {
                    let wrong = ((before & mask) ^ expected).trailing_zeros() as usize;
                    return Err((grain - first + wrong) << GRAIN_SHIFT);
                }
                grain += count;
            }
        }
        Ok(())
    }

    /// The leaf of this number, made on first use.
    #[inline]
    fn leaf(&self, number: usize) -> &Leaf {
        // ORDERING: pairs with the exchange in `new_leaf`: the leaf is empty before it is seen.
        let leaf = self.0[number].load(Ordering::Acquire);
        // SAFETY: null, or a leaf that is never freed.
        unsafe { leaf.as_ref() }.unwrap_or_else(|| self.new_leaf(number))
    }

    #[cold]
    fn new_leaf(&self, number: usize) -> &Leaf {
        let empty: Box<Leaf> = (0..LEAF)
            .map(|_| AtomicU64::new(0))
            .collect::<Box<[_]>>()
            .try_into()
            .expect("as many words as a leaf has");
        let fresh = Box::into_raw(empty);
        // ORDERING: publishes the empty leaf; who loses reads the winner's.
        let first = self.0[number].compare_exchange(
            ptr::null_mut(),
            fresh,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        let leaf = match first {
            Ok(_) => fresh,
            Err(winner) => {
                // SAFETY: from the box above, seen by nobody.
                drop(unsafe { Box::from_raw(fresh) });
                winner
            }
        };
        // SAFETY: a leaf that is never freed.
        unsafe { &*leaf }
    }
}

/// Changes the bits of `mask`; the word as it was.
#[inline]
fn exchange(word: &AtomicU64, mask: u64, change: Change) -> u64 {
    // ORDERING: bits publish nothing but themselves. Blocks that change threads are handed over by a
    // lock, which orders their bits as well.
    if mask == u64::MAX {
        // The inside of a block: nobody else has business here. Who does is noticed at the latest when
        // the second of two removals finds the bits cleared, and this costs a tenth.
        let before = word.load(Ordering::Relaxed);
        let after = if change == Change::Set { mask } else { 0 };
        word.store(after, Ordering::Relaxed);
        return before;
    }
    match change {
        Change::Set => word.fetch_or(mask, Ordering::Relaxed),
        Change::Clear => word.fetch_and(!mask, Ordering::Relaxed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SHADOW: Shadow = Shadow::new();

    #[test]
    fn every_overlap_is_found_and_neighbours_are_none() {
        // Across two leaves, so that words, leaves and their ends are all met.
        let base = (5 << LEAF_SHIFT) - 4096;
        for (start, length) in [(0, 16), (8, 24), (504, 16), (4000, 5000), (1000, 3)] {
            let start = base + start;
            assert_eq!(SHADOW.insert(start, length), Ok(()));
            let end = (start + length).next_multiple_of(8);
            assert_eq!(SHADOW.insert(start - 8, 8), Ok(()));
            assert_eq!(SHADOW.insert(end, 8), Ok(()));
            assert_eq!(SHADOW.insert(end - 8, 8), Err(end - 8));
            assert_eq!(SHADOW.remove(start - 8, 8), Ok(()));
            assert_eq!(SHADOW.remove(end, 8), Ok(()));
            assert_eq!(SHADOW.remove(start, length), Ok(()));
            assert_eq!(SHADOW.remove(start, 8), Err(start));
        }
    }
}
