//! The careful way's `realloc`.

use core::ptr::{self, NonNull};

use super::careful::{cache_at_hand, expect, is_sampled, prepared, request};
use super::{Config, behind, helper, realloc as plain};
use crate::config::{self, Mode};
use crate::large;
use crate::os;
use crate::sample;
use crate::size_class::Request;
use crate::spots::table_class;
use crate::units::ADDRESS_BITS;

/// [`super::realloc_rest`].
///
/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. On success nobody uses the old block any more.
pub(super) unsafe fn realloc(
    block: NonNull<u8>,
    size: usize,
    align: usize,
    new: usize,
    config: &Config,
) -> *mut u8 {
    let mode = config::mode();
    if mode.is_decided()
        && !is_sampled(block, mode)
        && cache_at_hand().is_real()
        && let Some(before) = table_class(size.wrapping_add(behind::bytes(mode)), align)
        && let Some(after) = table_class(new.wrapping_add(behind::bytes(mode)), align)
    {
        // SAFETY: 1. the caller's.
        unsafe { expect(block, size, Request::Block(before), mode) };
        if before == after {
            // SAFETY: 1. the class serves `new` and what stands behind.
            unsafe { behind::write(block, new, mode) };
            return block.as_ptr();
        }
        // SAFETY: 1. and 2. the caller's.
        return unsafe { plain::realloc_by_copy::<true>(block, size, align, new, config) };
    }
    // SAFETY: 1. and 2. the caller's.
    unsafe { realloc_long(block, size, align, new, config) }
}

/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. On success nobody uses the old block any more.
#[inline(never)]
unsafe fn realloc_long(
    block: NonNull<u8>,
    size: usize,
    align: usize,
    new: usize,
    config: &Config,
) -> *mut u8 {
    if prepared(config).is_none() {
        return ptr::null_mut();
    }
    let mode = config::mode();
    if !mode.is_careful() {
        // SAFETY: 1. and 2. the caller's.
        return unsafe { plain::realloc_plain(block, size, align, new, config) };
    }
    if is_sampled(block, mode) {
        sample::expect(block, size);
    } else {
        let before = request(size, align, mode);
        // SAFETY: 1. the caller's.
        unsafe { expect(block, size, before, mode) };
        let stays = before == request(new, align, mode);
        // SAFETY: 1. and 2. the caller's.
        if stays && let Some(moved) = unsafe { resize(block, before, align, new, mode) } {
            // SAFETY: 1. what serves `new` has room for what stands behind.
            unsafe { behind::write(moved, new, mode) };
            return moved.as_ptr();
        }
    }
    // SAFETY: 1. and 2. the caller's.
    unsafe { plain::realloc_by_copy::<true>(block, size, align, new, config) }
}

/// Changes the length of a block without a copy.
///
/// # Safety
/// 1. The block is live, and `request` served it.
/// 2. On success nobody uses the old block any more.
pub(super) unsafe fn resize(
    block: NonNull<u8>,
    request: Request,
    align: usize,
    new: usize,
    mode: Mode,
) -> Option<NonNull<u8>> {
    if let Request::Block(_) = request {
        return Some(block);
    }
    if align > os::page_size() || new >> ADDRESS_BITS != 0 {
        return None;
    }
    let length = new + behind::bytes(mode);
    // SAFETY: 1. the caller's 2.
    let moved = unsafe { large::resize(block, usize::MAX, length) };
    helper::notice();
    moved
}
