//! What is done to all threads, or asked of all: who the others are, how they are diverted, who takes all gates.

use crate::heap::Wrong;
use crate::size_class::SizeClass;
use crate::thread_cache::{CacheGuard, Contents, LockedCache, ThreadCache};
use crate::threads::{
    REGISTRY, Registry, is_abandoned, is_of_this_process, is_own, lock_registered,
};

/// The caches of the other threads of this process. Those of a parent's threads are left alone until
/// the thread that forked takes them over: their words may lie in memory that is used again.
pub(super) fn others(registry: &Registry) -> impl Iterator<Item = &'static ThreadCache> + use<> {
    let all = registry.registered();
    all.filter(|cache| !is_own(cache) && is_of_this_process(cache))
}

/// Sends the next call of each other thread to the slow path, where it is seen ([`ticks`]), were it only for the next
/// block in a magazine.
pub(super) fn divert_all() -> Result<(), Wrong> {
    let registry = REGISTRY.lock();
    others(&registry).try_for_each(|cache| diverted(&registry, cache).map(drop))
}

/// The gate of a thread that was diverted; `None` if it is gone, and its cache dissolved.
pub(super) fn diverted(
    registry: &Registry,
    cache: &'static ThreadCache,
) -> Result<Option<CacheGuard>, Wrong> {
    let gate = cache.lock();
    if is_abandoned(cache) {
        drop(gate);
        return registry.dissolve(cache).map(|()| None);
    }
    registry.divert(gate.cache());
    Ok(Some(gate))
}

/// Slow paths that the threads have taken, modulo 2^64: less when one ends.
pub(crate) fn ticks() -> u64 {
    let registry = REGISTRY.lock();
    // OVERFLOW: as said.
    registry
        .registered()
        .fold(0, |sum, cache| sum.wrapping_add(cache.ticks.get()))
}

/// The gates of all registered caches, the caller's too: while it lives, no block moves between a
/// magazine and the bitmaps, and magazines and bitmaps can be counted one after the other.
pub(super) struct Gates<'a>(&'a Registry);

impl<'a> Gates<'a> {
    /// Locks them until it is dropped.
    pub(super) fn all(registry: &'a Registry) -> Self {
        for cache in registry.registered() {
            // Let go by `drop`, which walks the same registry.
            lock_registered(cache, registry).keep_locked();
        }
        Self(registry)
    }

    /// All registered caches.
    pub(super) fn caches(&self) -> impl Iterator<Item = LockedCache<'_>> {
        // SAFETY: 1. kept locked by `all`, and not let go before `self` is dropped.
        self.0
            .registered()
            .map(|cache| unsafe { cache.assume_locked() })
    }
}

impl Drop for Gates<'_> {
    fn drop(&mut self) {
        for cache in self.0.registered() {
            // SAFETY: 1. kept locked by `all`, and the registry has not changed since.
            unsafe { cache.unlock() };
        }
    }
}

/// What the magazines of a cache hold that are whole: in a forked child one of a thread that is
/// gone may not be.
pub(super) fn countable<'a>(
    cache: LockedCache<'a>,
) -> impl Iterator<Item = (SizeClass, Contents<'a>)> {
    let torn = cache.busy_with().filter(|_| !is_of_this_process(&cache));
    let whole = SizeClass::all().filter(move |class| Some(*class) != torn);
    whole.map(move |class| (class, cache.contents(class)))
}
