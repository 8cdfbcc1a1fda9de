//! What the fast paths fall back to: with safeguards or sampling `hardened`, else `plain`. `extern "C"`: a panic, which
//! would be a bug, aborts here instead of unwinding into the program.

use core::ptr::NonNull;

use super::{hardened, plain};
use crate::arena::Zeroed;
use crate::config::{self, Config};
use crate::os;
use crate::size_class::ALIGN_OF_ALL;

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
    unsafe { plain::free(block, size, align, config) }
}

/// [`alloc_slow`] for an alignment that every class has: one argument less at each of a program's sites.
#[cold]
#[inline(never)]
pub(super) extern "C" fn alloc_slow_unaligned(size: usize, config: &Config) -> *mut u8 {
    alloc_slow::<true>(size, ALIGN_OF_ALL, config)
}

/// [`free_slow`] for such an alignment.
///
/// # Safety
/// 1. and 2. as for [`free_slow`].
#[cold]
#[inline(never)]
pub(super) unsafe extern "C" fn free_slow_unaligned(
    block: NonNull<u8>,
    size: usize,
    config: &Config,
) {
    // SAFETY: 1. and 2. our own.
    unsafe { free_slow(block, size, ALIGN_OF_ALL, config) };
}

/// Ends the process: no layout is so long.
#[cold]
#[inline(never)]
pub(super) extern "C" fn no_size() -> ! {
    os::die(format_args!("a block longer than a layout can be"))
}
