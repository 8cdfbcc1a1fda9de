//! The random choices: what to do next, with which size and alignment.

use core::alloc::Layout;

use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

/// The same numbers for a seed on every machine.
pub(crate) type Random = Xoshiro256PlusPlus;

/// Most blocks are at most this large.
const COMMON_SIZE: usize = 64 << 10;

/// One size in so many may reach `--max-size`.
const LARGE_ONE_IN: u32 = 256;

/// One alignment in so many may reach `RARE_ALIGN_LOG`.
const RARE_ALIGN_ONE_IN: u32 = 4096;

const SMALL_ALIGN_LOG: u32 = 4;
const COMMON_ALIGN_LOG: u32 = 12;
const RARE_ALIGN_LOG: u32 = 21;

/// What a worker does in one step.
pub(crate) enum Step {
    Alloc,
    AllocZeroed,
    Realloc,
    Free,
    HandOver,
    Check,
}

/// A step that drifts towards more blocks if `grow`, else towards fewer.
pub(crate) fn step(random: &mut Random, grow: bool) -> Step {
    let (alloc, free) = if grow { (50, 20) } else { (20, 50) };
    match random.random_range(0..100) {
        n if n < alloc => match n % 4 {
            0 => Step::AllocZeroed,
            _ => Step::Alloc,
        },
        n if n < alloc + free => Step::Free,
        n if n < 82 => Step::Realloc,
        n if n < 95 => Step::HandOver,
        _ => Step::Check,
    }
}

/// A layout for a new block; `None` only if the two do not go together.
pub(crate) fn layout(random: &mut Random, max_size: usize) -> Option<Layout> {
    Layout::from_size_align(size(random, max_size), align(random)).ok()
}

/// Each power of two is as likely as the next: small sizes prevail, as in real programs.
pub(crate) fn size(random: &mut Random, max_size: usize) -> usize {
    let common = COMMON_SIZE.min(max_size);
    let largest = if random.random_ratio(1, LARGE_ONE_IN) {
        max_size
    } else {
        common
    };
    log_uniform(random, largest)
}

/// Where to grow or shrink a block of `old` bytes.
pub(crate) fn new_size(random: &mut Random, old: usize, max_size: usize) -> usize {
    let wanted = match random.random_range(0..8) {
        0..3 => old.saturating_mul(2),
        3..5 => random.random_range(1..=old),
        5 => old.saturating_add(random.random_range(1..=64)),
        _ => size(random, max_size),
    };
    wanted.min(max_size)
}

/// From 1 to `largest`.
pub(crate) fn log_uniform(random: &mut Random, largest: usize) -> usize {
    let low = 1_usize << random.random_range(0..=largest.ilog2());
    random.random_range(low..=largest.min(2 * low - 1))
}

fn align(random: &mut Random) -> usize {
    let most = match random.random_range(0..RARE_ALIGN_ONE_IN) {
        0 => RARE_ALIGN_LOG,
        n if n.is_multiple_of(4) => COMMON_ALIGN_LOG,
        _ => SMALL_ALIGN_LOG,
    };
    1 << random.random_range(0..=most)
}
