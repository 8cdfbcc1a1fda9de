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
use crate::config::{self, Background, Config, OptionError};
use crate::error::StartError;
use crate::os;
use crate::reclaim;
use crate::sample;
use crate::threads;

static CONFIG: Config = Config::new().for_c();

/// The alignment that a block has if none is asked for, in bytes: fit for every type of C.
pub const ALIGN: usize = cache::ALIGN;

/// No block is longer.
const MOST: usize = isize::MAX as usize;

/// A block of at least `size` bytes aligned to `align`, or null without memory. A block of 0 bytes is one
/// like others.
///
/// ```
/// use flagstone::raw;
///
/// let page = raw::alloc(100, 4096);
/// assert!(!page.is_null() && page.addr().is_multiple_of(4096));
/// // SAFETY: the block is live, and not used after this.
/// unsafe { raw::free(page) };
/// ```
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

/// As [`alloc`], but null, too, if the thread's own cache has no block. It stands before a slow
/// path of the caller's, which ends with [`alloc`]. The alignment is not checked.
///
/// ```
/// use flagstone::raw;
///
/// let mut block = raw::alloc_at_hand(100, raw::ALIGN);
/// if block.is_null() {
///     // What is to be done once in a while: count, log, look at limits.
///     block = raw::alloc(100, raw::ALIGN);
/// }
/// # assert!(!block.is_null());
/// // SAFETY: the block is live, and not used after this.
/// unsafe { raw::free(block) };
/// ```
#[inline]
#[must_use]
pub fn alloc_at_hand(size: usize, align: usize) -> *mut u8 {
    cache::at_hand(size, align)
}

/// As [`alloc`], and the first `size` bytes are zero.
///
/// ```
/// use flagstone::raw;
///
/// let block = raw::alloc_zeroed(100, raw::ALIGN);
/// assert!(!block.is_null());
/// // SAFETY: the block is live and has 100 bytes; it is not used after this.
/// unsafe {
///     assert_eq!(block.add(99).read(), 0);
///     raw::free(block);
/// }
/// ```
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

/// Changes the size of a block, in place or by moving its contents to one aligned to [`ALIGN`].
/// Size 0 gives the least block. Null, without memory for more, leaves the block as it was.
///
/// ```
/// use flagstone::raw;
///
/// let block = raw::alloc(16, raw::ALIGN);
/// assert!(!block.is_null());
/// // SAFETY: the block is live and has 16 bytes; the old one is not used after the resize, nor the
/// // new one after the free.
/// unsafe {
///     block.write(7);
///     let longer = raw::realloc(block, 1000);
///     assert!(!longer.is_null());
///     assert_eq!(longer.read(), 7);
///     raw::free(longer);
/// }
/// ```
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

/// Frees a block; null does nothing. `errno` stays as it is.
///
/// ```
/// use flagstone::raw;
///
/// let block = raw::alloc(100, raw::ALIGN);
/// // SAFETY: the block is live or null, and not used after this.
/// unsafe { raw::free(block) };
/// ```
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
/// ```
/// use flagstone::raw;
///
/// let block = raw::alloc(100, raw::ALIGN);
/// assert!(!block.is_null());
/// // SAFETY: the block is live, and not used after the free.
/// unsafe {
///     block.write_bytes(0xff, raw::usable_size(block));
///     raw::free(block);
/// }
/// ```
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

/// Says that the program's libraries are initialised. Allocations may be sampled from now on; the
/// unwinder is asked for their callers. The process is prepared, if its first call did not do so:
/// the sooner a key for the threads' clean-up is created, the surer the clean-up
/// ([`algorithm::threads`](crate::algorithm::threads)).
///
/// With `FLAGSTONE_BACKGROUND=on` it starts the background thread, and says so in a line on standard error if it
/// cannot.
///
/// ```
/// // As the program begins, or from a constructor of a shared library.
/// flagstone::raw::begin();
/// ```
pub fn begin() {
    sample::begin();
    threads::begin(&CONFIG);
    if config::background() == Background::On
        && let Err(error) = start_background()
    {
        os::complain(format_args!("{error}"));
    }
}

/// Starts the background thread: see [`Flagstone::start_background`](crate::Flagstone::start_background).
///
/// ```
/// # fn main() -> Result<(), flagstone::StartError> {
/// flagstone::raw::start_background()?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`StartError`] if the system refuses the thread.
pub fn start_background() -> Result<(), StartError> {
    reclaim::start_background(&CONFIG)
}

/// Changes an option of the running process: `name` and `value` as in the environment ([`Config`]).
/// It counts from the next look at it on. What is kept beyond a smaller bound goes back as it is
/// looked at, or by a purge.
///
/// ```
/// use flagstone::{OptionError, raw};
///
/// # fn main() -> Result<(), OptionError> {
/// raw::set_option("FLAGSTONE_DIRTY_BUDGET", b"16M")?;
/// let refused = raw::set_option("FLAGSTONE_HARDENED", b"1");
/// assert_eq!(refused, Err(OptionError::Decided));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// What is wrong with it; then nothing has changed. Safeguards and sampling are decided at the first call.
pub fn set_option(name: &str, value: &[u8]) -> Result<(), OptionError> {
    threads::set_option(name, value, &CONFIG)
}
