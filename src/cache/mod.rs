//! The thread cache: a magazine per class, and the two fast paths.
//!
//! Reading order: `alloc` and `free` here, `slow` for what they fall back to, `thread` for the life
//! of a cache, `hold_off` for purging behind the back of sleeping threads, `careful` for the way that
//! calls take in a hardened process, `found` for blocks whose layout nobody knows when they are freed.

mod alarm;
mod behind;
mod capacity;
mod care;
mod careful;
mod expect;
mod fork;
mod found;
mod front;
mod helper;
mod hold_off;
mod magazine;
mod parked;
mod realloc;
mod resize;
mod slow;
mod thread;

cfg_if::cfg_if! {
    if #[cfg(any(miri, flagstone_portable))] {
        #[path = "tls_portable.rs"]
        mod tls;
    } else {
        #[macro_use]
        mod symbol;
        #[cfg_attr(feature = "dynamic-tls", path = "tls_dynamic.rs")]
        mod tls;
    }
}
mod tls_words;

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use static_assertions::const_assert;

use self::capacity::Record;
use self::magazine::Magazine;
use crate::config::Config;
use crate::os::Lock;
use crate::size_class::{CLASSES, SMALL_CLASSES, SizeClass};
use crate::size_map::{self, FAR, MagazineOffset, table_offset};
use crate::sync::{AtomicPtr, GuardedU8, GuardedU64, GuardedUsize, Link, Slot};

pub(crate) use found::{ALIGN, free_found, length_found, realloc_found};
pub(crate) use helper::start as start_helper;
pub(crate) use hold_off::{purge, stats, verify};
pub(crate) use realloc::realloc_rest;
pub(crate) use slow::{alloc_rest, alloc_zeroed_rest, free_rest};
pub(crate) use thread::{begin, set_option};

/// One thread's magazines and what goes with them. All zero is a cache without blocks.
///
/// The magazines are the thread's own; everything else is guarded by the gate, which the thread
/// takes on each slow path and others take to hold it off.
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
    heap: GuardedU8,
    /// The class that a slow path is working on, [`NO_CLASS`] otherwise: for a child of `fork`.
    busy: GuardedU8,
    /// 1 if a look came by since the cache was parked.
    was_seen: GuardedU8,
    /// Slow paths taken.
    ticks: GuardedU64,
    /// Capacity of all magazines, in bytes of blocks.
    capacity: GuardedUsize,
    /// The thread's words; guarded by the registry's lock.
    words: AtomicPtr<tls::Words>,
    /// The thread's number in the kernel.
    thread: GuardedUsize,
    /// The process that the thread belongs to, see `fork::generation`.
    generation: GuardedUsize,
    /// What the careful way keeps.
    care: Link<care::Care>,
    /// The registry's list.
    next: Link<Self>,
    previous: Link<Self>,
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
    + size_of::<[u64; 10]>();
/// Bytes from one cache of a bank to the next.
const STRIDE: usize = NEAR.next_multiple_of(align_of::<ThreadCache>());
/// Caches whose near parts fit in front of the first one's far part.
const BANK: usize = FAR / STRIDE;

/// [`ThreadCache::busy`] when no slow path runs.
const NO_CLASS: u8 = u8::MAX;

const_assert!(CLASSES < NO_CLASS as usize);
const_assert!(size_of::<Magazine>() == size_map::HEADER);
const_assert!(core::mem::offset_of!(ThreadCache, none) == MagazineOffset::NONE.bytes());
const_assert!(
    core::mem::offset_of!(ThreadCache, near) == MagazineOffset::of(SizeClass::MIN).bytes()
);
const_assert!(core::mem::offset_of!(ThreadCache, gap) == NEAR);
const_assert!(core::mem::offset_of!(ThreadCache, far) == FAR);
// The far parts of a bank do not overlap either.
const_assert!(size_of::<[Magazine; CLASSES - SMALL_CLASSES]>() <= STRIDE);

/// The magazine at `offset` of the cache that the thread's hot word leads to.
#[inline(always)]
fn hot_magazine(offset: MagazineOffset) -> &'static Magazine {
    let magazine = tls::hot_at(offset.bytes()).cast::<Magazine>();
    // SAFETY: 1. the word leads to a cache or to `EMPTY`, and `offset` is that of a class or of none.
    // Caches are never unmapped; the magazines of `EMPTY` have no block and no capacity, so that
    // nothing is written to them.
    unsafe { &*magazine }
}

/// A block that is at hand, or null.
#[inline(always)]
pub(crate) fn at_hand(size: usize, align: usize) -> *mut u8 {
    table_offset(size, align).map_or(core::ptr::null_mut(), |offset| hot_magazine(offset).pop())
}

/// A block for `size` bytes aligned to `align`, or null. `KNOWN`: who frees it knows both.
#[inline(always)]
pub(crate) fn alloc<const KNOWN: bool>(size: usize, align: usize, config: &Config) -> *mut u8 {
    let block = at_hand(size, align);
    if !block.is_null() {
        return block;
    }
    alloc_rest::<KNOWN>(size, align, config)
}

/// As [`alloc`], zeroed.
#[inline(always)]
pub(crate) fn alloc_zeroed<const KNOWN: bool>(
    size: usize,
    align: usize,
    config: &Config,
) -> *mut u8 {
    if let Some(fresh) = NonNull::new(at_hand(size, align)) {
        // SAFETY: 1. a fresh block of at least `size` bytes.
        unsafe { fresh.write_bytes(0, size) };
        return fresh.as_ptr();
    }
    alloc_zeroed_rest::<KNOWN>(size, align, config)
}

/// Frees a block that [`alloc`] gave for the same `size` and `align`.
///
/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. Nobody uses it any more.
#[inline(always)]
pub(crate) unsafe fn free(block: NonNull<u8>, size: usize, align: usize, config: &Config) {
    if let Some(offset) = table_offset(size, align)
        && hot_magazine(offset).push(block)
    {
        return;
    }
    // SAFETY: 1. and 2. the caller's.
    unsafe { free_rest(block, size, align, config) };
}

impl ThreadCache {
    fn magazine(&self, class: SizeClass) -> &Magazine {
        match class.index().checked_sub(SMALL_CLASSES) {
            None => &self.near[class.index()],
            Some(far) => &self.far[far],
        }
    }

    fn record(&self, class: SizeClass) -> &Record {
        &self.records[class.index()]
    }
}
