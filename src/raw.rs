//! Blocks that are freed by their address alone, as C frees them: what the C ABI (`capi/`) is made of.
//!
//! The same allocator as [`Flagstone`](crate::Flagstone), with the same options from the environment. A free
//! looks up what serves the block, twelve instructions that a free with its `Layout` does not need. Blocks
//! of this module are freed and resized by this module, those of `GlobalAlloc` by that: in a
//! [hardened](crate::Hardening) process both keep their canaries elsewhere.
//!
//! Allocations are [sampled](crate::Config::sample_one_in) only after [`begin`].
//!
//! A shared library that uses this module must be linked with `-z nodelete`: threads run the allocator's
//! clean-up when they end, and this module may be the loader's own allocator, so that it cannot ask the loader
//! to keep the library. With the feature `valgrind`, memcheck is told nothing about these blocks.
//!
//! ```
//! use flagstone::raw;
//!
//! let block = raw::alloc(100, raw::ALIGN);
//! assert!(!block.is_null());
//! // SAFETY: the block is live, and not used after the last call.
//! unsafe {
//!     assert!(raw::usable_size(block) >= 100);
//!     raw::free(block);
//! }
//! ```

use core::ptr::{self, NonNull};

use crate::cache;
use crate::config::{Config, OptionError};
use crate::error::StartError;
use crate::os;
use crate::reclaim;
use crate::sample;
use crate::threads;

static CONFIG: Config = Config::new().for_good();

/// The alignment that a block has if none is asked for, in bytes: fit for every type of C.
pub const ALIGN: usize = cache::ALIGN;

/// No block is longer.
const MOST: usize = isize::MAX as usize;

/// A block of at least `size` bytes aligned to `align`, or null without memory. A block of 0 bytes is one
/// like others.
///
/// # Panics
///
/// In debug builds, if `align` is not a power of two.
#[inline]
#[must_use]
pub fn alloc(size: usize, align: usize) -> *mut u8 {
    debug_assert!(align.is_power_of_two());
    if size > MOST {
        return ptr::null_mut();
    }
    cache::alloc::<false>(size.max(1), align, &CONFIG)
}

/// As [`alloc`], but null, too, if no block is at hand: in front of a long way of one's own, which ends with
/// [`alloc`]. The alignment is not looked at.
#[inline]
#[must_use]
pub fn alloc_at_hand(size: usize, align: usize) -> *mut u8 {
    cache::at_hand(size, align)
}

/// As [`alloc`], and the first `size` bytes are zero.
///
/// # Panics
///
/// In debug builds, if `align` is not a power of two.
#[inline]
#[must_use]
pub fn alloc_zeroed(size: usize, align: usize) -> *mut u8 {
    debug_assert!(align.is_power_of_two());
    if size > MOST {
        return ptr::null_mut();
    }
    cache::alloc_zeroed::<false>(size.max(1), align, &CONFIG)
}

/// Changes the size of a block, in place or by moving its contents to one aligned to [`ALIGN`]; of size 0 to the least.
/// Null, without memory for more, leaves the block as it was.
///
/// # Safety
/// 1. The block is live and came from this module; it is not null.
/// 2. On success nobody uses the old block any more.
#[inline]
pub unsafe fn realloc(block: *mut u8, size: usize) -> *mut u8 {
    let Some(block) = NonNull::new(block).filter(|_| size <= MOST) else {
        return ptr::null_mut();
    };
    // SAFETY: 1. blocks of this module did not count on their layout. 2. our own second item.
    unsafe { cache::realloc_by_address(block, size.max(1), &CONFIG) }
}

/// Writes a message to a file descriptor, as far as it takes it. Where nobody reads any more, no `SIGPIPE` is raised;
/// `errno` stays as it is.
#[doc(hidden)]
pub fn write(file: core::ffi::c_int, message: &[u8]) {
    os::write(file, message);
}

/// Frees a block; null is none. `errno` stays as it is.
///
/// # Safety
/// 1. The block is null, or live and came from this module.
/// 2. Nobody uses it any more.
#[inline]
pub unsafe fn free(block: *mut u8) {
    // SAFETY: 1. blocks of this module did not count on their layout. 2. our own second item.
    unsafe { cache::free_by_address(block, &CONFIG) };
}

/// Bytes of a block that its user may use, at least as many as were asked for; 0 for null.
///
/// # Safety
/// 1. The block is null, or live and came from this module.
#[inline]
#[must_use]
pub unsafe fn usable_size(block: *const u8) -> usize {
    let Some(block) = NonNull::new(block.cast_mut()) else {
        return 0;
    };
    // SAFETY: 1. blocks of this module did not count on their layout.
    unsafe { cache::usable_size(block, &CONFIG) }
}

/// Says that the program's libraries are initialised: allocations may be sampled from now on, whose callers the
/// unwinder is asked for. The process is prepared, if its first call did not do so: the sooner a key for the threads'
/// clean-up is created, the surer the clean-up (docs/threads.md).
pub fn begin() {
    sample::begin();
    threads::begin(&CONFIG);
}

/// Starts the background thread: see [`Flagstone::start_background`](crate::Flagstone::start_background).
///
/// # Errors
///
/// [`StartError`] if the system refuses the thread.
pub fn start_background() -> Result<(), StartError> {
    reclaim::start_background(&CONFIG)
}

/// Changes an option of the running process: `name` and `value` as in the environment ([`Config`]). It counts from the next
/// look at it on: what is kept beyond a smaller bound goes back as it is looked at, or by a purge.
///
/// # Errors
///
/// What is wrong with it; then nothing has changed. Safeguards and sampling are decided at the first call.
pub fn set_option(name: &str, value: &[u8]) -> Result<(), OptionError> {
    threads::set_option(name, value, &CONFIG)
}
