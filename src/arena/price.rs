//! Whether to ask for huge pages, by what they cost here and now.
//!
//! What a first touch costs is a fact of the machine, and changes: a host that has given the memory
//! of a guest away fetches 2 MiB for a huge page, which may take a hundred times as long as when
//! the memory is there. So each chunk at which huge pages are asked for is a sample, and some of the mappings of long
//! blocks: the first touch of a huge page is timed, and first touches of small pages. The former is of memory that is
//! about to be used, most likely.
#![forbid(unsafe_code)]

use crate::sync::{GuardedU64, GuardedUsize};

/// The price, in small pages, at which a huge page costs as much as those that it stands for.
pub(super) const EVEN: u64 = 512;
/// Once huge pages have proved cheap they may cost so much: they save misses later. Between this and
/// [`EVEN`] things stay as they are.
const MOST: u64 = 2 * EVEN;
/// Of mappings, one in so many is a sample while huge pages are cheap: a sample keeps 2 MiB in memory, even if nobody
/// touches them.
const SPACING: usize = 16;
/// So many dear ones in a row, and they are not asked for: one may be an interruption.
const STRIKES: usize = 2;
/// Chunks and mappings until they are tried again, at first and at most: the pause doubles.
const PAUSE: usize = 64;
const PAUSE_MAX: usize = 1024;
/// Or milliseconds, whichever is sooner: for heaps that grow slowly.
const PAUSE_MS: u64 = 10_000;

/// How much of a chunk huge pages are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    None,
    /// One huge page, to see what it costs.
    Trial,
    Whole,
}

/// What is known of the price. Written under the lock of who makes a chunk.
pub(super) struct Price {
    /// Dear samples in a row.
    strikes: GuardedUsize,
    /// 1 once the last samples were cheap.
    is_proved: GuardedUsize,
    /// Chunks and mappings until the next trial; 0 while huge pages are asked for.
    pause: GuardedUsize,
    /// When the next trial may be in any case, in milliseconds.
    pause_ends: GuardedU64,
    /// How long the next pause is, in chunks.
    next_pause: GuardedUsize,
    /// Mappings since the last sample.
    unsampled: GuardedUsize,
}

impl Price {
    pub(super) const fn new() -> Self {
        Self {
            strikes: GuardedUsize::new(0),
            is_proved: GuardedUsize::new(0),
            pause: GuardedUsize::new(0),
            pause_ends: GuardedU64::new(0),
            next_pause: GuardedUsize::new(0),
            unsampled: GuardedUsize::new(0),
        }
    }

    /// Whether huge pages are known to be dear.
    pub(super) fn is_high(&self) -> bool {
        self.pause.get() != 0
    }

    /// Whether the last samples were cheap.
    pub(super) fn is_proved(&self) -> bool {
        self.is_proved.get() != 0
    }

    /// Whether a mapping at which huge pages are asked for is to be a sample: while the price is in doubt, and one in
    /// [`SPACING`].
    pub(super) fn wants_sample(&self) -> bool {
        let unsampled = self.unsampled.get() + 1;
        self.unsampled.set(unsampled);
        !self.is_proved() || self.strikes.get() > 0 || unsampled >= SPACING
    }

    /// What to ask for in the next chunk or mapping.
    pub(super) fn extent(&self, now: u64) -> Extent {
        let pause = self.pause.get();
        if pause > 1 && now < self.pause_ends.get() {
            self.pause.set(pause - 1);
            return Extent::None;
        }
        self.pause.set(0);
        if self.is_proved.get() == 0 {
            Extent::Trial
        } else {
            Extent::Whole
        }
    }

    /// Takes note of what a huge page has cost, in small ones.
    pub(super) fn note(&self, price: u64, now: u64) {
        self.unsampled.set(0);
        let is_proved = self.is_proved();
        if price <= if is_proved { MOST } else { EVEN } {
            self.strikes.set(0);
            self.is_proved.set(1);
            self.next_pause.set(PAUSE);
            return;
        }
        self.strikes.set(self.strikes.get() + 1);
        if self.strikes.get() < STRIKES {
            return;
        }
        // The first dear one after a pause begins the next.
        self.strikes.set(STRIKES - 1);
        self.is_proved.set(0);
        // 0 before the first: what is not zero in a static is that much longer a file.
        let pause = self.next_pause.get().max(PAUSE);
        self.next_pause.set((2 * pause).min(PAUSE_MAX));
        self.pause_ends.set(now + PAUSE_MS);
        self.pause.set(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes chunks at which huge pages cost so much until one is a sample; how many.
    fn until_sampled(price: &Price, cost: u64) -> usize {
        for chunks in 1.. {
            if price.extent(0) != Extent::None {
                price.note(cost, 0);
                return chunks;
            }
        }
        unreachable!("a chunk is a sample")
    }

    #[test]
    fn dear_huge_pages_are_tried_ever_more_seldom() {
        let price = Price::new();
        assert_eq!(price.extent(0), Extent::Trial);
        let waits: std::vec::Vec<usize> = (0..8).map(|_| until_sampled(&price, EVEN + 1)).collect();
        assert_eq!(waits, [1, 1, 64, 128, 256, 512, 1024, 1024]);
        assert!(price.is_high());
        // Time ends a pause, too.
        assert_eq!(price.extent(PAUSE_MS - 1), Extent::None);
        assert_eq!(price.extent(PAUSE_MS), Extent::Trial);
    }

    #[test]
    fn cheap_huge_pages_are_asked_for_until_two_in_a_row_are_dear() {
        let price = Price::new();
        price.note(EVEN, 0);
        for _ in 0..3 {
            // Dear by itself, and as dear as may be once they were cheap.
            price.note(MOST + 1, 0);
            assert_eq!(price.extent(0), Extent::Whole);
            price.note(MOST, 0);
        }
        price.note(MOST + 1, 0);
        price.note(MOST + 1, 0);
        assert_eq!(price.extent(0), Extent::None);
        // One cheap one proves them again, and the next pause is short.
        assert_eq!(until_sampled(&price, EVEN), PAUSE - 1);
        assert_eq!(price.extent(0), Extent::Whole);
        assert!(!price.is_high());
    }
}
