//! Seeded numbers: the same sequence in every process.

use super::block::BlockLayout;

/// The span of the "mixed" sizes.
const MIXED_MIN: usize = 16;
const MIXED_MAX: usize = 512;

/// xorshift64*, three shifts and a multiplication: cheap next to an allocation.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // the state must not be zero
        Self(mix(seed) | 1)
    }

    #[inline(always)]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`.
    #[inline(always)]
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        scale(self.next(), bound)
    }
}

/// Maps a random word to a number below `bound`, using its upper half.
#[inline(always)]
pub(crate) fn scale(word: u64, bound: usize) -> usize {
    (((word >> 32) * bound as u64) >> 32) as usize
}

/// splitmix64's finalizer: a random-looking word for each index, with no state to keep.
pub(crate) fn mix(index: u64) -> u64 {
    let mut word = index.wrapping_add(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// 16 to 512 bytes, all equally likely; the size that belongs to `index`.
pub(crate) fn mixed_layout(index: u64) -> BlockLayout {
    BlockLayout::new(MIXED_MIN + scale(mix(index), MIXED_MAX - MIXED_MIN + 1))
}

/// 16 to 512 bytes, mostly small: half of them below 80 bytes, a fifth above 256.
pub(crate) fn skewed_layout(random: &mut Random) -> BlockLayout {
    let uniform = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
    let span = (MIXED_MAX - MIXED_MIN + 1) as f64;
    BlockLayout::new(MIXED_MIN + (span * uniform * uniform * uniform) as usize)
}

/// A fixed random order of `0..count`.
pub(crate) fn permutation(count: usize, seed: u64) -> Vec<u32> {
    let count = u32::try_from(count).expect("orders are short");
    let mut order: Vec<u32> = (0..count).collect();
    let mut random = Random::new(seed);
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last + 1));
    }
    order
}
