//! What stands behind a block in the hardened mode: a canary, other for each address and size. Who reads
//! some cannot compute another, and none is left for the next owner of a block to read.

use core::ptr::NonNull;

use static_assertions::const_assert;

use crate::config::Mode;
use crate::hardening::{CANARY, Hardening};
use crate::random;
use crate::units::ADDRESS_BITS;

type Canary = u64;

const_assert!(size_of::<Canary>() == CANARY);

/// The first byte is not zero, so that the zero at the end of a C string, one too far, does not pass.
#[inline(always)]
fn canary(address: usize, size: usize) -> Canary {
    random::keyed(word(address, size)) | 1
}

/// Address and size in one word, another for each block of a class, and for each mapping to 256 MiB: the
/// size's lower bits lie above all addresses, those from 64 KiB on where the alignment leaves zeros.
/// With a word for each, a canary would be a sixth dearer.
#[inline(always)]
const fn word(address: usize, size: usize) -> u64 {
    address as u64 ^ (size as u64).rotate_left(ADDRESS_BITS)
}

/// Writes the canary behind `size` bytes, if there are any in this mode.
///
/// # Safety
/// 1. The block has room for `size` and the canary, and nobody uses what is behind `size`.
#[inline(always)]
pub(in crate::cache) unsafe fn write(block: NonNull<u8>, size: usize, mode: Mode) {
    if mode.has(Hardening::CANARIES) {
        let value = canary(block.addr().get(), size);
        // SAFETY: 1. the block has room for `size` bytes, our own first item.
        let place = unsafe { block.add(size) };
        // SAFETY: 1. the room for the canary begins there, and nobody uses it.
        unsafe { place.cast::<Canary>().write_unaligned(value) };
    }
}

/// [`write`], once for all slower ways.
///
/// # Safety
/// 1. as for [`write`].
#[inline(never)]
pub(in crate::cache) unsafe fn write_slow(block: NonNull<u8>, size: usize, mode: Mode) {
    // SAFETY: 1. our own.
    unsafe { write(block, size, mode) };
}

/// Whether the canary behind `size` bytes is as it was written, or there are none in this mode.
///
/// # Safety
/// 1. The block is live and has room for `size` and the canary.
#[inline(always)]
pub(in crate::cache) unsafe fn is_whole(block: NonNull<u8>, size: usize, mode: Mode) -> bool {
    if !mode.has(Hardening::CANARIES) {
        return true;
    }
    // SAFETY: 1. there is room for `size` and the canary, as our own first item says.
    let found = unsafe { read(block, size) };
    found == canary(block.addr().get(), size)
}

/// As [`is_whole`]; if so, the canary is erased.
///
/// # Safety
/// 1. The block is live and has room for `size` and the canary, and nobody uses it any more.
#[inline(always)]
pub(in crate::cache) unsafe fn check_and_erase(
    block: NonNull<u8>,
    size: usize,
    mode: Mode,
) -> bool {
    if !mode.has(Hardening::CANARIES) {
        return true;
    }
    // SAFETY: 1. there is room for `size` and the canary, as our own first item says.
    let is_whole = unsafe { is_whole(block, size, mode) };
    if is_whole {
        // SAFETY: 1. the same room; nobody uses the block any more.
        unsafe { erase(block, size, mode) };
    }
    is_whole
}

/// Takes the canary behind `size` bytes away, whose block is about to be freed or to end elsewhere. No canary is
/// zero: what was erased is not whole.
///
/// # Safety
/// 1. The block has room for `size` and the canary, and nobody uses what is behind `size`.
#[inline(always)]
pub(in crate::cache) unsafe fn erase(block: NonNull<u8>, size: usize, mode: Mode) {
    if mode.has(Hardening::CANARIES) {
        // SAFETY: 1. the block has room for `size` bytes, our own first item.
        let place = unsafe { block.add(size) };
        // SAFETY: 1. the room for the canary begins there, and nobody uses it.
        unsafe { place.cast::<Canary>().write_unaligned(0) };
    }
}

/// Whether zeros stand where the canary was, as [`erase`] leaves them.
///
/// # Safety
/// 1. The block has room for `size` and the canary.
pub(in crate::cache) unsafe fn is_erased(block: NonNull<u8>, size: usize) -> bool {
    // SAFETY: 1. there is room for `size` and the canary, as our own first item says.
    unsafe { read(block, size) == 0 }
}

/// # Safety
/// 1. The block has room for `size` and the canary.
#[inline(always)]
unsafe fn read(block: NonNull<u8>, size: usize) -> Canary {
    // SAFETY: 1. the block has room for `size` bytes, our own first item.
    let place = unsafe { block.add(size) };
    // SAFETY: 1. the room for the canary begins there; any bits are one.
    unsafe { place.cast::<Canary>().read_unaligned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who can read two canaries, and knows where they stand, is not to know a third. Where a canary was a sum
    /// (exclusive or) of the secret, the address and a multiple of the size, one gave all of them.
    #[test]
    fn canaries_that_are_known_do_not_tell_others() {
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let sum =
            |(address, size): (usize, usize)| address as u64 ^ (size as u64).wrapping_mul(SPREAD);
        let blocks = [0x7f12_3456_7000, 0x7f12_3456_7040, 0x7f12_4456_7008]
            .map(|address| [24, 56, 300_001].map(|size| (address, size)));
        let blocks = blocks.as_flattened();
        for &known in blocks {
            for &other in blocks.iter().filter(|other| **other != known) {
                let [first, second] = [known, other].map(|(address, size)| canary(address, size));
                assert_ne!((first ^ sum(known) ^ sum(other)) | 1, second | 1);
                // Nor is the difference anything like the blocks': about half of the bits differ.
                let differing = (first ^ second).count_ones();
                assert!((10..54).contains(&differing), "{known:?} {other:?}");
            }
        }
    }

    #[test]
    fn each_address_and_size_has_a_word_of_its_own() {
        // The lowest address above 0 of each kind is its alignment.
        for (align, most) in [(8, 256 << 10), (64, (4 << 20) - 1), (4096, (256 << 20) - 1)] {
            let high = (1 << ADDRESS_BITS) - align;
            for address in [0, align, high / 3 / align * align, high] {
                for size in [1, 8, 65_535, 65_536, most / 3, most] {
                    let word = usize::try_from(word(address, size)).expect("64 bits");
                    let (above, below) = (word >> ADDRESS_BITS, word % align);
                    let rest = word % (1 << ADDRESS_BITS) - below;
                    assert_eq!((rest, below << 16 | above), (address, size));
                }
            }
        }
    }
}
