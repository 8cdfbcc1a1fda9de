//! Holding threads off: what a purge does to all threads at once, and statistics to all gates.
//!
//! A purge cannot touch the magazines of running threads, and does not have to: it holds every
//! thread off and purges the pages *under* the blocks that lie in their magazines, which are free.
//! Holding off means: take the thread's gate, divert its words, have the kernel run a barrier on
//! every processor. From then on a thread can end at most the one operation it was in, which hands
//! out at most the newest block of one magazine; its next one waits at the gate. So the newest block
//! of each magazine is spared, and that is all that a sleeping thread pins. Magazines of long blocks
//! are gated: no fast path leads to them, so that they pin nothing.

use core::mem::ManuallyDrop;

use crate::heap::Wrong;
use crate::os;
use crate::size_class::SizeClass;
use crate::thread_cache::ThreadCache;
use crate::threads::{REGISTRY, Registry, is_own};

/// The caches of the other threads of this process. Those of a parent's threads are left alone until
/// the thread that forked takes them over: their words may lie in memory that is used again.
fn others(registry: &Registry) -> impl Iterator<Item = &'static ThreadCache> + use<> {
    let all = registry.registered();
    all.filter(|cache| !is_own(cache) && cache.is_of_this_process())
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
    /// The kernel ran the barrier; without it only gated magazines are known to be at rest.
    pub(super) is_certain: bool,
}

impl<'a> HeldOff<'a> {
    /// Holds them off until it is dropped.
    pub(super) fn all(registry: &'a Registry) -> Result<Self, Wrong> {
        let mut dissolved = Ok(());
        for cache in others(registry) {
            // Let go by `drop`, which walks the same registry.
            let gate = ManuallyDrop::new(cache.gate.lock());
            if cache.is_abandoned() {
                drop(ManuallyDrop::into_inner(gate));
                dissolved = dissolved.and(registry.dissolve(cache));
                continue;
            }
            cache.divert(registry, &gate);
        }
        let threads = Self {
            registry,
            is_certain: os::process_barrier(),
        };
        dissolved.map(|()| threads)
    }

    /// The caches of the threads.
    pub(super) fn others(&self) -> impl Iterator<Item = &'static ThreadCache> + use<> {
        others(self.registry)
    }
}

impl Drop for HeldOff<'_> {
    fn drop(&mut self) {
        for cache in self.others() {
            // SAFETY: 1. locked by `all`, and the registry has not changed since.
            unsafe { cache.gate.force_unlock() };
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
            let _gate = ManuallyDrop::new(cache.gate.lock());
        }
        Self(registry)
    }
}

impl Drop for Gates<'_> {
    fn drop(&mut self) {
        for cache in self.0.registered() {
            // SAFETY: 1. locked by `all`, and the registry has not changed since.
            unsafe { cache.gate.force_unlock() };
        }
    }
}

impl ThreadCache {
    /// The classes whose magazines are whole: in a forked child one of a thread that is gone may not be.
    pub(super) fn countable(&'static self) -> impl Iterator<Item = SizeClass> {
        let torn = self.busy_with().filter(|_| !self.is_of_this_process());
        SizeClass::all().filter(move |class| Some(*class) != torn)
    }
}
