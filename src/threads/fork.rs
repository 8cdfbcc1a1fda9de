//! A forked child has one thread and the memory of all. Before its first slow path goes on, locks
//! that other threads held are broken and what they guarded is rebuilt. The blocks in the magazines
//! of those threads are taken back once the thread that forked came by: a thread that the child has
//! started cannot tell its cache from theirs before. Each slow path takes a part.

use super::registry::{self, REGISTRY, Registry};
use super::{key, parked};
use crate::arena::{self, meta};
use crate::config;
use crate::heap;
use crate::large;
use crate::os::{self, failpoints};
use crate::sample;
use crate::size_class::SizeClass;
use crate::sync::{GuardedU32, Slot};
use crate::thread_cache::{AT_ONCE, ThreadCache, is_gated};
use crate::wakeup;

/// The generation in which the thread that forked last came by, from when on caches of threads that are
/// gone are known; and the one in which all of them were taken back. The first process has none.
static BEGUN: GuardedU32 = GuardedU32::new(1);
static ADOPTED: GuardedU32 = GuardedU32::new(1);

/// Runs once in a child, before any other thread of it enters a slow path.
pub(crate) fn recover() {
    // In the order in which one may need the other, of which each has the proof: metadata, chunks,
    // slabs, threads.
    // SAFETY: 1. `os::after_fork` lets one thread through, which holds no lock: it is called at the
    // beginning of slow paths, and by a thread that is about to take its first lock.
    let tables = unsafe { meta::recover() };
    // SAFETY: 1. the only thread, and it holds no lock: see the first note.
    let chunks = unsafe { arena::recover(tables) };
    // SAFETY: 1. the only thread, and it holds no lock: see the first note.
    let slabs = unsafe { heap::recover::recover(&chunks) };
    // SAFETY: 1. the only thread, and it holds no lock: see the first note.
    unsafe { large::recover(&chunks) };
    // SAFETY: 1. the only thread, and it holds no lock: see the first note.
    unsafe { sample::recover() };
    // SAFETY: 1. the only thread, and it holds no lock: see the first note.
    let caches = unsafe { registry::break_locks(slabs) };
    parked::recover(caches);
    wakeup::forget();
    if !key::is_ready() {
        // Who was putting the options in force is gone, and nothing was allocated.
        config::forget();
    }
}

/// How much of what threads that are gone have held is taken back at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// What one slow path does beside its own work: as many blocks and magazines as it may move blocks.
    Some,
    /// All, unless somebody has the registry, who may wait for this thread's gate.
    Rest,
    All,
}

/// In a child, once the thread that forked came by: takes back what the others held.
#[inline]
pub(crate) fn adopt_orphans(part: Part) {
    if ADOPTED.get() != os::fork_generation().number() {
        adopt_orphans_slow(part);
    }
}

#[cold]
fn adopt_orphans_slow(part: Part) {
    let generation = os::fork_generation().number();
    let begins = BEGUN.get() != generation;
    if begins {
        // A thread that registered here is another one: the one that forked comes by here before it
        // does. That is known without asking the kernel at each slow path.
        let is_another = ThreadCache::own().is_some_and(registry::is_of_this_process);
        if is_another || !os::is_first_thread() {
            return;
        }
    }
    // Under the lock: who holds threads off must see this one for a stranger or for what it is.
    let registry = if begins || part == Part::All {
        REGISTRY.lock()
    } else if let Some(registry) = REGISTRY.try_lock() {
        registry
    } else {
        // Another slow path goes on.
        return;
    };
    if begins {
        if let Some(own) = ThreadCache::own() {
            registry.belong_here(own);
        }
        BEGUN.set(generation);
    }
    let mut steps = match part {
        Part::Some => AT_ONCE,
        Part::Rest | Part::All => usize::MAX,
    };
    for cache in registry.registered() {
        if registry::is_of_this_process(cache) {
            continue;
        }
        if steps == 0 || !adopt(&registry, cache, &mut steps) {
            return;
        }
    }
    ADOPTED.set(generation);
}

/// Takes back the blocks of a thread that is gone, as many as `steps`, from which it counts down,
/// allow; whether all. It may have vanished between any two stores: the newest block of each magazine
/// that is not gated may be its user's already and is given up, and so is the magazine that a slow
/// path was at work on, slots and all.
fn adopt(registry: &Registry, cache: &'static ThreadCache, steps: &mut usize) -> bool {
    // SAFETY: 1. its thread is gone, and the registry's lock is held.
    let locked = unsafe { cache.assume_locked() };
    if let Some(class) = cache.busy_with() {
        locked.give_up(class);
    }
    for class in SizeClass::all() {
        // This thread may vanish, too, in a child of this child: not a block twice.
        locked.work_on(class);
        let older = locked.contents(class).older();
        let part = &older[..older.len().min(*steps)];
        heap::recover::adopt(class, part);
        if part.len() < older.len() {
            locked.drop_oldest(class, part.len());
            locked.end_work();
            return false;
        }
        *steps = (*steps - part.len()).saturating_sub(1);
        failpoints::count_step();
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
    // Its thread may have been between a magazine and the sum.
    locked.recount();
    cache.break_gate();
    #[cfg(feature = "heaps")]
    cache.note_vanished();
    registry.remove(cache);
    registry.recycle(cache);
    true
}
