//! s_vec, s_calloc: few blocks, all of them long.

use std::hint::black_box;

use super::super::block::{Block, BlockLayout};
use super::super::mapped::MappedArray;
use super::trial::{Done, Trial};
use super::watch::Watch;

/// About what all vectors hold together, between so few of them and so many.
const VECTORS_BYTES: usize = 3 << 29;
const VECTORS: (usize, usize) = (8, 24);

/// Bytes of a zeroed block.
const ZEROED: usize = 1_500_000;
/// Of the heap, so much is live.
const SHARE: usize = 64;
/// All zeroed blocks together have at least this, and at least twice the heap's size.
const ZEROED_BYTES: usize = 2 << 30;

/// A call is a push, of which few call the allocator: what counts is the whole.
pub(super) fn vector<W: Watch>(trial: &mut Trial<W>) -> Result<(), String> {
    let words = (trial.bytes / size_of::<u64>()) as u64;
    let vectors = (VECTORS_BYTES / trial.bytes).clamp(VECTORS.0, VECTORS.1);
    for _ in 0..trial.repeats(vectors) {
        trial.timed(|watch| {
            let mut vector = Vec::new();
            for word in 0..words {
                if vector.len() == vector.capacity() {
                    watch.time(|| vector.reserve(1));
                }
                vector.push(word);
            }
            let sum = black_box(&vector).iter().step_by(512).sum();
            watch.time(|| drop(vector));
            Ok(Done { calls: words, sum })
        })?;
    }
    Ok(())
}

/// A call allocates or frees; between the two all of the block is written.
pub(super) fn zeroed<W: Watch>(trial: &mut Trial<W>) -> Result<(), String> {
    let layout = BlockLayout::new(ZEROED);
    let live = (trial.bytes / SHARE / ZEROED).max(1);
    let total = trial.repeats(ZEROED_BYTES.max(2 * trial.bytes) / ZEROED);
    let mut blocks = MappedArray::<Option<Block>>::new(live)?;
    trial.timed(|watch| {
        let mut sum = 0_u64;
        // The last ones only free.
        for number in 0..total + live {
            let slot = &mut blocks[number % live];
            if let Some(block) = slot.take() {
                // SAFETY: 1. live: it was in its slot.
                sum = sum.wrapping_mul(31).wrapping_add(unsafe { block.word() });
                // SAFETY: 1. out of its slot. 2. all have this layout.
                watch.time(|| unsafe { block.free(layout) });
            }
            if number < total {
                let block = watch.time(|| Block::alloc_zeroed(layout));
                // SAFETY: 1. live, 2. of this layout, 3. ours alone. 4. written: zeros.
                let bytes = unsafe { block.bytes(layout) };
                if bytes[0] != 0 || bytes[ZEROED / 2] != 0 || bytes[ZEROED - 1] != 0 {
                    return Err("a zeroed block is not zero".to_owned());
                }
                // SAFETY: 1. live. 2. of this layout.
                unsafe { block.fill(layout, number as u8) };
                *slot = Some(block);
            }
        }
        Ok(Done {
            calls: 2 * total as u64,
            sum,
        })
    })
}
