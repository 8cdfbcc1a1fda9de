//! What both ways of a `realloc` do, without safeguards and with them: resize in place, or move by a copy.

use core::ptr::{self, NonNull};

use crate::arena::Zeroed;
use crate::config::{self, Config};
use crate::error::Call;
use crate::large;
use crate::os;
use crate::size_class::{Request, classify};
use crate::threads;
use crate::wakeup;

/// [`super::realloc_slow`] in a process without safeguards and sampling.
///
/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. On success nobody uses the old block any more.
#[inline(always)]
pub(super) unsafe fn realloc(
    block: NonNull<u8>,
    size: usize,
    align: usize,
    new: usize,
    config: &Config,
) -> *mut u8 {
    let (before, after) = (classify(size, align), classify(new, align));
    if before == after && matches!(before, Request::Block(_)) {
        return block.as_ptr();
    }
    if let Some(used) = long(before, size) {
        // Without memory for its first call a process can have nothing to resize.
        if !threads::prepare(config) {
            return ptr::null_mut();
        }
        // Before the copy, which what went back to the kernel would not survive.
        large::expect_for(block, used, Call::Realloc);
        if let Some(length) = long(after, new) {
            if large::suits(block, new) {
                return block.as_ptr();
            }
            if align <= os::page_size()
                // SAFETY: 1. the caller's 2.
                && let Some(moved) = unsafe { large::resize(block, size, length) }
            {
                wakeup::notice();
                return moved.as_ptr();
            }
        }
    }
    // SAFETY: 1. and 2. the caller's.
    unsafe { realloc_by_copy::<true>(block, size, align, new, config) }
}

/// Bytes of a mapping in the place of what `request` for `size` bytes is served by, if that is longer than a block.
pub(super) fn long(request: Request, size: usize) -> Option<usize> {
    match request {
        Request::Block(_) => None,
        Request::Span(units) => Some(units.bytes()),
        Request::Large => Some(size),
    }
}

/// What grows to more than this is given a mapping in any case, and what is shorter one that is cached.
const LONG: usize = 256 << 10;

/// A mapping for what grew from `size` to `new` bytes and would be a span: what grew may grow on, and a mapping
/// often can where it is.
fn grown(size: usize, align: usize, new: usize, config: &Config) -> Option<NonNull<u8>> {
    if new <= size || config::mode().is_hardened() {
        return None;
    }
    let Request::Span(units) = classify(new, align) else {
        return None;
    };
    if align > os::page_size() || !threads::prepare(config) || config::large_cache() == 0 {
        return None;
    }
    large::alloc_cached(units.bytes()).or_else(|| {
        let fresh = (new > LONG).then(|| large::alloc(units.bytes(), align, Zeroed::No));
        fresh.flatten().map(|(block, _)| block)
    })
}

/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. On success nobody uses the old block any more.
#[inline(always)]
pub(super) unsafe fn realloc_by_copy<const SIZED: bool>(
    block: NonNull<u8>,
    size: usize,
    align: usize,
    new: usize,
    config: &Config,
) -> *mut u8 {
    let target = grown(size, align, new, config)
        .or_else(|| NonNull::new(super::alloc::<SIZED>(new, align, config)));
    let Some(target) = target else {
        return ptr::null_mut();
    };
    // SAFETY: 1. both are live and at least this long, and different.
    unsafe { target.copy_from_nonoverlapping(block, size.min(new)) };
    if SIZED {
        // SAFETY: 1. the caller's. 2. the contents were moved.
        unsafe { super::free(block, size, align, config) };
    } else {
        // SAFETY: 1. the caller's. 2. the contents were moved.
        unsafe { super::free_by_address(block.as_ptr(), config) };
    }
    target.as_ptr()
}
