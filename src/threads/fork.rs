//! A forked child has one thread and the memory of all. Before its first slow path goes on, locks
//! that other threads held are broken and what they guarded is rebuilt. The blocks in the magazines
//! of those threads are taken back when the thread that forked comes by: a thread that the child has
//! started cannot tell its cache from theirs.

use super::registry::{self, REGISTRY, Registry};
use super::{key, parked};
use crate::arena::{self, meta};
use crate::config;
use crate::heap;
use crate::large;
use crate::os;
use crate::sample;
use crate::size_class::SizeClass;
use crate::sync::{GuardedU32, Slot};
use crate::thread_cache::{ThreadCache, is_gated};
use crate::wakeup;

/// The generation in which caches of threads that are gone were last taken back; the first has none.
static ADOPTED: GuardedU32 = GuardedU32::new(1);

/// Runs once in a child, before any other thread of it enters a slow path.
pub(crate) fn recover() {
    // In the order in which one may need the other: metadata, chunks, slabs, threads.
    // SAFETY: 1. `os::after_fork` lets one thread through, which holds no lock: it is called at the
    // beginning of slow paths, and by a thread that is about to take its first lock.
    unsafe { meta::recover() };
    // SAFETY: 1. the only thread, and it holds no lock: see the first note.
    unsafe { arena::recover() };
    // SAFETY: 1. the only thread, and it holds no lock: see the first note.
    unsafe { heap::recover::recover() };
    // SAFETY: 1. the only thread, and it holds no lock: see the first note.
    unsafe { large::recover() };
    // SAFETY: 1. the only thread, and it holds no lock: see the first note.
    unsafe { sample::recover() };
    // SAFETY: 1. the only thread, and it holds no lock: see the first note.
    unsafe { registry::break_locks() };
    parked::recover();
    wakeup::end();
    if !key::is_ready() {
        // Who was putting the options in force is gone, and nothing was allocated.
        config::forget();
    }
}

/// On the thread that forked, once in a child: takes back what the others held.
#[inline]
pub(crate) fn adopt_orphans() {
    if ADOPTED.get() != os::fork_generation().number() {
        adopt_orphans_if_first();
    }
}

#[cold]
fn adopt_orphans_if_first() {
    // A thread that registered here is another one: the one that forked comes by here before it
    // does. That is known without asking the kernel at each slow path.
    let is_another = ThreadCache::own().is_some_and(registry::is_of_this_process);
    if !is_another && os::is_first_thread() {
        adopt_orphans_slow();
    }
}

#[cold]
fn adopt_orphans_slow() {
    ADOPTED.set(os::fork_generation().number());
    // Under the lock: who holds threads off must see this one for a stranger or for what it is.
    let registry = REGISTRY.lock();
    if let Some(own) = ThreadCache::own() {
        registry.belong_here(own);
    }
    for cache in registry.registered() {
        if !registry::is_of_this_process(cache) {
            adopt(&registry, cache);
        }
    }
}

/// Takes back the blocks of a thread that is gone. It may have vanished between any two stores: the
/// newest block of each magazine that is not gated may be its user's already and is given up, and
/// so is the magazine that a slow path was at work on, slots and all.
fn adopt(registry: &Registry, cache: &'static ThreadCache) {
    // SAFETY: 1. its thread is gone, and the registry's lock is held.
    let locked = unsafe { cache.assume_locked() };
    if let Some(class) = cache.busy_with() {
        locked.give_up(class);
    }
    for class in SizeClass::all() {
        // This thread may vanish, too, in a child of this child: not a block twice.
        locked.work_on(class);
        heap::recover::adopt(class, locked.contents(class).older());
        // No fast path leads to a gated magazine: outside brief work its newest block is still there.
        let head = cache.magazine(class).head();
        if is_gated(class) && cache.brief.is_over() && !head.is_null() {
            heap::recover::adopt(class, &[Slot::new(head)]);
        }
        locked.forget(class);
    }
    locked.end_work();
    locked.empty_stock();
    locked.adopt_quarantine();
    cache.capacity.set(0);
    registry.remove(cache);
    registry.recycle(cache);
}
