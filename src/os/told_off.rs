//! Memory that is memory, and cannot be told to be anything else: the same names as in `told.rs`.
#![forbid(unsafe_code)]

use core::ffi::c_int;
use core::ptr::NonNull;

use super::PageLen;

pub(super) fn advise(_: NonNull<u8>, _: PageLen, _: c_int) -> Result<(), c_int> {
    Err(libc::EINVAL)
}

pub(super) fn set_node(_: NonNull<u8>, _: PageLen, _: Option<u32>) -> Result<(), c_int> {
    Err(libc::EINVAL)
}

pub(crate) fn map_gigantic(_: usize) -> Option<(NonNull<u8>, PageLen)> {
    None
}
