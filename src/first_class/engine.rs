//! The engine, as a heap knows it: blocks by their layouts.

use core::ptr::NonNull;

use super::wanted::Refused;
use crate::arena::Zeroed;
use crate::cache;
use crate::config::Config;
use crate::reclaim;
use crate::threads;

/// The options of a program that has no allocator of ours, whose first call to the engine is by a heap.
pub(crate) static CONFIG: Config = Config::new();

/// A block of the engine, by its layout.
pub(super) fn block(size: usize, align: usize, wanted: Zeroed) -> Result<NonNull<u8>, Refused> {
    let found = match wanted {
        Zeroed::No => cache::alloc::<true>(size, align, &CONFIG),
        Zeroed::Yes => cache::alloc_zeroed::<true>(size, align, &CONFIG),
    };
    NonNull::new(found).ok_or(Refused::NoMemory)
}

/// Gives a block of the engine back.
///
/// # Safety
/// 1. It is live and of this layout.
/// 2. Nobody uses it any more.
pub(super) unsafe fn give_back(block: NonNull<u8>, size: usize, align: usize) {
    // SAFETY: 1. and 2. our own.
    unsafe { cache::free(block, size, align, &CONFIG) };
}

/// Changes the size of a block of the engine, in place or by moving it.
///
/// # Safety
/// 1. It is live and of this layout, and `new` is not 0.
/// 2. On success nobody uses the old block any more.
pub(super) unsafe fn resize(
    block: NonNull<u8>,
    size: usize,
    align: usize,
    new: usize,
) -> Option<NonNull<u8>> {
    // SAFETY: 1. and 2. our own.
    NonNull::new(unsafe { cache::realloc_slow(block, size, align, new, &CONFIG) })
}

/// What `attempt` gives, or gives once all that nobody uses went back to the kernel, as for blocks of the engine.
pub(super) fn or_reclaim<T>(attempt: impl Fn() -> Option<T>) -> Result<T, Refused> {
    // A pool's locks are not the engine's alone: in a child nothing of it is whole before this.
    threads::begin(&CONFIG);
    let found = reclaim::or_reclaim(attempt);
    found
        .unwrap_or_else(|wrong| wrong.report())
        .ok_or(Refused::NoMemory)
}
