//! One thread's magazines, and what is done to them without looking at other threads: how large they are, how blocks
//! leave them, what waits in quarantine.

mod brief;
mod capacity;
mod contents;
mod locked;
mod magazine;
mod rest;
mod safeguards;
pub(crate) mod sharers;
mod total;

cfg_if::cfg_if! {
    if #[cfg(any(miri, flagstone_portable))] {
        #[path = "tls_portable.rs"]
        pub(crate) mod tls;
    } else {
        #[macro_use]
        mod symbol;
        #[cfg_attr(feature = "dynamic-tls", path = "tls_dynamic.rs")]
        pub(crate) mod tls;
    }
}
mod tls_words;

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use static_assertions::const_assert;

use self::capacity::Record;
use self::tls::EMPTY;
use crate::config;
use crate::large::Stock;
use crate::os::Lock;
use crate::size_class::{CLASSES, SMALL_CLASSES, SizeClass};
use crate::size_map::{self, FAR, MEDIUM_MAX, MagazineOffset};
#[cfg(feature = "heaps")]
use crate::sync::AtomicU64;
use crate::sync::{
    AtomicPtr, GuardedU8, GuardedU16, GuardedU32, GuardedU64, GuardedUsize, Link, Ordering, Slot,
};

pub(crate) use brief::Brief;
pub(crate) use capacity::{AT_ONCE, Move, SHARES};
pub(crate) use contents::Contents;
pub(crate) use locked::{CacheGuard, LockedCache};
pub(crate) use magazine::Magazine;
pub(crate) use rest::Purge;
pub(crate) use safeguards::Safeguards;
pub(crate) use tls_words::{EXITED, REGISTERING, is_marker};

/// One thread's magazines and what goes with them. All zero is a cache without blocks.
///
/// The magazines are the thread's own, and the stock in brief work; everything else is guarded by the gate, which the
/// thread takes on each slow path and others take to hold it off. [`LockedCache`] is the way to what it
/// guards.
///
/// The magazines of small classes lie [`FAR`] bytes from the others, and in the gap lie other
/// threads' caches: pages of the far parts, which most threads never touch, cost nothing.
#[repr(C, align(64))]
pub(crate) struct ThreadCache {
    /// Always without room: where what is no block leads, see [`MagazineOffset::NONE`].
    none: Magazine,
    near: [Magazine; SMALL_CLASSES],
    records: [Record; CLASSES],
    gate: Lock<()>,
    /// Index of the thread's heap.
    pub(crate) heap: GuardedU16,
    /// The class that a slow path is working on, if any (see `locked`): for a child of `fork`.
    busy: GuardedU8,
    /// What looks found, see `rest`.
    pub(crate) was_seen: GuardedU8,
    /// The process that the thread belongs to: its [`crate::os::fork_generation`].
    pub(crate) generation: GuardedU32,
    /// Whether the thread is at work on what is gated without its gate.
    pub(crate) brief: Brief,
    /// What turns of the heap's threads there had been at this one's last look, and how many threads that tells of: see
    /// [`LockedCache::count_sharers`].
    looks: GuardedU32,
    /// The latter times `capacity::LOOKS_OF_ONE`.
    sharers: GuardedU16,
    /// Looks of this thread, up to [`capacity::AT_WORK`].
    own_looks: GuardedU16,
    /// Slow paths taken.
    pub(crate) ticks: GuardedU64,
    /// Capacity of all magazines, in bytes of blocks.
    pub(crate) capacity: GuardedUsize,
    /// The same, without magazines with room for one block.
    beyond_one: GuardedUsize,
    /// The thread's words; guarded by the registry's lock.
    pub(crate) words: AtomicPtr<tls::Words>,
    /// The thread's number in the kernel.
    pub(crate) thread: GuardedUsize,
    /// What a hardened or sampled process keeps for each thread.
    pub(crate) safeguards: Link<Safeguards>,
    /// Freed spans, once the thread freed one.
    stock: Link<Stock>,
    /// How many threads have had the cache and are gone: who remembers it with the number knows whether its thread
    /// lives. The upper half counts those that vanished in a fork. Written under the registry's lock.
    #[cfg(feature = "heaps")]
    life: AtomicU64,
    /// The registry's list.
    pub(crate) next: Link<Self>,
    pub(crate) previous: Link<Self>,
    /// The slots of every magazine with room for one block: slot 1 of such a one is always null.
    nil: [Slot; 2],
    gap: Gap,
    far: [Magazine; CLASSES - SMALL_CLASSES],
}

/// Other caches' memory, never accessed as part of this one.
#[repr(C)]
struct Gap(UnsafeCell<[MaybeUninit<u8>; FAR - NEAR]>);

// SAFETY: 1. the bytes are what blocks the auto impl; nobody accesses them through this type.
unsafe impl Sync for Gap {}

/// Where the gap begins.
const NEAR: usize = (size_of::<[Magazine; 1 + SMALL_CLASSES]>() + size_of::<[Record; CLASSES]>())
    .next_multiple_of(size_of::<u64>())
    + size_of::<[u64; WORDS]>();
/// What a [life](ThreadCache::life) goes up by beside the one when its thread vanished.
#[cfg(feature = "heaps")]
const VANISHED: u64 = 1 << 32;
/// Words between the records and the gap.
const WORDS: usize = if cfg!(feature = "heaps") { 15 } else { 14 };
/// Bytes from one cache of a bank to the next.
pub(crate) const STRIDE: usize = NEAR.next_multiple_of(align_of::<ThreadCache>());
/// Caches whose near parts fit in front of the first one's far part.
pub(crate) const BANK: usize = FAR / STRIDE;

const_assert!(size_of::<Magazine>() == size_map::HEADER);
const_assert!(core::mem::offset_of!(ThreadCache, none) == MagazineOffset::NONE.bytes());
const_assert!(
    core::mem::offset_of!(ThreadCache, near) == MagazineOffset::of(SizeClass::MIN).bytes()
);
const_assert!(core::mem::offset_of!(ThreadCache, gap) == NEAR);
const_assert!(core::mem::offset_of!(ThreadCache, far) == FAR);
// The far parts of a bank do not overlap either.
const_assert!(size_of::<[Magazine; CLASSES - SMALL_CLASSES]>() <= STRIDE);

impl ThreadCache {
    pub(crate) fn magazine(&self, class: SizeClass) -> &Magazine {
        match class.index().checked_sub(SMALL_CLASSES) {
            None => &self.near[class.index()],
            Some(far) => &self.far[far],
        }
    }

    /// The calling thread's cache, if it has one.
    pub(crate) fn own() -> Option<&'static Self> {
        // ORDERING: this thread's own word.
        let own = tls::words().own.load(Ordering::Relaxed);
        if own.is_null() || is_marker(own) {
            return None;
        }
        // SAFETY: 1. neither null nor a marker, so the thread's cache, which is never unmapped.
        Some(unsafe { &*own.cast::<Self>() })
    }

    /// The thread's freed spans. Only in brief work, with the gate, or for who has the cache at rest.
    #[inline(always)]
    pub(crate) fn stock(&self) -> Option<&'static Stock> {
        self.stock.get()
    }

    /// The same, made if there is none. The calling thread's own.
    pub(crate) fn stock_or_new(&self) -> Option<&'static Stock> {
        if self.stock.get().is_none() {
            self.stock.set(Stock::create());
        }
        self.stock.get()
    }

    /// Adds a block to a magazine that is gated, in brief work; `false` if it is full, or holds the block already,
    /// as the slow path will find.
    #[inline(always)]
    pub(crate) fn push_gated(&self, class: SizeClass, block: NonNull<u8>) -> bool {
        let magazine = self.magazine(class);
        let slots = magazine.slots(self.records[class.index()].slots());
        !magazine.holds(Contents::of(magazine, slots), block) && magazine.push(block)
    }

    /// See the field.
    #[cfg(feature = "heaps")]
    pub(crate) fn life(&self) -> u64 {
        // ORDERING: pairs with the release in `end_life`: what a thread that is gone has left is seen.
        self.life.load(Ordering::Acquire)
    }

    /// Whether a thread that had the cache vanished between two of its lives.
    #[cfg(feature = "heaps")]
    pub(crate) fn vanished(one: u64, other: u64) -> bool {
        one / VANISHED != other / VANISHED
    }

    /// Its thread vanished in a fork, wherever it stood; its life [ends](Self::end_life) next.
    #[cfg(feature = "heaps")]
    pub(crate) fn note_vanished(&self) {
        // ORDERING: as in `end_life`.
        self.life.store(self.life() + VANISHED, Ordering::Release);
    }

    /// Its thread is gone, or is about to be and has forgotten what it had of first-class heaps.
    #[cfg(feature = "heaps")]
    pub(crate) fn end_life(&self) {
        let life = self.life();
        // ORDERING: publishes what the thread did to who finds it gone.
        self.life.store(life + 1, Ordering::Release);
    }

    /// Whether this is a thread's cache, not `EMPTY`.
    #[inline]
    pub(crate) fn is_real(&self) -> bool {
        !ptr::eq(ptr::from_ref(self).cast(), &raw const EMPTY)
    }
}

/// What `work` does to the calling thread's own cache without the gate; `None` if the thread is held off, or has
/// no cache at hand. What it may touch is a [gated](is_gated) magazine or the stock, and it never needs the gate.
#[inline(always)]
pub(crate) fn briefly<R>(work: impl FnOnce(&'static ThreadCache) -> R) -> Option<R> {
    let words = tls::words();
    // ORDERING: this thread's own word, here and below.
    let at_hand = words.alloc.load(Ordering::Relaxed);
    if ptr::eq(at_hand, (&raw const EMPTY).cast()) {
        return None;
    }
    // SAFETY: 1. the word leads to a cache or to `EMPTY`, and caches are never unmapped.
    let cache: &'static ThreadCache = unsafe { &*at_hand.cast() };
    cache.brief.begin();
    let is_at_hand = ptr::eq(words.alloc.load(Ordering::Relaxed), at_hand);
    let done = is_at_hand.then(|| work(cache));
    cache.brief.end();
    done
}

/// Whether the calling thread has a cache that its words do not lead to.
pub(crate) fn is_diverted() -> bool {
    let words = tls::words();
    // ORDERING: this thread's own word.
    let at_hand = words.alloc.load(Ordering::Relaxed);
    ptr::eq(at_hand, (&raw const EMPTY).cast()) && ThreadCache::own().is_some()
}

/// The magazine at `offset` of the cache that allocations take from.
#[inline(always)]
pub(crate) fn alloc_magazine(offset: MagazineOffset) -> &'static Magazine {
    magazine_at(tls::alloc_at(offset.bytes()))
}

/// The magazine at `offset` of the cache that frees go to.
#[inline(always)]
pub(crate) fn free_magazine(offset: MagazineOffset) -> &'static Magazine {
    magazine_at(tls::free_at(offset.bytes()))
}

/// The magazine at the place that a word and an offset add up to.
#[inline(always)]
fn magazine_at(place: *mut u8) -> &'static Magazine {
    let magazine = place.cast::<Magazine>();
    // SAFETY: 1. the word leads to a cache or to `EMPTY`, and `offset` is that of a class or of none.
    // Caches are never unmapped; the magazines of `EMPTY` have no block and no capacity, so that
    // nothing is written to them.
    unsafe { &*magazine }
}

/// Whether the magazine of `class` is reached through the gate, or by [brief work](briefly), alone. The blocks of
/// these classes are so long that the newest of each would be most of what a sleeping thread pins. A hardened process,
/// which pins what is in quarantine anyhow, has no use for gates.
pub(crate) fn is_gated(class: SizeClass) -> bool {
    class.size() > MEDIUM_MAX && !config::mode().is_hardened()
}
