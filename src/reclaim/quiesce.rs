//! Holding threads off: what a purge does to all threads at once, and statistics to all gates.
//!
//! A purge cannot touch the magazines of running threads, and does not have to: it holds every
//! thread off and purges the pages *under* the blocks that lie in their magazines, which are free.
//! Holding off means: take the thread's gate, divert its words, have the kernel run a barrier on
//! every processor. From then on a thread can end at most the one operation it was in, which hands
//! out at most the newest block of one magazine; its next one waits at the gate. So the newest block
//! of each magazine is spared, and that is all that a sleeping thread pins. Magazines of long blocks
//! are gated: no fast path leads to them, so that they pin nothing.

use crate::heap::Wrong;
use crate::os;
use crate::size_class::SizeClass;
use crate::thread_cache::{CacheGuard, Contents, LockedCache, ThreadCache};
use crate::threads::{
    REGISTRY, Registry, is_abandoned, is_of_this_process, is_own, lock_registered,
};

/// The caches of the other threads of this process. Those of a parent's threads are left alone until
/// the thread that forked takes them over: their words may lie in memory that is used again.
fn others(registry: &Registry) -> impl Iterator<Item = &'static ThreadCache> + use<> {
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
fn diverted(registry: &Registry, cache: &'static ThreadCache) -> Result<Option<CacheGuard>, Wrong> {
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

/// Every registered thread but the caller held off. Holding it proves that no other thread takes a
/// block out of its magazines, except perhaps the newest of one.
pub(super) struct HeldOff<'a> {
    registry: &'a Registry,
    /// The kernel ran the barrier; without it no thread is known to be at rest.
    pub(super) is_certain: bool,
}

impl<'a> HeldOff<'a> {
    /// Holds them off until it is dropped.
    pub(super) fn all(registry: &'a Registry) -> Result<Self, Wrong> {
        let mut dissolved = Ok(());
        for cache in others(registry) {
            match diverted(registry, cache) {
                // Let go by `drop`, which walks the same registry.
                Ok(Some(gate)) => gate.keep_locked(),
                Ok(None) => {}
                Err(wrong) => dissolved = dissolved.and(Err(wrong)),
            }
        }
        let threads = Self {
            registry,
            is_certain: os::process_barrier(),
        };
        dissolved.map(|()| threads)
    }

    /// Whether the thread of this cache is in no brief work, so that what is gated, and the stock, is ours.
    pub(super) fn is_at_rest(&self, cache: LockedCache<'_>) -> bool {
        self.is_certain && cache.brief.is_over()
    }

    /// The caches of the threads.
    pub(super) fn caches(&self) -> impl Iterator<Item = LockedCache<'_>> {
        // SAFETY: 1. kept locked by `all`, and not let go before `self` is dropped.
        others(self.registry).map(|cache| unsafe { cache.assume_locked() })
    }
}

impl Drop for HeldOff<'_> {
    fn drop(&mut self) {
        for cache in others(self.registry) {
            // SAFETY: 1. kept locked by `all`, and the registry has not changed since.
            unsafe { cache.unlock() };
        }
    }
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
