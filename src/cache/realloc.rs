//! `realloc` of a block whose layout is known. Which function does what, in this file and others:
//!
//! | | layout known (`GlobalAlloc`) | by address alone (`raw`) |
//! |---|---|---|
//! | first, from magazine to magazine | [`realloc_slow`] | `by_address::realloc_by_address` |
//! | then, in a plain process | `resize::realloc` | the rest of `realloc_by_address` |
//! | then, in a hardened one | `hardened::realloc` | `by_address::realloc_hardened` |
//!
//! The steps that they share are in `resize`: `move_at_hand`, `resize_in_place`, `realloc_by_copy`;
//! and, for blocks with a canary, in `hardened::resize`. All try them in this order: the same block
//! if its class serves the new size, another length of the same mapping, a new block and a copy.

use core::ptr::NonNull;

use super::{hardened, resize, slow};
use crate::config::{self, Config};
use crate::size_map::table_offset;

/// Changes the size of a block, in place or by moving its contents; null leaves it as it was.
///
/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. On success nobody uses the old block any more.
#[inline(never)]
pub(crate) unsafe extern "C" fn realloc_slow(
    block: NonNull<u8>,
    size: usize,
    align: usize,
    new: usize,
    config: &Config,
) -> *mut u8 {
    if let Some(here) = table_offset(size, align)
        && let Some(there) = table_offset(new, align)
    {
        if here == there {
            if config::mode().is_plain() {
                return block.as_ptr();
            }
        } else {
            // SAFETY: 1. it was live until it was moved, and of this layout by our own first item.
            // 2. it was moved.
            let free_slow = |block| unsafe { slow::free_slow(block, size, align, config) };
            // SAFETY: 1. the offsets are those of the classes that serve the two sizes. 2. who
            // calls us does not use the block after a success.
            let moved =
                unsafe { resize::move_at_hand(block, here, there, size.min(new), free_slow) };
            if let Some(moved) = moved {
                return moved.as_ptr();
            }
        }
    }
    // SAFETY: 1. and 2. our own: nothing was done to the block yet.
    unsafe { realloc_any(block, size, align, new, config) }
}

/// [`realloc_slow`] of long blocks, or where none is at hand.
///
/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. On success nobody uses the old block any more.
#[inline(never)]
unsafe fn realloc_any(
    block: NonNull<u8>,
    size: usize,
    align: usize,
    new: usize,
    config: &Config,
) -> *mut u8 {
    if !config::mode().is_plain() {
        // SAFETY: 1. and 2. our own: the call is passed on as it is.
        return unsafe { hardened::realloc(block, size, align, new, config) };
    }
    // SAFETY: 1. and 2. our own: the call is passed on as it is.
    unsafe { resize::realloc(block, size, align, new, config) }
}
