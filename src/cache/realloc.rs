//! `realloc` of a block whose layout is known.

use core::ptr::NonNull;

use super::{hardened, resize, slow};
use crate::config::{self, Config};
use crate::size_map::table_offset;
use crate::thread_cache::{alloc_magazine, free_magazine};

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
        } else if let Some(target) = NonNull::new(alloc_magazine(there).pop()) {
            // SAFETY: 1. both are live and at least this long, and different.
            unsafe { target.copy_from_nonoverlapping(block, size.min(new)) };
            if !free_magazine(here).push(block) {
                // SAFETY: 1. the caller's. 2. the contents were moved.
                unsafe { slow::free_slow(block, size, align, config) };
            }
            return target.as_ptr();
        }
    }
    // SAFETY: 1. and 2. the caller's.
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
        // SAFETY: 1. and 2. the caller's.
        return unsafe { hardened::realloc(block, size, align, new, config) };
    }
    // SAFETY: 1. and 2. the caller's.
    unsafe { resize::realloc(block, size, align, new, config) }
}
