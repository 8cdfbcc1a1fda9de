//! Address arithmetic that keeps provenance: the one place where an offset becomes a pointer.

use core::ptr::NonNull;

/// `base` moved forward by `bytes`.
///
/// # Safety
/// 1. `base` and the result lie in one allocation, or at its end.
pub(crate) const unsafe fn advance<T>(base: NonNull<u8>, bytes: usize) -> NonNull<T> {
    // SAFETY: 1. both ends lie in one allocation, so the distance is no more than a pointer may
    // move.
    unsafe { base.add(bytes) }.cast()
}
