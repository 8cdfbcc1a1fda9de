//! Hints: slabs of a class that are worth a look, a bit for each unit, and a bit for each word of these.
//!
//! Who gives a block back sets the block's bit first, then the hint, if it is not set. Who looks clears the hint first,
//! then reads the bits. All four are sequentially consistent: so either the look finds the bit, or the other finds the
//! hint clear, and sets it. A kill between the two loses the hint; whoever reaps sets all of them.
#![forbid(unsafe_code)]

use super::area::Area;
use super::geometry::BITS;
use super::words::Unit;
use crate::sync::Ordering;

impl Area {
    pub(super) fn set_hint(&self, class: usize, unit: u32) {
        let (word, bit) = (unit as usize / BITS, 1_u64 << (unit as usize % BITS));
        let (hint, summary) = self.hint(class, word);
        // ORDERING: see above. Most often it is set.
        if hint.load(Ordering::SeqCst) & bit == 0 {
            hint.fetch_or(bit, Ordering::SeqCst);
        }
        let bit = 1_u64 << (word % BITS);
        if summary.load(Ordering::SeqCst) & bit == 0 {
            summary.fetch_or(bit, Ordering::SeqCst);
        }
    }

    pub(super) fn clear_hint(&self, class: usize, unit: u32) {
        let (word, bit) = (unit as usize / BITS, 1_u64 << (unit as usize % BITS));
        let (hint, summary) = self.hint(class, word);
        // ORDERING: see above.
        if hint.fetch_and(!bit, Ordering::SeqCst) & !bit == 0 {
            let bit = 1_u64 << (word % BITS);
            summary.fetch_and(!bit, Ordering::SeqCst);
            // One that was set meanwhile.
            if hint.load(Ordering::SeqCst) != 0 {
                summary.fetch_or(bit, Ordering::SeqCst);
            }
        }
    }

    /// Units with a hint, from the one behind this on, around to it.
    pub(super) fn hinted(&self, class: usize, last: u32) -> impl Iterator<Item = u32> {
        // Beyond nobody had a slab, and the table may have no space.
        let words = (self.touched().end as usize).div_ceil(BITS);
        let next = last as usize + 1;
        let first = next / BITS % words;
        // Whole words of the summary are passed over.
        let in_words = move |range: core::ops::Range<usize>| {
            let mut next = range.start;
            core::iter::from_fn(move || {
                while next < range.end {
                    let word = next;
                    let (_, summary) = self.hint(class, word);
                    let left = summary.load(Ordering::SeqCst) >> (word % BITS);
                    if left & 1 != 0 {
                        next = word + 1;
                        return Some(word);
                    }
                    next = match left {
                        0 => word + BITS - word % BITS,
                        _ => word + left.trailing_zeros() as usize,
                    };
                }
                None
            })
        };
        let of_first = u64::MAX << (next % BITS);
        let behind = in_words(first..first + 1).map(move |word| (word, of_first));
        let others = in_words(first + 1..words).chain(in_words(0..first));
        let before = in_words(first..first + 1).map(move |word| (word, !of_first));
        let all = behind
            .chain(others.map(|word| (word, u64::MAX)))
            .chain(before);
        all.flat_map(move |(word, mask)| {
            let (hint, _) = self.hint(class, word);
            let mut bits = hint.load(Ordering::SeqCst) & mask;
            core::iter::from_fn(move || {
                let bit = bits.trailing_zeros() as usize;
                bits &= bits.wrapping_sub(1);
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "units are counted by 32 bits"
                )]
                (bit < BITS).then_some((word * BITS + bit) as u32)
            })
        })
    }

    /// Sets the hint of every slab, as somebody may have gone before he set one.
    pub(super) fn set_all_hints(&self) {
        for unit in self.touched() {
            if let Unit::Slab { class, .. } = self.unit(unit) {
                self.set_hint(class.into(), unit);
            }
        }
    }
}
