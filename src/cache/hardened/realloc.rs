//! `realloc` in a hardened process.

use core::ptr::{self, NonNull};

use super::super::resize as moves;
use super::validate::expect;
use super::{cache_at_hand, canary, is_sampled, prepared, request};
use crate::config::{self, Config, Mode};
use crate::error::Call;
use crate::large;
use crate::os;
use crate::sample;
use crate::size_class::Request;
use crate::size_map::table_class;
use crate::units::ADDRESS_BITS;
use crate::wakeup;

/// [`super::super::realloc_slow`].
///
/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. On success nobody uses the old block any more.
pub(in crate::cache) unsafe fn realloc(
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
        && let Some(before) = table_class(size.wrapping_add(mode.canary_bytes()), align)
        && let Some(after) = table_class(new.wrapping_add(mode.canary_bytes()), align)
    {
        // SAFETY: 1. the table led from the block's own layout to `before`.
        unsafe { expect(block, size, Request::Block(before), Call::Realloc, mode) };
        if before == after {
            // SAFETY: 1. `expect` found room and a whole canary; what is behind `size` is no
            // user's.
            unsafe { canary::erase(block, size, mode) };
            // SAFETY: 1. the class serves `new` and what stands behind.
            unsafe { canary::write(block, new, mode) };
            return block.as_ptr();
        }
        // SAFETY: 1. and 2. our own: the call is passed on as it is.
        return unsafe { moves::realloc_by_copy::<true>(block, size, align, new, config) };
    }
    // SAFETY: 1. and 2. our own: the call is passed on as it is.
    unsafe { realloc_slow(block, size, align, new, config) }
}

/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. On success nobody uses the old block any more.
#[inline(never)]
unsafe fn realloc_slow(
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
    if !mode.is_hardened() {
        // SAFETY: 1. and 2. our own: the process turned out plain, so no canary was written.
        return unsafe { moves::realloc(block, size, align, new, config) };
    }
    if is_sampled(block, mode) {
        sample::expect(block, size, Call::Realloc);
    } else {
        let before = request(size, align, mode);
        // SAFETY: 1. `request` says again what served this layout when the block was allocated.
        unsafe { expect(block, size, before, Call::Realloc, mode) };
        let stays = before == request(new, align, mode);
        // SAFETY: 1. as `expect` found it, canary and all. 2. our own second item.
        if stays && let Some(moved) = unsafe { resize(block, before, align, size, new, mode) } {
            // SAFETY: 1. what serves `new` has room for what stands behind.
            unsafe { canary::write_slow(moved, new, mode) };
            return moved.as_ptr();
        }
    }
    // SAFETY: 1. and 2. our own; `expect` found it so.
    unsafe { moves::realloc_by_copy::<true>(block, size, align, new, config) }
}

/// Changes the length of a block without a copy. On success there is no canary behind it, nor where `old`
/// bytes ended, nor in memory that others are given.
///
/// # Safety
/// 1. The block is live, and `request` served it; behind `old` bytes stands its canary.
/// 2. On success nobody uses the old block any more.
pub(in crate::cache) unsafe fn resize(
    block: NonNull<u8>,
    request: Request,
    align: usize,
    old: usize,
    new: usize,
    mode: Mode,
) -> Option<NonNull<u8>> {
    if !matches!(request, Request::Block(_))
        && (align > os::page_size() || new >> ADDRESS_BITS != 0)
    {
        return None;
    }
    // Before a part of the mapping is cut off, or all of it copied and kept.
    // SAFETY: 1. the block is live and has its canary behind `old` bytes, our own first item.
    unsafe { canary::erase(block, old, mode) };
    if let Request::Block(_) = request {
        return Some(block);
    }
    let length = new + mode.canary_bytes();
    // SAFETY: 1. nobody uses the block once it has moved, our own second item.
    let moved = unsafe { large::resize(block, usize::MAX, length) };
    if moved.is_none() {
        // SAFETY: 1. the block is as it was.
        unsafe { canary::write_slow(block, old, mode) };
    }
    wakeup::notice();
    moved
}
