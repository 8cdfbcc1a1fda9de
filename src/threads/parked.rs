//! Caches of threads that have ended, parked with their blocks for the next thread: one that is started for each
//! connection need not fetch what the one before it has just given back.

use super::registry::{self, REGISTRY, Registry};
use crate::arena::Age;
use crate::config;
use crate::heap::{self, Wrong};
use crate::size_class::SizeClass;
use crate::sync::{AtomicUsize, Ordering};
use crate::thread_cache::{LockedCache, SHARES, ThreadCache};
use crate::units::LINE;

/// Caches parked at a time, for each heap: as many as a processor's threads may leave at about the same time.
const PARKED: usize = 2;

/// Places taken: by caches in the list, and by those on their way to it.
static PLACES: AtomicUsize = AtomicUsize::new(0);

fn acquire_place() -> bool {
    // ORDERING: a count, nothing is published through it; here and below.
    let is_free = PLACES.fetch_add(1, Ordering::Relaxed) < PARKED * heap::count();
    if !is_free {
        release_place();
    }
    is_free
}

fn release_place() {
    PLACES.fetch_sub(1, Ordering::Relaxed);
}

/// Empties parked caches, `most` of them: of all, or of those that were parked at the last look.
/// One that holds a wrong block is lost.
pub(crate) fn empty(registry: &Registry, age: Age, most: usize) -> Result<(), Wrong> {
    let (mut link, mut count) = (&registry.parked, 0);
    while let Some(cache) = link.get() {
        let was_seen = cache.see();
        if (was_seen || age == Age::Any) && count < most {
            // SAFETY: 1. no thread has a parked cache, and the registry's lock is held.
            let emptied = unsafe { cache.assume_locked() }.empty_all();
            link.set(cache.next.get());
            release_place();
            emptied?;
            registry.recycle(cache);
            count += 1;
        } else {
            link = &cache.next;
        }
    }
    Ok(())
}

/// [`empty`], unless somebody has the registry, who may wait for this thread's gate.
pub(crate) fn try_to_empty(age: Age, most: usize) -> Result<(), Wrong> {
    match REGISTRY.try_lock() {
        Some(registry) => empty(&registry, age, most),
        None => Ok(()),
    }
}

/// In a forked child: a magazine that another thread was emptying at the fork is given up, and the places are
/// counted anew.
pub(super) fn recover(_: registry::Whole) {
    let registry = REGISTRY.lock();
    for cache in registry.parked() {
        if let Some(class) = cache.busy_with() {
            cache.give_up(class);
            // A child of this child does it again unless it is done.
            cache.recount();
            cache.end_work();
        }
    }
    // ORDERING: the child has one thread.
    PLACES.store(registry.parked().count(), Ordering::Relaxed);
}

/// A thread ends: empties its cache, or keeps the blocks and a place for [`park`](Registry::park);
/// whether it keeps them. Those that share cache lines go in any case: what the next thread frees
/// first must not be handed out there (see `goes_alone`).
pub(super) fn empty_or_keep(cache: LockedCache<'_>) -> Result<bool, Wrong> {
    let is_much = || cache.capacity.get() > config::thread_cache() / SHARES;
    if config::mode().is_hardened() || is_much() || !acquire_place() {
        return cache.empty_all().map(|()| false);
    }
    cache.empty_stock();
    let mut shared = SizeClass::all().filter(|class| class.size() < LINE);
    let emptied = shared.try_for_each(|class| {
        cache.work_on(class);
        cache.empty(class)
    });
    cache.end_work();
    emptied.map(|()| true)
}

impl Registry {
    /// Lists a cache that waits for the next thread, with its blocks.
    pub(super) fn park(&self, cache: &'static ThreadCache) {
        cache.begin_anew();
        cache.stir();
        cache.next.set(self.parked.get());
        self.parked.set(Some(cache));
    }

    /// The cache parked last, which waits no more.
    pub(super) fn unpark(&self) -> Option<&'static ThreadCache> {
        let cache = self.parked.get()?;
        self.parked.set(cache.next.get());
        release_place();
        Some(cache)
    }
}
