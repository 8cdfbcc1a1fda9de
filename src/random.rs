//! Numbers that cannot be foreseen from outside, for the hardened mode. Not for cryptography: who
//! reads the generator's state knows what follows.
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

/// What canaries are made of; 0 before [`seed`].
static SECRET: AtomicU64 = AtomicU64::new(0);

/// Seeds the process; the first of several wins.
pub(crate) fn seed(seeds: [u64; 2]) {
    for (state, seed) in [&COUNTER, &SECRET].into_iter().zip(seeds) {
        // ORDERING: a number that is written once here; nothing is published through it.
        let _ = state.compare_exchange(0, seed.max(1), Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The process's next number.
pub(crate) fn next() -> u64 {
    // ORDERING: a counter; each caller gets a value of its own.
    mixed(COUNTER.fetch_add(STEP, Ordering::Relaxed))
}

/// The process's secret.
#[inline]
pub(crate) fn secret() -> u64 {
    // ORDERING: as in `seed`.
    SECRET.load(Ordering::Relaxed)
}
