//! Caches that threads have left. A few keep their blocks, for the next thread: one that is started for each
//! connection need not fetch what the one before it has just given back.

use super::policy::SHARES;
use super::thread::REGISTRY;
use super::{NO_CLASS, ThreadCache};
use crate::arena::Age;
use crate::config;
use crate::heap;

/// Caches that keep their blocks, for each heap: as many as a processor's threads may leave at about the same time.
const KEPT: usize = 2;

/// The caches that wait for a thread. The registry's lock is held.
pub(super) fn waiting() -> impl Iterator<Item = &'static ThreadCache> {
    let mut next = REGISTRY.unused.get();
    core::iter::from_fn(move || {
        let cache = next?;
        next = cache.next.get();
        Some(cache)
    })
}

/// Returns the blocks of caches that wait: of all, or of those that wait since before the last look. The registry's
/// lock is held.
pub(super) fn empty(age: Age) {
    let is_due = |cache: &&ThreadCache| {
        let was_seen = cache.was_seen.get() != 0;
        cache.was_seen.set(1);
        was_seen || age == Age::Any
    };
    // Those that hold blocks are the newest but for a few: no walk along all that ever were.
    waiting()
        .filter(|cache| cache.holds_blocks())
        .take(REGISTRY.kept.get())
        .filter(is_due)
        .for_each(|cache| {
            cache.empty_all();
            REGISTRY.kept.set(REGISTRY.kept.get() - 1);
        });
}

/// [`empty`], unless somebody has the registry, who may wait for this thread's gate.
pub(super) fn try_to_empty(age: Age) {
    if let Some(_held) = REGISTRY.lock.try_lock() {
        empty(age);
    }
}

/// In a forked child: counts anew; what another thread was taking out of a cache at the fork is given up.
pub(super) fn recover() {
    let mut kept = 0;
    for cache in waiting() {
        if let Some(class) = cache.busy_with() {
            cache.give_up(class);
            cache.busy.set(NO_CLASS);
        }
        kept += usize::from(cache.holds_blocks());
    }
    REGISTRY.kept.set(kept);
}

impl ThreadCache {
    /// Whether there may be blocks in a magazine.
    fn holds_blocks(&self) -> bool {
        self.capacity.get() > 0
    }

    /// Its thread ends: returns all blocks, unless they are kept for the next. The gate is held. The number is read
    /// without the lock: about so many will do.
    pub(super) fn leave(&'static self) {
        let is_much = self.capacity.get() > config::thread_cache() / SHARES;
        if is_much || config::mode().is_careful() || REGISTRY.kept.get() >= KEPT * heap::count() {
            self.empty_all();
        }
    }

    /// Waits for the next thread. The registry's lock is held.
    pub(super) fn recycle(&'static self) {
        self.begin_anew();
        self.was_seen.set(0);
        self.next.set(REGISTRY.unused.get());
        REGISTRY.unused.set(Some(self));
        let kept = usize::from(self.holds_blocks());
        REGISTRY.kept.set(REGISTRY.kept.get() + kept);
    }

    /// The cache left last, which waits no more. The registry's lock is held.
    pub(super) fn next_waiting() -> Option<&'static Self> {
        let cache = REGISTRY.unused.get()?;
        REGISTRY.unused.set(cache.next.get());
        let kept = usize::from(cache.holds_blocks());
        REGISTRY.kept.set(REGISTRY.kept.get() - kept);
        Some(cache)
    }
}
