//! The feature `valgrind` is off: the same names, no code.
#![forbid(unsafe_code)]

use core::ptr::NonNull;

#[inline(always)]
pub(crate) const fn is_running() -> bool {
    false
}

#[inline(always)]
pub(crate) fn quietly<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[inline(always)]
pub(crate) fn allocating(_: usize, work: impl FnOnce() -> *mut u8) -> *mut u8 {
    work()
}

#[inline(always)]
pub(crate) fn allocating_zeroed(_: usize, work: impl FnOnce() -> *mut u8) -> *mut u8 {
    work()
}

#[inline(always)]
pub(crate) fn freeing(block: NonNull<u8>, work: impl FnOnce(NonNull<u8>)) {
    work(block);
}

#[inline(always)]
pub(crate) const fn fence_off(_: NonNull<u8>, _: usize) {}

#[inline(always)]
pub(crate) const fn hidden<T>(address: NonNull<T>) -> NonNull<T> {
    address
}

#[inline(always)]
pub(crate) const fn shown<T>(address: NonNull<T>) -> NonNull<T> {
    address
}
