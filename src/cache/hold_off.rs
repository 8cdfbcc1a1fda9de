//! What concerns all threads at once: purge, statistics, verification.
//!
//! A purge cannot touch the magazines of running threads, and does not have to: it holds every
//! thread off and purges the pages *under* the blocks that lie in their magazines, which are free.
//! Holding off means: take the thread's gate, divert its hot word, have the kernel run a barrier on
//! every processor. From then on a thread can end at most the one operation it was in, which hands
//! out at most the newest block of one magazine; its next one waits at the gate. So the newest block
//! of each magazine is spared, and that is all that a sleeping thread pins. Magazines of long blocks
//! are gated: no fast path leads to them, so that they pin nothing.

use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use super::care::Care;
use super::slow::is_gated;
use super::thread::{self, REGISTRY, is_own};
use super::{SizeClass, ThreadCache, parked};
use crate::arena::{self, Age, meta};
use crate::error::Violation;
use crate::heap::{self, Idle, Wrong};
use crate::large;
use crate::os::{self, Access};
use crate::sample;
use crate::stats::Stats;
use crate::sync::Ordering;
use crate::units::round_up;

/// The caches in the registry. Its lock is held.
fn registered() -> impl Iterator<Item = &'static ThreadCache> {
    ThreadCache::listed(&REGISTRY.first)
}

/// The caches of the other threads of this process. Those of a parent's threads are left alone until
/// the thread that forked takes them over: their words may lie in memory that is used again.
fn others() -> impl Iterator<Item = &'static ThreadCache> {
    registered().filter(|cache| !is_own(cache) && cache.is_of_this_process())
}

/// Gives back all memory that can be given back; bytes returned to the kernel.
pub(crate) fn purge() -> usize {
    if !thread::is_ready() {
        return 0;
    }
    thread::repair_child();
    purge_all().unwrap_or_else(|wrong| wrong.report())
}

fn purge_all() -> Result<usize, Wrong> {
    let before = arena::given_back();
    if let Some(own) = ThreadCache::own() {
        let _held = own.gate.lock();
        own.empty_all()?;
    }
    let _held = REGISTRY.lock.lock();
    parked::empty(Age::Any, usize::MAX)?;
    let threads = HeldOff::all()?;
    let idle = threads.idle_blocks();
    heap::spares();
    let bytes = heap::all_holes(Idle(idle.addresses())) + large::decay(Age::Any);
    arena::decay(Age::Any);
    arena::unreserve();
    // What became due on the way went without being asked for.
    Ok(bytes + arena::given_back().wrapping_sub(before))
}

/// Slow paths that the threads have taken, modulo 2^64: less when one ends.
pub(super) fn ticks() -> u64 {
    let _held = REGISTRY.lock.lock();
    // OVERFLOW: as said.
    registered().fold(0, |sum, cache| sum.wrapping_add(cache.ticks.get()))
}

/// Every registered thread but the caller held off. Holding it proves that no other thread takes a
/// block out of its magazines, except perhaps the newest of one.
struct HeldOff {
    /// The kernel ran the barrier; without it only gated magazines are known to be at rest.
    is_certain: bool,
}

impl HeldOff {
    /// The registry's lock is held, and stays so.
    fn all() -> Result<Self, Wrong> {
        let mut dissolved = Ok(());
        for cache in others() {
            // Let go by `drop`, which walks the same registry.
            let gate = ManuallyDrop::new(cache.gate.lock());
            if cache.is_abandoned() {
                drop(ManuallyDrop::into_inner(gate));
                dissolved = dissolved.and(cache.dissolve());
                continue;
            }
            cache.divert();
        }
        let threads = Self {
            is_certain: os::process_barrier(),
        };
        dissolved.map(|()| threads)
    }

    /// The blocks in the magazines of the threads, but for the newest of each that is not gated.
    fn idle_blocks(&self) -> Addresses {
        let count: usize = others().map(ThreadCache::count).sum();
        if count == 0 {
            return Addresses::none();
        }
        let mut addresses = Addresses::with_capacity(count);
        for cache in others() {
            for class in SizeClass::all() {
                let (slots, blocks) = cache.contents(class);
                let is_gated = is_gated(class);
                if !is_gated && !self.is_certain {
                    continue;
                }
                let older = slots.get(2..=blocks).unwrap_or_default();
                // ORDERING: the slots up to `top` are written, see `Magazine::len_of`.
                let older = older.iter().map(|slot| slot.load(Ordering::Relaxed).addr());
                older.for_each(|address| addresses.push(address));
                if is_gated && blocks > 0 {
                    addresses.push(cache.magazine(class).head().addr());
                }
            }
        }
        addresses.sort();
        addresses
    }
}

impl Drop for HeldOff {
    fn drop(&mut self) {
        for cache in others() {
            // SAFETY: 1. locked by `all`, and the registry has not changed since.
            unsafe { cache.gate.force_unlock() };
        }
    }
}

impl ThreadCache {
    /// Blocks in all magazines.
    fn count(&'static self) -> usize {
        self.countable().map(|class| self.contents(class).1).sum()
    }

    /// The classes whose magazines are whole: in a forked child one of a thread that is gone may not be.
    fn countable(&'static self) -> impl Iterator<Item = SizeClass> {
        let torn = self.busy_with().filter(|_| !self.is_of_this_process());
        SizeClass::all().filter(move |class| Some(*class) != torn)
    }

    /// Checks every magazine (ALGORITHM.md, I2).
    fn verify(&'static self) -> Result<(), Violation> {
        for class in self.countable() {
            let (slots, blocks) = self.contents(class);
            if blocks >= slots.len().max(1) {
                let address = core::ptr::from_ref(self).addr();
                let invariant = "I2: a magazine holds at most what its slots hold";
                return Err(Violation { invariant, address });
            }
        }
        Ok(())
    }

    /// Bytes of blocks in all magazines. The gate is held.
    fn cached_bytes(&'static self) -> usize {
        let in_magazines = |class: SizeClass| self.contents(class).1 * class.size();
        let waiting = self.care.get().map_or(0, Care::bytes);
        self.countable().map(in_magazines).sum::<usize>() + waiting
    }
}

/// A list of addresses in a mapping of its own: its length is known only at run time.
struct Addresses {
    base: NonNull<usize>,
    bytes: usize,
    length: usize,
}

impl Addresses {
    const fn none() -> Self {
        Self {
            base: NonNull::dangling(),
            bytes: 0,
            length: 0,
        }
    }

    /// Room for `count` addresses; for none without memory.
    fn with_capacity(count: usize) -> Self {
        let room = || {
            let bytes = round_up(count * size_of::<usize>(), os::page_size())?;
            let base = os::map(bytes, os::page_size(), Access::Committed)?.cast();
            Some(Self {
                base,
                bytes,
                length: 0,
            })
        };
        room().unwrap_or(Self::none())
    }

    /// Adds an address if there is room; one operation per thread may have added a block since
    /// they were counted.
    fn push(&mut self, address: usize) {
        if self.length < self.bytes / size_of::<usize>() {
            // SAFETY: 1. inside the mapping.
            let place = unsafe { self.base.add(self.length) };
            // SAFETY: 1. as above, and aligned.
            unsafe { place.write(address) };
            self.length += 1;
        }
    }

    fn addresses(&self) -> &[usize] {
        // SAFETY: 1. `push` wrote this many.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), self.length) }
    }

    fn sort(&mut self) {
        // SAFETY: 1. `push` wrote this many.
        let all = unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), self.length) };
        all.sort_unstable();
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: 1. mapped by `with_capacity`. What the kernel refuses to unmap is lost.
            let _ = unsafe { os::unmap(self.base.cast(), self.bytes) };
        }
    }
}

/// The gates of all registered caches, the caller's too: while it lives, no block moves between a
/// magazine and the bitmaps, and magazines and bitmaps can be counted one after the other.
struct Gates;

impl Gates {
    /// The registry's lock is held, and stays so.
    fn all() -> Self {
        for cache in registered() {
            // Let go by `drop`, which walks the same registry.
            let _gate = ManuallyDrop::new(cache.gate.lock());
        }
        Self
    }
}

impl Drop for Gates {
    fn drop(&mut self) {
        for cache in registered() {
            // SAFETY: 1. locked by `all`, and the registry has not changed since.
            unsafe { cache.gate.force_unlock() };
        }
    }
}

/// What the allocator holds.
pub(crate) fn stats() -> Stats {
    if !thread::is_ready() {
        return Stats::default();
    }
    thread::repair_child();
    let (used, cached) = {
        let _held = REGISTRY.lock.lock();
        let _gates = Gates::all();
        let all = registered().chain(parked::all());
        let cached: usize = all.map(ThreadCache::cached_bytes).sum();
        (heap::used_bytes(), cached)
    };
    let (mapped, mapped_resident) = large::committed_and_resident();
    let sampled = sample::live();
    Stats {
        live: (used + large::live()).saturating_sub(cached) + sampled,
        cached,
        committed: arena::committed() + mapped + sampled,
        resident: arena::resident() + mapped_resident + sampled,
        metadata: meta::resident(),
    }
}

/// Checks every layer.
pub(crate) fn verify() -> Result<(), Violation> {
    if !thread::is_ready() {
        return Ok(());
    }
    thread::repair_child();
    arena::verify()?;
    large::verify()?;
    heap::verify()?;
    let _held = REGISTRY.lock.lock();
    registered().try_for_each(|cache| {
        let _held = cache.gate.lock();
        cache.verify()
    })?;
    // Nobody else gets at these while the registry is locked.
    parked::all().try_for_each(ThreadCache::verify)
}
