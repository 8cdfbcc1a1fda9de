//! The front of a block, which is zero while it is free. Objects begin with what damages most: pointers to
//! code, lengths, links.
//!
//! Straight loads and stores that overlap: a call of `memset` or `memcmp` costs more than the work.

use core::ptr::NonNull;

use crate::hardening::FRONT;

/// Bytes of a cache line, and of one step.
const STEP: usize = 64;

/// A quarter of a step.
type Part = u128;
const PART: usize = size_of::<Part>();

/// Zeroes the front of a block of `size` bytes.
///
/// # Safety
/// 1. The block is `size` bytes long, at least 16, and nobody uses it.
#[inline(always)]
pub(super) unsafe fn clear(block: NonNull<u8>, size: usize) {
    let length = size.min(FRONT);
    visit(length, |offset| {
        // SAFETY: 1. a part at `offset` ends within `length`, which the block has.
        let part = unsafe { block.add(offset) };
        // SAFETY: 1. inside the block, which nobody uses.
        unsafe { part.cast::<Part>().write_unaligned(0) };
    });
}

/// Whether the front of a block is zero, as far as its user asked for it: `size` bytes.
///
/// # Safety
/// 1. The block is at least 16 bytes long, and at least `size`.
#[inline(always)]
pub(super) unsafe fn is_zero(block: NonNull<u8>, size: usize) -> bool {
    let length = size.min(FRONT);
    let mut bits: Part = 0;
    if length < PART {
        // SAFETY: 1. the block has at least 16 bytes, our own first item.
        let all = unsafe { block.cast::<Part>().read_unaligned() };
        // The bytes of the size: the low ones.
        return all.to_le() & ((1 << (length * 8)) - 1) == 0;
    }
    visit(length, |offset| {
        // SAFETY: 1. a part at `offset` ends within `length`, which the block has.
        let part = unsafe { block.add(offset) };
        // SAFETY: 1. inside the block; any bits are a number.
        bits |= unsafe { part.cast::<Part>().read_unaligned() };
    });
    bits == 0
}

/// Names offsets of parts that cover `length` bytes, from a part to a front, and end there. Some overlap, so
/// that a length is one of two cases: a third of a mixed program's time went into guessing wrong.
#[inline(always)]
fn visit(length: usize, mut part: impl FnMut(usize)) {
    if length <= STEP {
        let last = length - PART;
        part(0);
        part(last.min(PART));
        part(last.saturating_sub(PART));
        part(last);
        return;
    }
    for step in (0..FRONT).step_by(STEP) {
        let start = step.min(length - STEP);
        (0..STEP)
            .step_by(PART)
            .for_each(|inside| part(start + inside));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], size: usize) -> bool {
        assert!(bytes.len() >= size.max(PART));
        // SAFETY: 1. as long as asserted.
        unsafe { is_zero(NonNull::from(bytes).cast(), size) }
    }

    #[test]
    fn every_byte_of_every_front_counts() {
        for size in 1..=400 {
            let mut bytes = [0; 512];
            for offset in 0..size {
                bytes[offset] = 1;
                assert_eq!(check(&bytes, size), offset >= FRONT, "{size} {offset}");
                bytes[offset] = 0;
            }
            // What lies behind does not count.
            bytes[size] = 1;
            assert!(check(&bytes, size));
        }
    }

    #[test]
    fn a_front_is_cleared_and_no_more() {
        for size in PART..=400 {
            let mut bytes = [1_u8; 512];
            // SAFETY: 1. longer than `size`.
            unsafe { clear(NonNull::from(&mut bytes).cast(), size) };
            let cleared = bytes.iter().take_while(|byte| **byte == 0).count();
            assert_eq!(cleared, size.min(FRONT));
        }
    }
}
