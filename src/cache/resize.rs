//! What both ways of a `realloc` do, without safeguards and with them: resize in place, or move by a copy.

use core::ptr::{self, NonNull};

use crate::arena::Zeroed;
use crate::config::{self, Config};
use crate::error::Call;
use crate::large;
use crate::os;
use crate::reclaim;
use crate::size_class::{Request, classify};
use crate::size_map::MagazineOffset;
use crate::thread_cache::{alloc_magazine, free_magazine};
use crate::threads;

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
            // SAFETY: 1. nobody uses the block if it is moved: the second item of our own list.
            let resized = unsafe { resize_in_place(block, size, align, new, length, config) };
            if let Some(resized) = resized {
                return resized.as_ptr();
            }
        }
    }
    // SAFETY: 1. and 2. our own: the block is as it was.
    unsafe { realloc_by_copy::<true>(block, size, align, new, config) }
}

/// Moves the first `length` bytes of a block from its magazine's class to another, if a block of
/// that is at hand. What the magazine has no room for goes to `free_slow`.
///
/// # Safety
/// 1. The block is live; `here` leads to its class, `there` to another, and blocks of both have
///    `length` bytes.
/// 2. On success nobody uses the old block any more.
#[inline(always)]
pub(super) unsafe fn move_at_hand(
    block: NonNull<u8>,
    here: MagazineOffset,
    there: MagazineOffset,
    length: usize,
    free_slow: impl FnOnce(NonNull<u8>),
) -> Option<NonNull<u8>> {
    let target = NonNull::new(alloc_magazine(there).pop())?;
    // SAFETY: 1. the target was popped just now; both have `length` bytes, as the first item says.
    unsafe { target.copy_from_nonoverlapping(block, length) };
    if !free_magazine(here).push(block) {
        free_slow(block);
    }
    Some(target)
}

/// Gives a mapping or span another length without a copy of it: where it is if that suits `new`
/// bytes, or as a mapping of `length` bytes, which may be elsewhere. `size` is the length that its
/// user says it has, if he does.
///
/// # Safety
/// 1. The block is live, and nobody uses it any more if another is returned.
#[inline(always)]
pub(super) unsafe fn resize_in_place(
    block: NonNull<u8>,
    size: usize,
    align: usize,
    new: usize,
    length: usize,
    config: &Config,
) -> Option<NonNull<u8>> {
    if large::suits(block, new) {
        return Some(block);
    }
    if align > os::page_size() {
        return None;
    }
    // SAFETY: 1. the block is not used any more if it moves, as the first item says.
    let resized = unsafe { large::resize(block, size, length) }?;
    reclaim::notice(config);
    Some(resized)
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
        // SAFETY: 1. our own: the block is as it was. 2. the contents were moved.
        unsafe { super::free(block, size, align, config) };
    } else {
        // SAFETY: 1. `SIZED` is false for blocks that did not count on their layout. 2. the
        // contents were moved.
        unsafe { super::free_by_address(block.as_ptr(), config) };
    }
    target.as_ptr()
}
