//! The bytes that a block with a given id must hold. They do not depend on its address, so they
//! stay right when `realloc` moves it.

use core::iter::once;
use core::mem::MaybeUninit;
use core::ops::Range;

/// Blocks up to this size are filled and checked byte by byte.
const WHOLE: usize = 4096;

/// In larger ones, this much at either end ...
const EDGE: usize = 512;

/// ... and one word every so often. Not a power of two, so that it wanders through the pages.
const STRIDE: usize = 1000;

/// Bytes of one pattern word.
const WORD: usize = size_of::<u64>();

// Every sample begins on a word boundary of the pattern.
const _: () = assert!(EDGE.is_multiple_of(WORD) && STRIDE.is_multiple_of(WORD));
const _: () = assert!(WHOLE >= 2 * EDGE + WORD);

/// The parts of a block of `size` bytes that carry the pattern, in ascending order.
pub(crate) fn samples(size: usize) -> impl Iterator<Item = Range<usize>> {
    let (head, tail) = if size <= WHOLE {
        (size, size)
    } else {
        (EDGE, (size - EDGE) / WORD * WORD)
    };
    let between = (head..tail.saturating_sub(WORD)).step_by(STRIDE);
    once(0..head)
        .chain(between.map(|at| at..at + WORD))
        .chain(once(tail..size))
}

/// Writes the pattern of `id` to the samples of a block.
pub(crate) fn fill(block: &mut [MaybeUninit<u8>], id: u64) {
    for sample in samples(block.len()) {
        let start = sample.start;
        for (index, bytes) in block[sample].chunks_mut(WORD).enumerate() {
            for (byte, value) in bytes.iter_mut().zip(word(id, start + index * WORD)) {
                byte.write(value);
            }
        }
    }
}

/// The first byte that differs from the pattern: its offset, the byte expected and the byte found.
/// `bytes` is a sample that begins at offset `start`.
pub(crate) fn mismatch(bytes: &[u8], start: usize, id: u64) -> Option<(usize, u8, u8)> {
    for (index, found) in bytes.chunks(WORD).enumerate() {
        let at = start + index * WORD;
        let expected = word(id, at);
        if found != &expected[..found.len()] {
            let wrong = found
                .iter()
                .zip(expected)
                .position(|(found, expected)| *found != expected)?;
            return Some((at + wrong, expected[wrong], found[wrong]));
        }
    }
    None
}

/// The pattern at offset `at`, a multiple of the word size.
fn word(id: u64, at: usize) -> [u8; WORD] {
    let mixed = id ^ (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).to_le_bytes()
}
