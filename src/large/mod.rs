//! Large allocations: a mapping each, entered in a table by address, so that a free of anything else
//! is noticed instead of unmapped.
//!
//! One lock guards table and cache; no system call happens under it, but for the statistics' question
//! what is resident.

mod cache;
mod evict;
mod guarded;
mod list;
mod resize;
mod site;
mod span;
mod stuck;
mod validate;

use core::ptr::NonNull;

use crate::arena::{self, Zeroed, meta};
use crate::config;
use crate::error::{Call, Misuse, Violation};
use crate::os::{self, Lock, PageLen, failpoints};
use crate::sync::{AtomicPtr, GuardedU8, GuardedU64, GuardedUsize, Link, Ordering};
use crate::units::{CHUNK, UnitCount, round_up};
use crate::valgrind;

pub(crate) use arena::Age;
pub(crate) use resize::resize;
pub(crate) use site::suits;
pub(crate) use span::{alloc_span, free_span};
pub(crate) use validate::{die, expect, expect_for, length};

const BUCKETS: usize = 4096;

/// Live mappings from which on, where they are kept apart, blocks that fit a chunk come from one: each
/// costs the kernel up to three mappings of 65530.
const MOST_APART: usize = 1 << 14;

/// Blocks of less than one in so many parts of their alignment are sparse: in a chunk they would take at least as many
/// times the addresses that they need.
const SPARSE: usize = 4;

/// Live mappings up to which sparse blocks have mappings: a sixteenth of the kernel's 65530.
const MOST_SPARSE: usize = 1 << 12;

/// Mappings from this length on may have huge pages, unless their pages are wanted zero: then they
/// may be meant to stay so.
const HUGE_MIN: usize = 8 << 20;

/// One mapping: live and in the table, or free and in the cache. Descriptors are never unmapped.
struct Mapping {
    base: AtomicPtr<u8>,
    length: GuardedUsize,
    /// Bytes that the user of a live one asked for, in whole pages.
    asked: GuardedUsize,
    /// Inaccessible bytes before and behind.
    margins: [GuardedUsize; 2],
    /// When it was freed, in milliseconds.
    freed: GuardedU64,
    /// 1 for a cached one that began, as it came into the cache, where a live one ends, which may grow into it.
    is_room: GuardedU8,
    /// 1 if to the kernel it may be several, which it moves or lengthens one by one only.
    is_joined: GuardedU8,
    next: Link<Self>,
}

struct Large {
    lock: Lock<()>,
    /// Live mappings by address; newest first.
    table: [Link<Mapping>; BUCKETS],
    /// Descriptors without a mapping.
    unused: Link<Mapping>,
    /// Bytes of live mappings, and how many there are.
    live: GuardedUsize,
    count: GuardedUsize,
    /// Mappings taken out of the table since the process began, by a free or a resize.
    taken: GuardedU64,
    /// Freed mappings.
    cached: Link<Mapping>,
    cached_bytes: GuardedUsize,
    /// Freed mappings that the kernel refused to unmap, their pages given back: those to try next, and those that
    /// were refused since.
    stuck: [Link<Mapping>; 2],
}

static LARGE: Large = Large {
    lock: Lock::new(()),
    table: [const { Link::none() }; BUCKETS],
    unused: Link::none(),
    live: GuardedUsize::new(0),
    count: GuardedUsize::new(0),
    taken: GuardedU64::new(0),
    cached: Link::none(),
    cached_bytes: GuardedUsize::new(0),
    stuck: [const { Link::none() }; 2],
};

impl Mapping {
    fn base(&self) -> NonNull<u8> {
        // ORDERING: guarded by `LARGE.lock`, or the caller owns the mapping.
        NonNull::new(self.base.load(Ordering::Relaxed)).expect("a mapping has a base")
    }

    /// Its length as what it is: `map` and all that changes it know of whole pages only.
    fn pages(&self) -> PageLen {
        PageLen::kept(self.length.get())
    }

    fn set(&self, base: NonNull<u8>, length: usize) {
        // ORDERING: as in `base`.
        self.base.store(base.as_ptr(), Ordering::Relaxed);
        self.length.set(length);
    }

    /// Whether it was handed out for `size` bytes, 0 standing for any number. With safeguards more is known of
    /// what was asked for, and looked at elsewhere.
    fn serves(&self, size: usize) -> bool {
        if size == 0 || config::mode().is_hardened() {
            return self.length.get() >= size;
        }
        round_up(size, os::page_size()) == Some(self.asked.get())
    }
}

fn bucket(address: usize) -> &'static Link<Mapping> {
    // Neighbouring mappings differ in the page number's low bits.
    let page = address / os::page_size();
    &LARGE.table[(page ^ (page >> 12)) % BUCKETS]
}

/// At least `size` bytes aligned to `align` in a mapping of its own, or, at the limit of mappings,
/// in a chunk.
pub(crate) fn alloc(size: usize, align: usize, wanted: Zeroed) -> Option<(NonNull<u8>, Zeroed)> {
    let page = os::page_size();
    let length = round_up(size.max(1), page)?;
    if wanted == Zeroed::No
        && align <= page
        && let Some(mapping) = cache::take(length)
    {
        return Some((hand_out(mapping, length), Zeroed::No));
    }
    // The count is read without the lock: about so many will do.
    if guarded::is_apart()
        && LARGE.count.get() >= MOST_APART
        && let Some(found) = span::in_chunk(length, align)
    {
        return Some(found);
    }
    let Some(mapping) = descriptor() else {
        return span::in_chunk(length, align);
    };
    let Some((base, margins)) = guarded::map(length, align) else {
        retire(mapping);
        if align <= page
            && let Some(stuck) = stuck::take_stuck(length)
        {
            return Some((hand_out(stuck, length), Zeroed::No));
        }
        return span::in_chunk(length, align);
    };
    for (kept, bytes) in mapping.margins.iter().zip(margins) {
        kept.set(bytes);
    }
    mapping.set(base, length);
    if wanted == Zeroed::No && length >= HUGE_MIN && config::huge_pages() {
        // All of it: advice for a part would make it several to the kernel, which moves none of them.
        let (start, whole) = mapping.whole();
        os::advise_huge(start, whole);
    }
    Some((hand_out(mapping, length), Zeroed::Yes))
}

/// A block of `size` bytes that `units` hold, aligned to more than a unit, from a chunk. But what is much shorter than its
/// alignment leaves most of a chunk to others that may never come: while there are few mappings it has one of its own,
/// which takes no more addresses than it needs.
pub(crate) fn alloc_aligned(
    units: UnitCount,
    size: usize,
    align: usize,
    wanted: Zeroed,
) -> Option<(NonNull<u8>, Zeroed)> {
    let length = units.bytes();
    let is_sparse = length < align / SPARSE && LARGE.count.get() < MOST_SPARSE;
    let in_mapping = is_sparse.then(|| alloc(length, align, wanted)).flatten();
    in_mapping
        .or_else(|| alloc_span(units, size, align))
        .or_else(|| alloc(length, align, wanted))
}

/// As [`alloc`], if a cached mapping is long enough, in a process that is not hardened.
pub(crate) fn alloc_cached(size: usize) -> Option<NonNull<u8>> {
    let length = round_up(size, os::page_size())?;
    cache::take_fitting(length).map(|mapping| hand_out(mapping, length))
}

/// Makes a mapping one that serves `length` bytes; its first byte.
fn hand_out(mapping: &'static Mapping, length: usize) -> NonNull<u8> {
    let base = mapping.base();
    mapping.asked.set(length);
    mapping.is_room.set(0);
    valgrind::fence_off(base, mapping.length.get());
    enter(mapping);
    base
}

/// Frees what [`alloc`] gave for `size` bytes, or for any if that is 0.
///
/// # Safety
/// 1. Nobody uses the block any more.
pub(crate) unsafe fn free(block: NonNull<u8>, size: usize) {
    match leave(block) {
        Some(mapping) if !mapping.serves(size) => {
            die(Misuse::WrongClass, Call::Free, block.addr().get())
        }
        Some(mapping) => evict::put(mapping),
        // At the limit of mappings, it was given a span.
        // SAFETY: 1. the caller's.
        None => unsafe { span::free_span_if(block, |span| span.units.bytes() >= size) },
    }
}

/// A descriptor without a mapping.
fn descriptor() -> Option<&'static Mapping> {
    {
        let _held = LARGE.lock.lock();
        if let Some(mapping) = LARGE.unused.get() {
            LARGE.unused.set(mapping.next.get());
            mapping.is_room.set(0);
            mapping.is_joined.set(0);
            return Some(mapping);
        }
    }
    let table = meta::alloc(size_of::<Mapping>())?;
    // SAFETY: 1. zeroed metadata of this size, aligned to a line, never freed; all zero is a
    // descriptor without a mapping.
    Some(unsafe { table.cast::<Mapping>().as_ref() })
}

/// Takes back a descriptor whose mapping is gone.
fn retire(mapping: &'static Mapping) {
    let _held = LARGE.lock.lock();
    retire_held(mapping);
}

/// The same. Locked.
fn retire_held(mapping: &'static Mapping) {
    mapping.next.set(LARGE.unused.get());
    LARGE.unused.set(Some(mapping));
}

/// Enters a mapping among the live ones.
fn enter(mapping: &'static Mapping) {
    let bucket = bucket(mapping.base().addr().get());
    let _held = LARGE.lock.lock();
    failpoints::at(failpoints::Point::Large);
    mapping.next.set(bucket.get());
    bucket.set(Some(mapping));
    LARGE.live.set(LARGE.live.get() + mapping.length.get());
    LARGE.count.set(LARGE.count.get() + 1);
}

/// Takes the mapping at `block` out of the live ones.
fn leave(block: NonNull<u8>) -> Option<&'static Mapping> {
    let mut link = bucket(block.addr().get());
    let _held = LARGE.lock.lock();
    failpoints::at(failpoints::Point::Large);
    while let Some(mapping) = link.get() {
        if mapping.base() == block {
            link.set(mapping.next.get());
            LARGE.live.set(LARGE.live.get() - mapping.length.get());
            LARGE.count.set(LARGE.count.get() - 1);
            LARGE.taken.set(LARGE.taken.get() + 1);
            return Some(mapping);
        }
        link = &mapping.next;
    }
    None
}

/// Gives cached mappings back to the kernel; bytes returned.
pub(crate) fn decay(age: Age) -> usize {
    evict::decay(age)
}

/// Mappings taken out of the table since the process began, by a free or a resize.
pub(crate) fn taken() -> u64 {
    LARGE.taken.get()
}

/// Bytes of live mappings and spans.
pub(crate) fn live() -> usize {
    LARGE.live.get() + span::live()
}

/// Bytes of all mappings, cached ones included, and how many of them are in memory.
pub(crate) fn committed_and_resident() -> (usize, usize) {
    let _held = LARGE.lock.lock();
    let lists = LARGE.table.iter().chain([&LARGE.cached]);
    let lists = lists.chain(&LARGE.stuck);
    let (mut committed, mut resident) = (0, 0);
    for mut link in lists {
        while let Some(mapping) = link.get() {
            committed += mapping.length.get();
            // A question to the kernel under the lock: rare, and the table must not move.
            resident += os::resident(mapping.base(), mapping.pages());
            link = &mapping.next;
        }
    }
    (committed, resident)
}

/// Checks the table (ALGORITHM.md, I9).
pub(crate) fn verify() -> Result<(), Violation> {
    let _held = LARGE.lock.lock();
    let mut live = 0;
    for (index, bucket_link) in LARGE.table.iter().enumerate() {
        let mut link = bucket_link;
        while let Some(mapping) = link.get() {
            let address = mapping.base().addr().get();
            if mapping.asked.get() > mapping.length.get() && !guarded::is_apart() {
                return Err(Violation {
                    invariant: "I9: a mapping is as long as was asked for",
                    address,
                });
            }
            if !core::ptr::eq(bucket(address), &raw const LARGE.table[index]) {
                return Err(Violation {
                    invariant: "I9: a mapping is in its bucket",
                    address,
                });
            }
            live += mapping.length.get();
            link = &mapping.next;
        }
    }
    let cached = cache::verify()?;
    if cached != LARGE.cached_bytes.get() {
        return Err(Violation {
            invariant: "I9: cached mappings are counted",
            address: 0,
        });
    }
    if live != LARGE.live.get() {
        return Err(Violation {
            invariant: "I9: live mappings are counted",
            address: 0,
        });
    }
    Ok(())
}

/// In a forked child: breaks the lock of a thread that is gone. Every section leaves the lists whole
/// at each step; the counts are counted anew.
///
/// # Safety
/// 1. This is the only thread inside the allocator, and it does not hold the lock.
pub(crate) unsafe fn recover() {
    LARGE.lock.break_inherited();
    let size = |list: &Link<Mapping>| {
        let (mut link, mut count, mut bytes) = (list, 0, 0);
        while let Some(mapping) = link.get() {
            count += 1;
            bytes += mapping.length.get();
            link = &mapping.next;
        }
        (count, bytes)
    };
    let sum = |(counts, sizes), list| {
        let (count, bytes) = size(list);
        (counts + count, sizes + bytes)
    };
    let (count, live) = LARGE.table.iter().fold((0, 0), sum);
    LARGE.count.set(count);
    LARGE.live.set(live);
    LARGE.cached_bytes.set(size(&LARGE.cached).1);
}

// A span that is the way out for a large allocation fits a chunk.
static_assertions::const_assert!(CHUNK >= crate::size_class::SPAN_MAX);
