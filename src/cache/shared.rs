//! The fast paths as `Flagstone` has them: inlined for sizes that the compiler knows, and one function for all sites
//! whose size it does not know. Under link-time optimisation a program has thousands of those (`docs/paths.md`,
//! what is inlined).
//!
//! Stable Rust cannot ask whether a value is a constant. But LLVM never inlines a call that would leave it with
//! another call of the same function. So each function here calls itself for sizes that no layout has. Where the size
//! is a constant, that branch is gone before the inliner weighs the function; elsewhere it stays, and with it the
//! function. It is a compare in the slow half. Taken, it would end the process before the call; behind the call it does
//! not return, as the fast half would keep registers on the stack for it.

use core::ptr::{self, NonNull};

use super::slow::{
    alloc_slow, alloc_slow_unaligned, alloc_zeroed_slow, free_slow, free_slow_unaligned, no_return,
    no_size,
};
use crate::config::Config;
use crate::size_map::{MagazineOffset, offset_of_size, table_offset};
use crate::thread_cache::{alloc_magazine, free_magazine};

/// Up to this alignment the class follows from the size alone.
pub(super) const FREE_ALIGN: usize = crate::size_class::ALIGN_OF_ALL;

/// Whether no layout is so long.
#[inline(always)]
const fn is_no_size(size: usize) -> bool {
    size > isize::MAX as usize
}

/// [`super::alloc`] for an alignment of at most [`FREE_ALIGN`].
#[inline]
pub(super) fn alloc(size: usize, config: &Config) -> *mut u8 {
    let block = pop(offset_of_size(size));
    if !block.is_null() {
        return block;
    }
    if is_no_size(size) {
        no_size();
        alloc(size.rotate_left(1), config);
        no_return();
    }
    alloc_slow_unaligned(size, config)
}

/// [`super::alloc`] for any alignment.
#[inline]
pub(super) fn alloc_aligned(size: usize, align: usize, config: &Config) -> *mut u8 {
    let block = pop(table_offset(size, align));
    if !block.is_null() {
        return block;
    }
    if is_no_size(size) {
        no_size();
        alloc_aligned(size.rotate_left(1), align, config);
        no_return();
    }
    alloc_slow::<true>(size, align, config)
}

/// [`alloc`], zeroed.
#[inline]
pub(super) fn alloc_zeroed(size: usize, config: &Config) -> *mut u8 {
    if let Some(fresh) = NonNull::new(pop(offset_of_size(size))) {
        return zeroed(fresh, size);
    }
    if is_no_size(size) {
        no_size();
        alloc_zeroed(size.rotate_left(1), config);
        no_return();
    }
    alloc_zeroed_slow::<true>(size, FREE_ALIGN, config)
}

/// [`alloc_aligned`], zeroed.
#[inline]
pub(super) fn alloc_zeroed_aligned(size: usize, align: usize, config: &Config) -> *mut u8 {
    if let Some(fresh) = NonNull::new(pop(table_offset(size, align))) {
        return zeroed(fresh, size);
    }
    if is_no_size(size) {
        no_size();
        alloc_zeroed_aligned(size.rotate_left(1), align, config);
        no_return();
    }
    alloc_zeroed_slow::<true>(size, align, config)
}

#[inline(always)]
fn zeroed(fresh: NonNull<u8>, size: usize) -> *mut u8 {
    // SAFETY: 1. a fresh block of at least `size` bytes.
    unsafe { fresh.write_bytes(0, size) };
    fresh.as_ptr()
}

#[inline(always)]
fn pop(offset: Option<MagazineOffset>) -> *mut u8 {
    offset.map_or(ptr::null_mut(), |offset| alloc_magazine(offset).pop())
}

/// [`super::free`] for an alignment of at most [`FREE_ALIGN`].
///
/// # Safety
/// 1. and 2. as for [`super::free`].
#[inline]
pub(super) unsafe fn free(block: NonNull<u8>, size: usize, config: &Config) {
    if push(offset_of_size(size), block) {
        return;
    }
    if is_no_size(size) {
        no_size();
        // SAFETY: 1. and 2. not reached.
        unsafe { free(block, size.rotate_left(1), config) };
        no_return();
    }
    // SAFETY: 1. and 2. our own: no magazine took the block.
    unsafe { free_slow_unaligned(block, size, config) };
}

/// [`super::free`] for any alignment.
///
/// # Safety
/// 1. and 2. as for [`super::free`].
#[inline]
pub(super) unsafe fn free_aligned(block: NonNull<u8>, size: usize, align: usize, config: &Config) {
    if push(table_offset(size, align), block) {
        return;
    }
    if is_no_size(size) {
        no_size();
        // SAFETY: 1. and 2. not reached.
        unsafe { free_aligned(block, size.rotate_left(1), align, config) };
        no_return();
    }
    // SAFETY: 1. and 2. our own: no magazine took the block.
    unsafe { free_slow(block, size, align, config) };
}

#[inline(always)]
fn push(offset: Option<MagazineOffset>, block: NonNull<u8>) -> bool {
    offset.is_some_and(|offset| free_magazine(offset).push(block))
}
