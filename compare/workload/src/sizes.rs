//! Sizes of blocks, drawn at random.

use super::held::LEAST;
use super::random::Random;

/// 0 or more, below 1.
fn uniform(random: &mut Random) -> f64 {
    (random.next() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Between two sizes, the density falling with the power 3/2 of the size: most blocks are small,
/// most bytes are in large ones, and the mean is the geometric mean of the two.
#[derive(Clone, Copy)]
pub(crate) struct Falling {
    min: f64,
    /// 1 - sqrt(min / max)
    span: f64,
    mean: f64,
}

impl Falling {
    pub(crate) fn new(min: usize, max: usize) -> Self {
        let (min, max) = (min as f64, max as f64);
        Self {
            min,
            span: 1.0 - (min / max).sqrt(),
            mean: (min * max).sqrt(),
        }
    }

    pub(crate) fn mean(self) -> usize {
        self.mean as usize
    }

    pub(crate) fn draw(self, random: &mut Random) -> usize {
        let root = 1.0 - self.span * uniform(random);
        (self.min / (root * root)) as usize
    }
}

/// A quarter more or less than `center`, evenly spread.
pub(crate) fn around(center: usize, random: &mut Random) -> usize {
    between(center * 3 / 4, center * 5 / 4, random)
}

/// Half of `center` to twice as much, mostly less; `center` on average.
pub(crate) fn about(center: f64, random: &mut Random) -> usize {
    let skewed = uniform(random);
    ((center * (0.5 + 1.5 * skewed * skewed)) as usize).max(LEAST)
}

/// From `min` up to `max`, evenly spread.
pub(crate) fn between(min: usize, max: usize, random: &mut Random) -> usize {
    (min + random.below(max - min + 1)).max(LEAST)
}
