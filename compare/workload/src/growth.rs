//! d_: vectors, strings and bare blocks that grow.

use std::hint::black_box;

use super::block::{Block, BlockLayout};
use super::meter::{Meter, Reading};
use super::random::{Random, mix, skewed_layout};

const BIG: usize = 8 << 20;

/// d_small: vectors kept before they are dropped, and lengths drawn beforehand.
const KEPT: usize = 256;
const LENGTHS: usize = 1024;

/// d_ext, d_ext2: appended at a time.
const PIECE: usize = 1024;

/// d_str: strings kept; every fourth takes the place of one.
const STRINGS: usize = 1000;

/// d_realloc: blocks, and the sizes that they grow through, each about half as large again.
const GROWING: usize = 64;
const SIZES: [usize; 19] = [
    16, 24, 40, 64, 96, 144, 224, 352, 536, 824, 1272, 1968, 3072, 4864, 7936, 13_312, 22_528,
    38_912, 65_536,
];

/// One vector pushed to 8 MiB.
pub(crate) fn push(meter: &Meter) -> Reading {
    const ELEMENTS: usize = BIG / size_of::<u64>();
    meter.run(24, ELEMENTS, |rounds| {
        let mut sum = 0_u64;
        for round in 0..rounds {
            let mut vector: Vec<u64> = Vec::new();
            for element in 0..ELEMENTS as u64 {
                vector.push(element ^ round);
            }
            black_box(vector.as_mut_ptr());
            sum = sum.wrapping_add(vector[ELEMENTS / 2]);
        }
        sum
    })
}

/// One vector extended to 8 MiB.
pub(crate) fn extend(meter: &Meter) -> Reading {
    extend_in_turn::<1>(meter, 32)
}

/// Two vectors extended in turn, so that neither has free space behind it for long.
pub(crate) fn extend_two(meter: &Meter) -> Reading {
    extend_in_turn::<2>(meter, 8)
}

fn extend_in_turn<const VECTORS: usize>(meter: &Meter, rounds: u64) -> Reading {
    const PIECES: usize = BIG / PIECE;
    let mut piece = [7_u8; PIECE];
    meter.run(rounds, VECTORS * PIECES, |rounds| {
        let mut sum = 0_u64;
        for round in 0..rounds {
            let mut vectors = [const { Vec::new() }; VECTORS];
            for index in 0..PIECES {
                piece[0] = (index as u64 ^ round) as u8;
                for vector in &mut vectors {
                    vector.extend_from_slice(black_box(&piece));
                }
            }
            for vector in &vectors {
                let starts = vector.chunks_exact(PIECE).map(|piece| u64::from(piece[0]));
                sum = starts.fold(sum, |sum, start| sum.wrapping_mul(31).wrapping_add(start));
            }
        }
        sum
    })
}

/// Strings of 10 to 120 bytes, formatted or put together word by word; some are kept.
pub(crate) fn strings(meter: &Meter) -> Reading {
    const WORDS: [&str; 8] = [
        "a",
        "of",
        "the",
        "block",
        "cache",
        "thread",
        "magazine",
        "allocator",
    ];
    let mut kept: Vec<String> = vec![String::new(); STRINGS];
    let mut random = Random::new(12);
    meter.run(200_000, 1, |rounds| {
        let mut sum = 0_u64;
        for _ in 0..rounds {
            let word = random.next();
            let string = if word.is_multiple_of(2) {
                format!(
                    "{:x}/{}: {}",
                    word,
                    word % 10_000,
                    WORDS[word as usize / 2 % 8]
                )
            } else {
                let mut sentence = String::new();
                for shift in 1..4 + word / 2 % 16 {
                    sentence.push_str(WORDS[(word >> (2 * shift)) as usize % 8]);
                    sentence.push(' ');
                }
                sentence
            };
            let byte = string.as_bytes()[string.len() / 2];
            sum = sum
                .wrapping_mul(31)
                .wrapping_add(string.len() as u64 ^ u64::from(byte));
            if (word >> 61).is_multiple_of(4) {
                kept[random.below(STRINGS)] = string;
            }
        }
        kept.iter()
            .fold(sum, |sum, string| sum.wrapping_add(string.len() as u64))
    })
}

/// A block that grows and shrinks. Up to its present size, the last word of each smaller one of
/// `SIZES` holds the mark of that size.
struct Growing {
    block: Block,
    /// Into `SIZES`.
    step: usize,
    tag: u64,
}

impl Growing {
    fn new(tag: u64) -> Self {
        let block = Block::alloc(layout_of(0), mix(tag));
        let mut growing = Self {
            block,
            step: 0,
            tag,
        };
        growing.mark(0);
        growing
    }

    fn last_word(&mut self, step: usize) -> &mut u64 {
        assert!(step <= self.step, "the block is smaller than that");
        let offset = SIZES[step] - size_of::<u64>();
        // SAFETY: 1. the block is of this size or larger, so the word lies within it.
        let mut word = unsafe { self.block.address().byte_add(offset) };
        // SAFETY: 1. within the block, and the sizes are multiples of a word, so aligned.
        // 2. `self` owns the block. 3. `mark` has written it before anybody reads it.
        unsafe { word.as_mut() }
    }

    fn mark(&mut self, step: usize) {
        let mark = mix(self.tag ^ step as u64);
        *self.last_word(step) = mark;
    }

    /// Makes it as large as `step` says; the sum of what is found in the part that was kept.
    fn change(&mut self, step: usize) -> u64 {
        let (from, to) = (self.step, step);
        // SAFETY: 1. `self` owns the block and keeps the new handle. 2. it is as large as `step` says.
        self.block = unsafe { self.block.realloc(layout_of(from), layout_of(to)) };
        self.step = to;
        for larger in from + 1..=to {
            self.mark(larger);
        }
        let last = *self.last_word(from.min(to));
        // SAFETY: 1. `self` owns the block.
        unsafe { self.block.word() }.wrapping_mul(31) ^ last
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        // SAFETY: 1. its owner ends here. 2. it is as large as `step` says.
        unsafe { self.block.free(layout_of(self.step)) };
    }
}

fn layout_of(step: usize) -> BlockLayout {
    BlockLayout::new(SIZES[step])
}

/// Random ones of 64 blocks grow a step by `realloc`, or now and then shrink to a random step.
pub(crate) fn realloc(meter: &Meter) -> Reading {
    let mut blocks: Vec<Growing> = (0..GROWING as u64)
        .map(|tag| Growing::new(tag << 32))
        .collect();
    let mut random = Random::new(13);
    meter.run(100_000, 1, |rounds| {
        let mut sum = 0_u64;
        for _ in 0..rounds {
            let block = &mut blocks[random.below(GROWING)];
            let next = block.step + 1;
            let step = if next == SIZES.len() || random.below(16) == 0 {
                random.below(next)
            } else {
                next
            };
            sum = sum.wrapping_mul(31).wrapping_add(block.change(step));
        }
        sum
    })
}

/// Vectors of 4 to 128 `u32`, mostly short, each pushed from empty; the oldest of 256 is dropped.
pub(crate) fn small(meter: &Meter) -> Reading {
    let mut random = Random::new(4);
    // a fourth of the bytes of the usual skewed sizes
    let lengths: Vec<usize> = (0..LENGTHS)
        .map(|_| skewed_layout(&mut random))
        .map(|layout: BlockLayout| layout.size() / size_of::<u32>())
        .collect();
    let mut kept: Vec<Vec<u32>> = vec![Vec::new(); KEPT];
    let mut made = 0_usize;
    meter.run(400_000, 1, |rounds| {
        let mut sum = 0_u64;
        for _ in 0..rounds {
            let mut vector = Vec::new();
            for element in 0..lengths[made % LENGTHS] as u32 {
                vector.push(element ^ made as u32);
            }
            let oldest = &mut kept[made % KEPT];
            sum = sum.wrapping_add(oldest.last().copied().unwrap_or(0).into());
            *oldest = vector;
            made += 1;
        }
        sum
    })
}
