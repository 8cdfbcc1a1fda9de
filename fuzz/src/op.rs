//! Operations and how bits become one.

use rand::rngs::SmallRng;
use rand::{Rng, RngExt};

/// One operation. Slots stand for a program's variables: filling a full slot frees what was there, and
/// the other operations do nothing on an empty one, so that any row of operations is a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Fills a slot.
    Alloc {
        /// Which one.
        slot: usize,
        /// Bytes, not 0.
        size: usize,
        /// A power of two.
        align: usize,
        /// Whether the memory has to be zero.
        zeroed: bool,
    },
    /// Changes the size of a block.
    Realloc {
        /// The block's slot.
        slot: usize,
        /// Bytes, not 0.
        size: usize,
    },
    /// Grows or shrinks a block by a part, as vectors do.
    Scale {
        /// The block's slot.
        slot: usize,
        /// The new size in eighths of the old one, 1 to 16.
        eighths: usize,
    },
    /// Empties a slot.
    Free {
        /// Which one.
        slot: usize,
    },
    /// Lays a slot's block down for another thread and takes what lies there.
    Pass {
        /// Which one.
        slot: usize,
        /// The place where threads meet.
        place: usize,
    },
    /// Gives back all memory that can be given back.
    Purge,
    /// Has the allocator check itself.
    Verify,
    /// The next operations come from another thread.
    Switch,
    /// The thread ends, and another takes its place.
    Retire,
}

/// Sizes by the byte that chooses them: up to which byte, and the sizes' bits: 3 is 8 to 15 bytes.
const SIZES: [(u8, core::ops::Range<u32>); 7] = [
    (39, 0..6),
    (139, 6..10),
    (199, 10..13),
    (227, 13..15),
    (243, 15..18),
    (251, 18..20),
    (255, 20..23),
];
/// From this byte on sizes cost microseconds.
const LONG: u8 = 228;
/// From this kind on an operation costs microseconds.
const RARE: u8 = 248;

impl Op {
    /// Bytes of a word that say anything.
    pub const BYTES: usize = 7;

    /// The operation that `word` stands for; every word is one.
    #[must_use]
    #[inline]
    pub fn from_word(word: u64) -> Self {
        let [kind, shape, low, high, slot, slot_high, align, _] = word.to_le_bytes();
        let slot = usize::from(u16::from_le_bytes([slot, slot_high]));
        let size = size(shape, u16::from_le_bytes([low, high]));
        match kind {
            0..112 => Self::Alloc {
                slot,
                size,
                align: self::align(align),
                zeroed: kind < 24,
            },
            112..128 => Self::Realloc { slot, size },
            128..144 => {
                let eighths = usize::from(low % 16) + 1;
                Self::Scale { slot, eighths }
            }
            144..240 => Self::Free { slot },
            240..RARE => {
                let place = usize::from(low);
                Self::Pass { slot, place }
            }
            RARE..250 => Self::Purge,
            250..252 => Self::Verify,
            252..255 => Self::Switch,
            255 => Self::Retire,
        }
    }

    /// A random operation for one thread among others, mostly a quick one.
    #[must_use]
    #[inline]
    pub fn random(rng: &mut SmallRng) -> Self {
        let mut word = rng.next_u64();
        let [kind, shape, .., luck] = word.to_le_bytes();
        if shape >= LONG && luck >= 8 {
            // 31 of 32 long ones become short.
            word ^= 0x8000;
        }
        if kind >= RARE {
            // These have a rhythm of their own.
            word ^= 0x80;
        }
        Self::from_word(word)
    }

    /// The seed's generator for one of several threads.
    #[must_use]
    pub fn generator(seed: u64, thread: u64) -> SmallRng {
        use rand::SeedableRng;
        let mut seeds = SmallRng::seed_from_u64(seed);
        let mut rng = SmallRng::seed_from_u64(seeds.random());
        for _ in 0..thread {
            rng = SmallRng::seed_from_u64(seeds.random());
        }
        rng
    }
}

/// A size of as many bits as `shape` says; every fourth at or beside a multiple of 16 or 4096, where
/// classes and pages end.
#[inline]
fn size(shape: u8, low: u16) -> usize {
    let (_, bits) = SIZES
        .iter()
        .find(|(last, _)| shape <= *last)
        .expect("the last row is for all");
    let bit = bits.start + u32::from(shape) % (bits.end - bits.start);
    let base = 1_usize << bit;
    let size = base + ((base * usize::from(low)) >> 16);
    let beside = usize::from(low % 3);
    match low % 8 {
        0 => size.next_multiple_of(16) + beside - 1,
        1 => size.next_multiple_of(4096) + beside - 1,
        _ => size,
    }
}

/// Mostly what programs ask for, at times up to 2 MiB.
#[inline]
fn align(byte: u8) -> usize {
    match byte {
        0..224 => 1 << (byte % 5),
        224..248 => 1 << (byte % 13),
        _ => 1 << (13 + byte % 9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_a_valid_operation() {
        let mut rng = Op::generator(1, 0);
        for _ in 0..1_000_000 {
            match Op::from_word(rng.next_u64()) {
                Op::Alloc { size, align, .. } => {
                    assert!((1..9 << 20).contains(&size), "{size}");
                    assert!(align.is_power_of_two() && align <= 2 << 20, "{align}");
                }
                Op::Realloc { size, .. } => assert!((1..9 << 20).contains(&size), "{size}"),
                _ => {}
            }
        }
    }

    #[test]
    fn random_operations_leave_the_rare_ones_to_their_rhythm() {
        let mut rng = Op::generator(2, 3);
        assert!((0..1_000_000).all(|_| {
            !matches!(
                Op::random(&mut rng),
                Op::Purge | Op::Verify | Op::Switch | Op::Retire
            )
        }));
    }

    #[test]
    fn threads_do_different_things() {
        let first = |thread| Op::generator(7, thread).next_u64();
        assert!(first(0) != first(1) && first(1) != first(2));
        assert_eq!(first(2), first(2));
    }
}
