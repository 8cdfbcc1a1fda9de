//! d_: vectors that grow by `push`.

use std::hint::black_box;

use super::block::BlockLayout;
use super::meter::{Meter, Reading};
use super::random::{Random, skewed_layout};

const BIG: usize = 8 << 20;

/// d_small: vectors kept before they are dropped, and lengths drawn beforehand.
const KEPT: usize = 256;
const LENGTHS: usize = 1024;

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
