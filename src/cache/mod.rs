//! The two fast paths. A table leads from the size to the class's magazine (`size_map`), the thread's words to
//! its cache (`thread_cache::tls`); `alloc` pops the newest block, `free` pushes one (`thread_cache::magazine`):
//!
//! ```text
//! alloc: offset = TABLE[size - 1 | align - 1]          free: the same
//!        magazine = alloc word + offset                      magazine = free word + offset
//!        block = magazine.head; null? slow path              magazine.top == magazine.end? slow path
//!        magazine.head = *magazine.top                       *(magazine.top + 1) = magazine.head
//!        magazine.top -= 1                                   magazine.top += 1; magazine.head = block
//! ```
//!
//! What they fall back to, each file naming only those behind it: `by_address` (the layout is not known), `realloc`,
//! `slow` (which way a call takes in this process), `hardened` (with safeguards or sampling), `plain` (without),
//! `resize` (what both ways of a `realloc` do), `refill` and `flush` (between a magazine and the bitmaps), `tick`
//! (what every slow path begins with).

mod by_address;
mod flush;
mod hardened;
mod plain;
mod realloc;
mod refill;
mod resize;
mod slow;
mod tick;
mod weight;

use core::ptr::NonNull;

use crate::arena;
use crate::config::Config;
use crate::size_class::ALIGN_OF_ALL;
use crate::size_map::table_offset;
use crate::thread_cache::{alloc_magazine, free_magazine};

pub(crate) use by_address::{ALIGN, realloc_by_address, usable_size};
pub(crate) use realloc::realloc_slow;
use slow::{alloc_slow, alloc_slow_unaligned, alloc_zeroed_slow, free_slow, free_slow_unaligned};

/// A block that is at hand, or null.
#[inline(always)]
pub(crate) fn at_hand(size: usize, align: usize) -> *mut u8 {
    table_offset(size, align).map_or(core::ptr::null_mut(), |offset| alloc_magazine(offset).pop())
}

/// A block for `size` bytes aligned to `align`, or null. `SIZED`: who frees it knows both.
#[inline(always)]
pub(crate) fn alloc<const SIZED: bool>(size: usize, align: usize, config: &Config) -> *mut u8 {
    let block = at_hand(size, align);
    if !block.is_null() {
        return block;
    }
    weight::of_size(size);
    if SIZED && align <= ALIGN_OF_ALL {
        alloc_slow_unaligned(size, config)
    } else {
        alloc_slow::<SIZED>(size, align, config)
    }
}

/// As [`alloc`], zeroed.
#[inline(always)]
pub(crate) fn alloc_zeroed<const SIZED: bool>(
    size: usize,
    align: usize,
    config: &Config,
) -> *mut u8 {
    if let Some(fresh) = NonNull::new(at_hand(size, align)) {
        // SAFETY: 1. a fresh block of at least `size` bytes.
        unsafe { fresh.write_bytes(0, size) };
        return fresh.as_ptr();
    }
    weight::of_size(size);
    alloc_zeroed_slow::<SIZED>(size, align, config)
}

/// Frees a block that [`alloc`] or [`alloc_zeroed`] gave as `SIZED` for the same `size` and `align`.
///
/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. Nobody uses it any more.
#[inline(always)]
pub(crate) unsafe fn free(block: NonNull<u8>, size: usize, align: usize, config: &Config) {
    if let Some(offset) = table_offset(size, align)
        && free_magazine(offset).push(block)
    {
        return;
    }
    weight::of_size(size);
    if align <= ALIGN_OF_ALL {
        // SAFETY: 1. and 2. our own: no magazine took the block.
        unsafe { free_slow_unaligned(block, size, config) };
    } else {
        // SAFETY: 1. and 2. our own: no magazine took the block.
        unsafe { free_slow(block, size, align, config) };
    }
}

/// Frees a block, or null.
///
/// # Safety
/// 1. The block is null, or live and came from an allocation that did not count on its layout.
/// 2. Nobody uses it any more.
#[inline(always)]
pub(crate) unsafe fn free_by_address(block: *mut u8, config: &Config) {
    // What is no block, as null may be, leads to a magazine without capacity.
    if let Some(offset) = arena::magazine_offset(block.addr())
        && free_magazine(offset).push_any(block)
    {
        return;
    }
    // SAFETY: 1. and 2. our own: no magazine took the block.
    unsafe { by_address::free_slow(block, config) };
}
