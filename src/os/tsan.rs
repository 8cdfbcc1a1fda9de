//! What the thread sanitizer cannot see: it knows nothing of system calls that change memory.
//!
//! Nor does it know fences and `membarrier`. That costs no false report: what they order is atomic, and
//! races of atomics are none. That a purge comes after the last write to a block that lies in a
//! magazine, it sees by the release in `push`.

use core::ffi::c_void;
use core::ptr::NonNull;

unsafe extern "C" {
    /// Part of the sanitizer's runtime.
    safe fn __tsan_write_range(start: *mut c_void, length: usize);
}

/// The kernel is about to write zeros to the range, which nobody may be using.
pub(super) fn will_be_written(base: NonNull<u8>, length: usize) {
    __tsan_write_range(base.as_ptr().cast(), length);
}
