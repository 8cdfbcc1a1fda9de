//! Up to 4096 bits in 64 words, with a word that names the words that are not zero.
#![forbid(unsafe_code)]

use core::ptr;

use crate::os;
use crate::sync::GuardedU64;
use crate::units::low_bits;

/// Bits, hence blocks, of a word.
pub(super) const WORD: usize = 64;

/// Free blocks of a slab. Guarded by the lock of the slab's class.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Bitmap {
    /// Bit `i` is set when `words[i]` is not 0.
    summary: GuardedU64,
    words: [GuardedU64; WORD],
}

impl Bitmap {
    /// Sets the first `blocks` bits of a bitmap that is all zero.
    pub(super) fn fill(&self, blocks: usize) {
        let used = blocks.div_ceil(WORD);
        for (index, word) in self.words[..used].iter().enumerate() {
            word.set(low_bits(blocks - index * WORD));
        }
        self.summary.set(low_bits(used));
    }

    /// Clears every bit, for the next slab at this place.
    pub(super) fn clear(&self) {
        let used = WORD - self.summary.get().leading_zeros() as usize;
        self.words[..used].iter().for_each(|word| word.set(0));
        self.summary.set(0);
    }

    /// Clears `count` set bits and names them in ascending order, from `start` on and wrapping
    /// round; bits of a word are cleared after they were named.
    #[inline]
    pub(super) fn take(
        &self,
        count: usize,
        start: u32,
        blocks: usize,
        mut named: impl FnMut(usize),
    ) {
        // A bitmap of one word begins at the bit `start`, a longer one at its word.
        let (turn, first) = if blocks <= WORD {
            (start, 0)
        } else {
            (0, start / 64)
        };
        let mut summary = self.summary.get();
        let mut left = count;
        while left > 0 {
            debug_assert!(summary != 0, "the caller asked for more than is free");
            let index = ((summary.rotate_right(first).trailing_zeros() + first) % 64) as usize;
            let mut bits = self.words[index].get().rotate_right(turn);
            let base = index * WORD;
            if bits == u64::MAX && left >= WORD && turn == 0 {
                (base..base + WORD).for_each(&mut named);
                left -= WORD;
                bits = 0;
            }
            while bits != 0 && left > 0 {
                let bit = (bits.trailing_zeros() + turn) % 64;
                named(base + bit as usize);
                bits &= bits - 1;
                left -= 1;
            }
            self.words[index].set(bits.rotate_left(turn));
            if bits == 0 {
                summary &= !(1 << index);
                self.summary.set(summary);
            }
        }
    }

    /// The first bit of a word of which all bits are set.
    pub(super) fn whole_word(&self) -> Option<u32> {
        let index = self.words.iter().position(|word| word.get() == u64::MAX)?;
        u32::try_from(index * WORD).ok()
    }

    /// Has the processor fetch the word of `block`, whatever number that is.
    #[inline]
    pub(super) fn prefetch(&self, block: usize) {
        os::prefetch(ptr::from_ref(&self.words[block / WORD % WORD]).cast());
    }

    /// Sets one bit; the bit if it was set.
    #[inline]
    pub(super) fn put(&self, block: usize) -> Result<(), usize> {
        // Blocks are below 4096: the remainder, here and below, shows this to the compiler.
        let (index, bit) = (block / WORD % WORD, 1 << (block % WORD));
        let word = self.words[index].get();
        if word & bit != 0 {
            return Err(block);
        }
        self.words[index].set(word | bit);
        if word == 0 {
            self.summary.set(self.summary.get() | 1 << index);
        }
        Ok(())
    }

    /// Sets all bits of the word of `block`; one that was set, if one was.
    #[inline]
    pub(super) fn put_word(&self, block: usize) -> Result<(), usize> {
        let index = block / WORD % WORD;
        let word = self.words[index].get();
        if word != 0 {
            return Err(index * WORD + word.trailing_zeros() as usize);
        }
        self.words[index].set(u64::MAX);
        self.summary.set(self.summary.get() | 1 << index);
        Ok(())
    }

    pub(super) fn copy(&self) -> [u64; WORD] {
        let mut copy = [0; WORD];
        // By a length hidden from the compiler, which would unroll the loop.
        let words = &self.words[..core::hint::black_box(WORD)];
        for (to, from) in copy.iter_mut().zip(words) {
            *to = from.get();
        }
        copy
    }

    /// Sets the summary from the words and counts the bits.
    pub(super) fn rebuild(&self) -> usize {
        let mut summary = 0;
        let mut count = 0;
        for (index, word) in self.words.iter().enumerate() {
            summary |= u64::from(word.get() != 0) << index;
            count += word.get().count_ones() as usize;
        }
        self.summary.set(summary);
        count
    }

    /// Whether the summary fits the words, `free` bits are set, and none past `blocks`.
    pub(super) fn is_consistent(&self, blocks: usize, free: usize) -> bool {
        let mut count = 0;
        let words_fit = self.words.iter().enumerate().all(|(index, word)| {
            let bits = word.get();
            count += bits.count_ones() as usize;
            bits & !low_bits(blocks.saturating_sub(index * WORD)) == 0
                && (self.summary.get() >> index & 1 == 1) == (bits != 0)
        });
        words_fit && count == free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bitmap() -> Bitmap {
        Bitmap {
            summary: GuardedU64::new(0),
            words: [const { GuardedU64::new(0) }; WORD],
        }
    }

    #[test]
    fn every_count_and_start_takes_each_block_once_and_gives_it_back() {
        for blocks in [1, 4, 63, 64, 65, 127, 1000, 4096] {
            for start in [0, 1, blocks / 2, blocks - 1] {
                let bitmap = bitmap();
                bitmap.fill(blocks);
                assert!(bitmap.is_consistent(blocks, blocks));
                let mut seen = std::vec![false; blocks];
                let mut left = blocks;
                while left > 0 {
                    let count = left.min(7);
                    let take = |block: usize| assert!(!core::mem::replace(&mut seen[block], true));
                    bitmap.take(count, u32::try_from(start).unwrap(), blocks, take);
                    left -= count;
                    assert!(bitmap.is_consistent(blocks, left));
                }
                assert!(seen.iter().all(|seen| *seen));
                assert!(
                    (0..blocks)
                        .step_by(2)
                        .all(|block| bitmap.put(block).is_ok())
                );
                assert!(
                    (0..blocks)
                        .rev()
                        .all(|block| bitmap.put(block).is_ok() == (block % 2 == 1))
                );
                assert!((0..blocks).all(|block| bitmap.put(block) == Err(block)));
                assert_eq!(bitmap.rebuild(), blocks);
                assert!(bitmap.is_consistent(blocks, blocks));
                bitmap.clear();
                assert!(bitmap.copy().iter().all(|word| *word == 0) && bitmap.rebuild() == 0);
            }
        }
    }

    #[test]
    fn a_word_at_once_is_each_of_its_bits() {
        for block in [0, 63, 64, 4095] {
            let bitmap = bitmap();
            assert_eq!(bitmap.put_word(block), Ok(()));
            assert!(bitmap.is_consistent(4096, WORD));
            assert_eq!(bitmap.put(block), Err(block));
            // One that is set already is named.
            let bitmap = self::bitmap();
            let twice = block / WORD * WORD + 17;
            assert_eq!(bitmap.put(twice), Ok(()));
            assert_eq!(bitmap.put_word(block), Err(twice));
        }
    }

    #[test]
    fn blocks_ascend_until_they_wrap_round() {
        for (blocks, start) in [(64, 20), (40, 39), (4096, 1000)] {
            let bitmap = bitmap();
            bitmap.fill(blocks);
            let mut previous = None;
            let mut turns = 0;
            bitmap.take(blocks, start, blocks, |block| {
                turns += usize::from(previous.is_some_and(|previous| block < previous));
                previous = Some(block);
            });
            assert_eq!(turns, 1);
        }
    }
}
