//! Whose a part of a heap is.
#![forbid(unsafe_code)]

use crate::os;
use crate::sync::{GuardedU32, GuardedU64, Link, same};
use crate::thread_cache::ThreadCache;

/// The thread that has this cache in its `life`th life, or nobody. All zero is nobody. Guarded by the lock of the heap.
pub(crate) struct Owner {
    cache: Link<ThreadCache>,
    life: GuardedU64,
    /// The process whose thread it is.
    generation: GuardedU32,
}

impl Owner {
    /// Whether it is the thread of this cache.
    pub(crate) fn is(&self, own: &ThreadCache) -> bool {
        same(self.cache.get(), own) && self.life.get() == own.life()
    }

    /// Whether its thread is gone, or nobody is.
    pub(crate) fn is_gone(&self) -> bool {
        let cache = self.cache.get();
        cache.is_none_or(|cache| cache.life() != self.life.get())
    }

    /// It is the thread of this cache from here on, which asks.
    pub(crate) fn set(&self, own: &'static ThreadCache) {
        // In a child of a fork in between it is nobody.
        self.leave();
        self.life.set(own.life());
        self.generation.set(os::fork_generation().number());
        self.cache.set(Some(own));
    }

    /// It is nobody from here on.
    pub(crate) fn leave(&self) {
        self.cache.set(None);
    }

    /// Whether it is one of this process, or the last was.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.generation.get() == os::fork_generation().number()
    }

    /// Whether it, or one that had the cache since, vanished in a fork, so perhaps in the midst of a step.
    pub(crate) fn has_vanished(&self) -> bool {
        let cache = self.cache.get();
        cache.is_some_and(|cache| ThreadCache::vanished(cache.life(), self.life.get()))
    }
}
