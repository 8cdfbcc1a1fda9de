//! What stands behind a block in the hardened mode: a canary, other for each address and size.

use core::ptr::NonNull;

use crate::config::Mode;
use crate::hardening::Hardening;
use crate::random;

type Canary = u64;

/// Bytes behind each block.
#[inline(always)]
pub(super) fn bytes(mode: Mode) -> usize {
    if mode.has(Hardening::CANARIES) {
        size_of::<Canary>()
    } else {
        0
    }
}

/// The first byte is not zero, so that the zero at the end of a C string, one too far, does not pass.
#[inline(always)]
fn canary(address: usize, size: usize) -> Canary {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    random::secret() ^ address as u64 ^ (size as u64).wrapping_mul(SPREAD) | 1
}

/// Writes the canary behind `size` bytes, if there are any in this mode.
///
/// # Safety
/// 1. The block has room for `size` and [`bytes`], and nobody uses what is behind `size`.
#[inline(always)]
pub(super) unsafe fn write(block: NonNull<u8>, size: usize, mode: Mode) {
    if mode.has(Hardening::CANARIES) {
        let value = canary(block.addr().get(), size);
        // SAFETY: 1. the caller's.
        let place = unsafe { block.add(size) };
        // SAFETY: 1. the caller's.
        unsafe { place.cast::<Canary>().write_unaligned(value) };
    }
}

/// Whether the canary behind `size` bytes is as it was written, or there are none in this mode.
///
/// # Safety
/// 1. The block is live and has room for `size` and [`bytes`].
#[inline(always)]
pub(super) unsafe fn is_whole(block: NonNull<u8>, size: usize, mode: Mode) -> bool {
    if !mode.has(Hardening::CANARIES) {
        return true;
    }
    // SAFETY: 1. the caller's.
    let place = unsafe { block.add(size) };
    // SAFETY: 1. the caller's.
    let found = unsafe { place.cast::<Canary>().read_unaligned() };
    found == canary(block.addr().get(), size)
}
