//! Giving back all that can be given back, also under the magazines of threads that sleep.

use core::ptr::NonNull;

use super::quiesce::{HeldOff, countable};
use crate::arena::{self, Age};
use crate::heap::{self, Idle, Wrong};
use crate::large;
use crate::os::{self, Access, PageLen};
use crate::size_class::SizeClass;
use crate::sync::Ordering;
use crate::thread_cache::{LockedCache, ThreadCache, is_gated};
use crate::threads::{self, Part, REGISTRY, parked};

/// Gives back all memory that can be given back; bytes returned to the kernel.
pub(crate) fn purge() -> usize {
    if !threads::is_ready() {
        return 0;
    }
    threads::repair_child(Part::All);
    if !os::is_at_home() {
        // In a child of `vfork` all threads but its own look dead, and nothing may be taken from them.
        return 0;
    }
    purge_all().unwrap_or_else(|wrong| wrong.report())
}

fn purge_all() -> Result<usize, Wrong> {
    let before = arena::given_back();
    if let Some(own) = ThreadCache::own() {
        own.lock().cache().empty_all()?;
    }
    let registry = REGISTRY.lock();
    parked::empty(&registry, Age::Any, usize::MAX)?;
    let held_off = HeldOff::all(&registry)?;
    let idle = held_off.idle_blocks();
    held_off.empty_stocks();
    heap::spares();
    let bytes = heap::all_holes(Idle(idle.addresses())) + large::decay(Age::Any);
    arena::decay(Age::Any);
    arena::unreserve();
    // What became due on the way went without being asked for.
    Ok(bytes + arena::given_back().wrapping_sub(before))
}

impl HeldOff<'_> {
    /// Gives the spans in the threads' stocks to the arena.
    fn empty_stocks(&self) {
        let at_rest = self.caches().filter(|cache| self.is_at_rest(*cache));
        at_rest.for_each(LockedCache::empty_stock);
    }

    /// The blocks in the magazines of the threads, but for the newest of each that is not gated.
    fn idle_blocks(&self) -> Addresses {
        if !self.is_certain {
            return Addresses::none();
        }
        let magazines = self.caches().flat_map(countable);
        let count: usize = magazines.map(|(_, contents)| contents.blocks()).sum();
        if count == 0 {
            return Addresses::none();
        }
        let mut addresses = Addresses::with_capacity(count);
        for cache in self.caches() {
            for class in SizeClass::all() {
                let contents = cache.contents(class);
                let is_whole = is_gated(class) && self.is_at_rest(cache);
                // ORDERING: the slots up to `top` are written, see `Magazine::len_of`.
                let older = contents
                    .older()
                    .iter()
                    .map(|slot| slot.load(Ordering::Relaxed).addr());
                older.for_each(|address| addresses.push(address));
                if is_whole && contents.blocks() > 0 {
                    addresses.push(cache.magazine(class).head().addr());
                }
            }
        }
        addresses.sort();
        addresses
    }
}

/// A list of addresses in a mapping of its own: its length is known only at run time.
struct Addresses {
    base: NonNull<usize>,
    bytes: PageLen,
    length: usize,
}

impl Addresses {
    const fn none() -> Self {
        Self {
            base: NonNull::dangling(),
            bytes: PageLen::NONE,
            length: 0,
        }
    }

    /// Room for `count` addresses; for none without memory.
    fn with_capacity(count: usize) -> Self {
        let room = || {
            let bytes = PageLen::holding(count * size_of::<usize>())?;
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
        if self.length < self.bytes.bytes() / size_of::<usize>() {
            // SAFETY: 1. inside the mapping.
            let place = unsafe { self.base.add(self.length) };
            // SAFETY: 1. inside the mapping, aligned as its base is, and nobody else's: `self` is
            // borrowed.
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
        if self.bytes != PageLen::NONE {
            // SAFETY: 1. mapped by `with_capacity`. What the kernel refuses to unmap is lost.
            let _ = unsafe { os::unmap(self.base.cast(), self.bytes) };
        }
    }
}
