//! Numbers that cannot be foreseen from outside, for the hardened mode, of two kinds. The generator's are
//! cheap: who knows some of them can compute the rest. [`keyed`] is a pseudorandom function: who
//! knows some of its results learns nothing about the others, nor about its key.
#![forbid(unsafe_code)]

use crate::sync::{AtomicU64, GuardedU64, Ordering};

/// The step of `SplitMix64`: odd, its bits without a pattern (Steele, Lea, Flood, OOPSLA 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The factor of a linear congruential generator (Steele and Vigna, 2022).
const FACTOR: u64 = 0xd134_2543_de82_ef95;

/// Mixes the bits of a counter (`SplitMix64`, as above).
const fn mixed(counter: u64) -> u64 {
    let first = (counter ^ (counter >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let second = (first ^ (first >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    second ^ (second >> 31)
}

/// One thread's generator.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Random(GuardedU64);

impl Random {
    pub(crate) fn seed(&self) {
        self.0.set(next());
    }

    /// A number below `bound`.
    pub(crate) fn below(&self, bound: u32) -> usize {
        let state = self.0.get().wrapping_mul(FACTOR).wrapping_add(STEP);
        self.0.set(state);
        // The upper half of the product: as good as a remainder, without a division (Lemire 2019). The
        // upper bits of the state are the good ones.
        (((state >> 32) * u64::from(bound)) >> 32) as usize
    }
}

/// The process's generator; 0 before [`seed`].
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// The key of [`keyed`]; 0 before [`seed`].
static KEY: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Seeds the process; of several seeds for a number the first wins. The generator has one of its own, as what
/// it makes can be seen in the order of blocks, and does without: [`keyed`] gives nothing away.
pub(crate) fn seed([first, second, third]: [u64; 3]) {
    set(&KEY[0], first);
    set(&KEY[1], second);
    // Asked for here alone: no block is at the end of all addresses.
    set(&COUNTER, third ^ keyed(u64::MAX));
}

fn set(number: &AtomicU64, seed: u64) {
    // ORDERING: a number that is written once here; nothing is published through it.
    let _ = number.compare_exchange(0, seed.max(1), Ordering::Relaxed, Ordering::Relaxed);
}

/// The process's next number.
pub(crate) fn next() -> u64 {
    // ORDERING: a counter; each caller gets a value of its own.
    mixed(COUNTER.fetch_add(STEP, Ordering::Relaxed))
}

/// A number that goes with `word` in this process, and that nobody can foresee without the key.
#[inline(always)]
pub(crate) fn keyed(word: u64) -> u64 {
    // ORDERING: as in `set`.
    let key = KEY.each_ref().map(|part| part.load(Ordering::Relaxed));
    sip(key, word)
}

/// `SipHash-1-3` of the eight bytes of one word (Aumasson and Bernstein, Indocrypt 2012; the variant of std's
/// hash tables).
#[inline(always)]
const fn sip([first, second]: [u64; 2], word: u64) -> u64 {
    /// The last word: how many bytes were hashed, in its last byte.
    const END: u64 = (size_of::<u64>() as u64) << 56;
    let mut state = [
        first ^ 0x736f_6d65_7073_6575,
        second ^ 0x646f_7261_6e64_6f6d,
        first ^ 0x6c79_6765_6e65_7261,
        second ^ 0x7465_6462_7974_6573 ^ word,
    ];
    state = sip_round(state);
    state[0] ^= word;
    state[3] ^= END;
    state = sip_round(state);
    state[0] ^= END;
    state[2] ^= 0xff;
    let [a, b, c, d] = sip_round(sip_round(sip_round(state)));
    a ^ b ^ c ^ d
}

#[inline(always)]
const fn sip_round([a, b, c, d]: [u64; 4]) -> [u64; 4] {
    let (a, c) = (a.wrapping_add(b), c.wrapping_add(d));
    let (b, d) = (b.rotate_left(13) ^ a, d.rotate_left(16) ^ c);
    let (a, c) = (a.rotate_left(32).wrapping_add(d), c.wrapping_add(b));
    let (b, d) = (b.rotate_left(17) ^ c, d.rotate_left(21) ^ a);
    [a, b, c.rotate_left(32), d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::Hasher;
    use std::hash::DefaultHasher;

    #[test]
    fn keyed_numbers_are_those_of_siphash() {
        // Of the algorithm's reference, with the key 0, 1, 2 to 15: the bytes 0 to 7.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        assert_eq!(sip(key, key[0]), 0x3690_9511_8d29_9a8e);
        for shift in 0..64 {
            for word in [1 << shift, u64::MAX >> shift, STEP << shift] {
                let mut hasher = DefaultHasher::new();
                hasher.write_u64(word);
                assert_eq!(sip([0, 0], word), hasher.finish(), "{word:#x}");
            }
        }
    }
}
