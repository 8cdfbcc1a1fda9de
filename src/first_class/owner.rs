//! Whose a part of a heap is.

use core::ptr::{self, NonNull};

use crate::os;
use crate::sync::{AtomicPtr, AtomicU64, GuardedU32, Ordering};
use crate::thread_cache::ThreadCache;

/// The thread that has this cache for its `life`th time, or nobody. Caches are never unmapped. All zero is nobody. Written under the lock
/// of the heap.
pub(super) struct Owner {
    cache: AtomicPtr<ThreadCache>,
    life: AtomicU64,
    /// The process whose thread it is.
    generation: GuardedU32,
}

impl Owner {
    /// Whether it is the thread of this cache, which asks.
    pub(super) fn is(&self, own: &ThreadCache) -> bool {
        // ORDERING: only this thread has written itself here; another's number, however old, differs.
        ptr::eq(self.cache.load(Ordering::Relaxed), own)
            && self.life.load(Ordering::Relaxed) == own.life()
    }

    /// Whether its thread is gone, or nobody is. Under the heap's lock.
    pub(super) fn is_gone(&self) -> bool {
        // ORDERING: guarded by the heap's lock.
        let Some(cache) = NonNull::new(self.cache.load(Ordering::Relaxed)) else {
            return true;
        };
        // SAFETY: 1. a cache, which is never unmapped.
        let cache = unsafe { cache.as_ref() };
        self.life.load(Ordering::Relaxed) != cache.life()
    }

    /// Under the heap's lock, by the thread of this cache.
    pub(super) fn set(&self, own: &ThreadCache) {
        // ORDERING: guarded by the heap's lock; `is` reads it without, see there. Nobody in between.
        self.cache.store(ptr::null_mut(), Ordering::Relaxed);
        self.life.store(own.life(), Ordering::Relaxed);
        self.generation.set(os::fork_generation().number());
        self.cache
            .store(ptr::from_ref(own).cast_mut(), Ordering::Relaxed);
    }

    /// Whether it is one of this process, or nobody is.
    pub(super) fn is_of_this_process(&self) -> bool {
        self.generation.get() == os::fork_generation().number()
    }

    /// It is nobody from here on. Under the heap's lock.
    pub(super) fn leave(&self) {
        // ORDERING: guarded by the heap's lock.
        self.cache.store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// Whether it, or one that had the cache since, vanished in a fork, so perhaps in the midst of a step. Under the
    /// heap's lock.
    pub(super) fn has_vanished(&self) -> bool {
        // ORDERING: guarded by the heap's lock.
        let cache = NonNull::new(self.cache.load(Ordering::Relaxed));
        let vanished = |life: u64| life >> 32;
        cache.is_some_and(|cache| {
            // SAFETY: 1. a cache, which is never unmapped.
            let now = unsafe { cache.as_ref() }.life();
            vanished(now) != vanished(self.life.load(Ordering::Relaxed))
        })
    }
}
