//! The threads that have a cache, and the caches that no thread has. One lock guards the lists.

use crate::arena::meta;
use crate::heap::Wrong;
use crate::os::{self, Lock};
use crate::sync::{GuardedUsize, Link, Ordering, same};
use crate::thread_cache::tls::EMPTY;
use crate::thread_cache::{BANK, STRIDE, ThreadCache, sharers};

/// The threads that have a cache.
pub(crate) struct Registry {
    pub(crate) lock: Lock<()>,
    /// Caches in use, newest first.
    pub(crate) first: Link<ThreadCache>,
    /// Empty caches of threads that are gone.
    pub(super) unused: Link<ThreadCache>,
    /// Those that have kept their blocks, newest first.
    pub(crate) parked: Link<ThreadCache>,
    /// Caches that there are, and how many there may be before their threads are looked after.
    caches: GuardedUsize,
    patience: GuardedUsize,
}

pub(crate) static REGISTRY: Registry = Registry {
    lock: Lock::new(()),
    first: Link::none(),
    unused: Link::none(),
    parked: Link::none(),
    caches: GuardedUsize::new(0),
    patience: GuardedUsize::new(2 * BANK),
};

/// Takes back the caches of threads that ended without their clean-up: whenever there are twice as many caches as had
/// a living thread at the last look. So they stay within twice what lives at once, for one question to the kernel
/// or so for each thread. The registry's lock is held.
pub(super) fn dissolve_dead() -> Result<(), Wrong> {
    if REGISTRY.caches.get() < REGISTRY.patience.get() {
        return Ok(());
    }
    for cache in ThreadCache::listed(&REGISTRY.first) {
        if cache.is_of_this_process() && cache.is_abandoned() && !cache.gate.is_locked() {
            cache.dissolve()?;
        }
    }
    let living = sharers::all();
    REGISTRY.patience.set(2 * living.max(BANK));
    Ok(())
}

/// More caches, on pages of their own, so that far parts share none with near ones.
pub(super) fn new_bank() -> Option<()> {
    let length = (BANK - 1) * STRIDE + size_of::<ThreadCache>();
    let bank = meta::alloc_pages(length)?;
    let _held = REGISTRY.lock.lock();
    REGISTRY.caches.set(REGISTRY.caches.get() + BANK);
    for index in 0..BANK {
        // SAFETY: 1. inside the bank, see its length.
        let place = unsafe { crate::ptr::advance::<ThreadCache>(bank, index * STRIDE) };
        // SAFETY: 1. zeroed metadata, aligned, never freed; all zero is a cache without blocks. What
        // it overlaps with its neighbours is its gap.
        unsafe { place.as_ref() }.recycle();
    }
    Some(())
}

impl ThreadCache {
    /// The caches of a list of the registry, whose lock is held. One may leave while it is looked at.
    pub(crate) fn listed(first: &Link<Self>) -> impl Iterator<Item = &'static Self> {
        let mut next = first.get();
        core::iter::from_fn(move || {
            let cache = next?;
            next = cache.next.get();
            Some(cache)
        })
    }

    /// Enters the registry. Its lock is held.
    pub(super) fn link(&'static self) {
        let first = REGISTRY.first.get();
        self.previous.set(None);
        self.next.set(first);
        if let Some(first) = first {
            first.previous.set(Some(self));
        }
        REGISTRY.first.set(Some(self));
    }

    /// Leaves the registry. Its lock is held.
    pub(crate) fn unlink(&'static self) {
        let (previous, next) = (self.previous.get(), self.next.get());
        previous
            .map_or(&REGISTRY.first, |before| &before.next)
            .set(next);
        if let Some(after) = next {
            after.previous.set(previous);
        }
        sharers::leave(self.heap.get() as usize);
    }

    /// Waits for the next thread. The registry's lock is held, the cache is empty.
    pub(crate) fn recycle(&'static self) {
        self.begin_anew();
        self.next.set(REGISTRY.unused.get());
        REGISTRY.unused.set(Some(self));
    }

    /// Whether the thread ended without its clean-up, as one does whose first call to the allocator
    /// comes in the last round of its key destructors.
    pub(crate) fn is_abandoned(&self) -> bool {
        !os::is_alive(self.thread.get())
    }

    /// Takes back what an abandoned thread left. The registry's lock is held.
    pub(crate) fn dissolve(&'static self) -> Result<(), Wrong> {
        let emptied = {
            let _held = self.gate.lock();
            self.empty_all()
        };
        self.unlink();
        emptied?;
        self.recycle();
        Ok(())
    }

    /// Sends the thread's next call to the slow path. The registry's lock and the gate are held, and the
    /// thread was just found not to be abandoned. So it has not ended and its words are there: a thread
    /// that cleans up waits for both locks. One that registered in the last round of its key destructors
    /// does not clean up, and could end in these few instructions (ALGORITHM.md, what is left out).
    pub(crate) fn divert(&self) {
        let empty = (&raw const EMPTY).cast::<u8>().cast_mut();
        // ORDERING: guarded by the registry's lock.
        let words = self.words.load(Ordering::Relaxed);
        // SAFETY: 1. the words of a thread that has not ended, see above.
        let words = unsafe { &*words };
        words.lead_to(empty);
    }

    /// Notes the calling thread, whose cache this is. The registry's lock is held.
    pub(crate) fn belong_here(&self) {
        self.thread.set(os::thread_id());
        self.generation.set(os::fork_generation().number());
    }

    /// Whether the cache is known to be that of a thread of this process.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.generation.get() == os::fork_generation().number()
    }
}

/// In a forked child: the registry as the only thread left finds it.
///
/// # Safety
/// 1. This is the only thread inside the allocator, and it holds no lock.
pub(crate) unsafe fn break_locks() {
    REGISTRY.lock.break_inherited();
    // A thread that was entering or leaving may have set one link of two: `next` is the truth.
    sharers::forget();
    let mut previous = None;
    let mut next = REGISTRY.first.get();
    while let Some(cache) = next {
        cache.gate.break_inherited();
        cache.previous.set(previous);
        sharers::join(cache.heap.get() as usize);
        previous = Some(cache);
        next = cache.next.get();
    }
}

/// Whether this cache belongs to the calling thread.
pub(crate) fn is_own(cache: &'static ThreadCache) -> bool {
    same(ThreadCache::own(), cache)
}
