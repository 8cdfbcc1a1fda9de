//! The threads that have a cache, and the caches that no thread has. One lock guards the lists.

use crate::arena::meta;
use crate::config::{self, Background};
use crate::heap::{self, Wrong};
use crate::os::{self, Lock, failpoints};
use crate::sync::{GuardedU8, GuardedUsize, Link, Ordering, OwnLines, same};
use crate::thread_cache::tls::EMPTY;
use crate::thread_cache::{BANK, CacheGuard, LockedCache, STRIDE, ThreadCache, sharers};
use crate::wakeup;

/// The caches by what they are in. Who has a reference to it holds its lock.
pub(crate) struct Registry {
    /// Caches in use, newest first.
    first: Link<ThreadCache>,
    /// Empty caches of threads that are gone.
    unused: Link<ThreadCache>,
    /// Those that have kept their blocks, newest first.
    pub(super) parked: Link<ThreadCache>,
    /// Caches that there are, and how many there may be before their threads are looked after.
    caches: usize,
    patience: usize,
    /// Caches in use of threads that are known to be this process's, not a parent's.
    living: GuardedUsize,
}

pub(crate) static REGISTRY: OwnLines<Lock<Registry>> = OwnLines(Lock::new(Registry {
    first: Link::none(),
    unused: Link::none(),
    parked: Link::none(),
    caches: 0,
    patience: 2 * BANK,
    living: GuardedUsize::new(0),
}));

/// Who purges. Before all other locks.
pub(crate) static PURGES: OwnLines<Lock<()>> = OwnLines(Lock::new(()));

impl Registry {
    /// The caches in use. One may leave while it is looked at.
    pub(crate) fn registered(&self) -> impl Iterator<Item = &'static ThreadCache> + use<> {
        listed(&self.first)
    }

    /// Every cache that a thread has or may get: those in use, the empty ones, the parked ones.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'static ThreadCache> {
        let lists = [&self.first, &self.unused, &self.parked];
        lists.into_iter().flat_map(listed)
    }

    /// The parked caches.
    pub(crate) fn parked(&self) -> impl Iterator<Item = LockedCache<'_>> {
        // SAFETY: 1. no thread has a parked cache, and the registry's lock is held.
        listed(&self.parked).map(|cache| unsafe { cache.assume_locked() })
    }

    /// Inserts a cache among those in use.
    pub(super) fn insert(&self, cache: &'static ThreadCache) {
        let first = self.first.get();
        cache.previous.set(None);
        cache.next.set(first);
        if let Some(first) = first {
            first.previous.set(Some(cache));
        }
        self.first.set(Some(cache));
    }

    /// Removes a cache from those in use.
    pub(super) fn remove(&self, cache: &'static ThreadCache) {
        // First: a child of a fork in between does not find it among those in use.
        #[cfg(feature = "heaps")]
        cache.end_life();
        let (previous, next) = (cache.previous.get(), cache.next.get());
        previous
            .map_or(&self.first, |before| &before.next)
            .set(next);
        if let Some(after) = next {
            after.previous.set(previous);
        }
        sharers::leave(cache.heap.get() as usize);
        if is_of_this_process(cache) {
            self.living.set(self.living.get() - 1);
            if self.living.get() == 1 {
                wakeup::fewer();
            }
        }
    }

    /// Keeps an empty cache for the next thread.
    pub(super) fn recycle(&self, cache: &'static ThreadCache) {
        cache.begin_anew();
        cache.next.set(self.unused.get());
        self.unused.set(Some(cache));
    }

    /// An empty cache for the calling thread, if there is one.
    pub(super) fn reuse(&mut self) -> Result<Option<&'static ThreadCache>, Wrong> {
        if self.unused.get().is_none() {
            self.dissolve_dead()?;
        }
        let cache = self.unused.get();
        if let Some(cache) = cache {
            self.unused.set(cache.next.get());
        }
        Ok(cache)
    }

    /// Takes back the caches of threads that ended without their clean-up: whenever there are twice
    /// as many caches as had a living thread at the last look. So they stay within twice what lives
    /// at once, for one question to the kernel or so for each thread.
    fn dissolve_dead(&mut self) -> Result<(), Wrong> {
        if self.caches < self.patience {
            return Ok(());
        }
        for cache in self.registered() {
            if is_of_this_process(cache) && is_abandoned(cache) && !cache.is_locked() {
                self.dissolve(cache)?;
            }
        }
        let living = sharers::all();
        self.patience = 2 * living.max(BANK);
        Ok(())
    }

    /// Takes back what an abandoned thread left.
    pub(crate) fn dissolve(&self, cache: &'static ThreadCache) -> Result<(), Wrong> {
        let emptied = {
            let gate = cache.lock();
            gate.cache().empty_all()
        };
        self.remove(cache);
        emptied?;
        self.recycle(cache);
        Ok(())
    }

    /// Sends the next call of another thread to the slow path, where it waits for the gate; the thread
    /// was just found not to be abandoned. So it has not ended and its words are there: a thread that
    /// cleans up waits for both locks, which are held. One that registered in the last round of its key
    /// destructors does not clean up, and could end in these few instructions (docs/decisions.md, what is
    /// left out).
    pub(crate) fn divert(&self, cache: LockedCache<'_>) {
        let empty = (&raw const EMPTY).cast::<u8>().cast_mut();
        // ORDERING: guarded by the registry's lock.
        let words = cache.words.load(Ordering::Relaxed);
        // SAFETY: 1. the words of a thread that has not ended, see above.
        let words = unsafe { &*words };
        words.lead_to(empty);
    }

    /// Notes the calling thread, whose cache this is. It was not noted before.
    pub(super) fn belong_here(&self, cache: &ThreadCache) {
        cache.thread.set(os::thread_id());
        cache.generation.set(os::fork_generation().number());
        self.living.set(self.living.get() + 1);
        if self.living.get() == 2 && config::background() != Background::Off {
            wakeup::more();
        }
    }
}

/// More caches, on pages of their own, so that far parts share none with near ones.
pub(super) fn new_bank() -> Option<()> {
    let length = (BANK - 1) * STRIDE + size_of::<ThreadCache>();
    let bank = meta::alloc_pages(length)?;
    let mut registry = REGISTRY.lock();
    registry.caches += BANK;
    for index in 0..BANK {
        // SAFETY: 1. inside the bank, see its length.
        let place = unsafe { crate::ptr::advance::<ThreadCache>(bank, index * STRIDE) };
        // SAFETY: 1. zeroed metadata, aligned, never freed; all zero is a cache without blocks.
        // What it overlaps with its neighbours is its gap.
        registry.recycle(unsafe { place.as_ref() });
    }
    Some(())
}

/// The caches of a list of the registry. One may leave while it is looked at.
fn listed(first: &Link<ThreadCache>) -> impl Iterator<Item = &'static ThreadCache> + use<> {
    let mut next = first.get();
    core::iter::from_fn(move || {
        let cache = next?;
        next = cache.next.get();
        Some(cache)
    })
}

/// Whether the thread ended without its clean-up, as one does whose first call to the allocator
/// comes in the last round of its key destructors.
pub(crate) fn is_abandoned(cache: &ThreadCache) -> bool {
    !os::is_alive(cache.thread.get())
}

/// Whether the cache is known to be that of a thread of this process.
pub(crate) fn is_of_this_process(cache: &ThreadCache) -> bool {
    cache.generation.get() == os::fork_generation().number()
}

/// The gate of a registered cache, for who holds the registry's lock; in a forked child a thread that is
/// gone may have it.
pub(crate) fn lock_registered(cache: &'static ThreadCache, _: &Registry) -> CacheGuard {
    if !is_of_this_process(cache) {
        cache.break_gate();
    }
    cache.lock()
}

/// 1 from when a forked child finds the lock held until it has repaired what that guards.
static BROKEN: GuardedU8 = GuardedU8::new(0);

/// In a forked child: the lists of caches can be changed.
#[must_use]
pub(super) struct Whole(());

/// In a forked child: breaks the lock of a thread that is gone. Who had it may have held gates of others;
/// else each thread that is gone held its own at most, which is seen to with its cache. Each list is
/// whole by its `next` links, which are the truth; the other links and the threads of each heap follow
/// them.
///
/// # Safety
/// 1. This is the only thread inside the allocator, and it holds no lock.
pub(crate) unsafe fn break_locks(_: heap::recover::Whole) -> Whole {
    if REGISTRY.is_locked() || PURGES.is_locked() {
        // Before the locks are broken: a child of this child finds them free.
        BROKEN.set(1);
    }
    PURGES.break_inherited();
    REGISTRY.break_inherited();
    let registry = REGISTRY.lock();
    // The one that there is, is noted when it comes by.
    registry.living.set(0);
    if BROKEN.get() == 0 {
        return Whole(());
    }
    // A thread that was entering or leaving may have set one link of two.
    sharers::forget();
    let mut previous = None;
    for cache in registry.registered() {
        failpoints::count_step();
        cache.break_gate();
        // Who purged may be gone.
        cache.was_seen.set(0);
        cache.previous.set(previous);
        sharers::join(cache.heap.get() as usize);
        previous = Some(cache);
    }
    BROKEN.set(0);
    Whole(())
}

/// Whether this cache belongs to the calling thread.
pub(crate) fn is_own(cache: &'static ThreadCache) -> bool {
    same(ThreadCache::own(), cache)
}
