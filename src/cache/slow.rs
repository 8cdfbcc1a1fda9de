//! What the fast paths fall back to: with safeguards or sampling `hardened`, else `plain`. `extern "C"`: a panic, which
//! would be a bug, aborts here instead of unwinding into the program.

use core::ptr::NonNull;

use super::{hardened, plain};
use crate::arena::Zeroed;
use crate::config::{self, Config};
use crate::reclaim;

/// [`super::alloc`], whatever the size and whatever state the thread is in. `SIZED`: who frees the block
/// knows its layout.
#[inline(never)]
pub(crate) extern "C" fn alloc_slow<const SIZED: bool>(
    size: usize,
    align: usize,
    config: &Config,
) -> *mut u8 {
    if !config::mode().is_plain() {
        return hardened::alloc::<SIZED>(size, align, Zeroed::No, config);
    }
    plain::alloc(size, align, config)
}

/// [`super::alloc_zeroed`], what is not a small block at hand.
#[inline(never)]
pub(crate) extern "C" fn alloc_zeroed_slow<const SIZED: bool>(
    size: usize,
    align: usize,
    config: &Config,
) -> *mut u8 {
    if !config::mode().is_plain() {
        return hardened::alloc::<SIZED>(size, align, Zeroed::Yes, config);
    }
    plain::alloc_zeroed(size, align, config)
}

/// [`super::free`], whatever the size and whatever state the thread is in.
///
/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. Nobody uses it any more.
#[inline(never)]
pub(crate) unsafe extern "C" fn free_slow(
    block: NonNull<u8>,
    size: usize,
    align: usize,
    config: &Config,
) {
    if !config::mode().is_plain() {
        // SAFETY: 1. and 2. our own: the call is passed on as it is.
        return unsafe { hardened::free(block, size, align, config) };
    }
    // SAFETY: 1. and 2. our own: the call is passed on as it is.
    unsafe { plain::free(block, size, align, config) };
    reclaim::notice(config);
}
