//! Large allocations: a mapping each, entered in a table by address, so that a free of anything else
//! is noticed instead of unmapped.
//!
//! One lock guards all mappings ([`mappings`]); no system call happens under it, but for the
//! statistics' question what is resident.

mod cache;
mod evict;
mod guarded;
mod list;
mod mappings;
mod resize;
mod site;
mod span;
mod stock;
mod stuck;
mod validate;

use core::ptr::NonNull;

use crate::arena::{self, Zeroed, meta};
use crate::config::{self, HugePages};
use crate::demand::DEMAND;
use crate::error::{Call, Violation};
use crate::os::{self, InMemory, PageLen};
use crate::size_class::SPAN_MAX;
use crate::sync::{AtomicPtr, GuardedU8, GuardedU64, GuardedUsize, Link, Ordering};
use crate::units::{CHUNK, UNIT, UnitCount, round_up};
use crate::valgrind;

use mappings::{MAPPINGS, Mappings};

pub(crate) use arena::Age;
pub(crate) use mappings::removed;
pub(crate) use resize::resize;
pub(crate) use site::{suits, units_at};
pub(crate) use span::{Freed, alloc_span, free_span};
pub(crate) use stock::Stock;
pub(crate) use validate::{die, expect, expect_for, length};

/// Units of the longest span that a request asks for.
const SPAN_UNITS: usize = SPAN_MAX / UNIT;

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

/// Longer ones may not, unless the options ask for it: filled, they would save three quarters of the
/// time that first touches take; touched here and there, each touch costs 2 MiB, 1025 MiB instead of
/// 2 for one byte in each 2 MiB of a GiB. What a program hardly touches is long.
const HUGE_MAX: usize = 64 << 20;

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
    /// 1 once all of it was found in memory. Should the kernel swap some of it out, it comes back as it is written.
    is_full: GuardedU8,
    next: Link<Self>,
}

impl Mapping {
    fn base(&self) -> NonNull<u8> {
        // ORDERING: guarded by the lock of `MAPPINGS`, or the mapping is in the hands of this
        // thread.
        NonNull::new(self.base.load(Ordering::Relaxed)).expect("a mapping has a base")
    }

    /// Its length as what it is: `map` and all that changes it know of whole pages only.
    fn pages(&self) -> PageLen {
        PageLen::kept(self.length.get())
    }

    /// Enters it among the live ones, as one that serves `length` bytes; its first byte.
    fn hand_out(&'static self, mappings: &Mappings, length: usize) -> NonNull<u8> {
        let base = self.base();
        self.asked.set(length);
        self.is_room.set(0);
        valgrind::fence_off(base, self.length.get());
        mappings.insert(self);
        base
    }

    fn set(&self, base: NonNull<u8>, length: usize) {
        // ORDERING: as in `base`.
        self.base.store(base.as_ptr(), Ordering::Relaxed);
        self.length.set(length);
    }

    /// Makes its first `length` bytes read as zero. It was just taken from the cache: nobody has the block yet. What is in
    /// memory is zeroed for less than it costs to fault it in.
    fn zero(&self, length: usize) {
        let base = self.base();
        if self.is_full.get() != 0 {
            // SAFETY: 1. as long at least, and nobody else's.
            return unsafe { base.write_bytes(0, length) };
        }
        // SAFETY: 1. nobody else has it.
        let found = unsafe { os::zero(base, PageLen::kept(length)) };
        let is_full = found == InMemory::All && length == self.length.get();
        self.is_full.set(u8::from(is_full));
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

/// At least `size` bytes aligned to `align` in a mapping of its own, or, at the limit of mappings,
/// in a chunk.
pub(crate) fn alloc(size: usize, align: usize, wanted: Zeroed) -> Option<(NonNull<u8>, Zeroed)> {
    let page = os::page_size();
    let length = round_up(size.max(1), page)?;
    if align <= page
        && let Some(mapping) = alloc_cached_or_grown(length, wanted)
    {
        if wanted == Zeroed::Yes {
            mapping.zero(length);
        }
        return Some((mapping.base(), wanted));
    }
    // The count is read without the lock: about so many will do.
    if guarded::is_apart()
        && mappings::live_count() >= MOST_APART
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
            && let Some(stuck) = stuck::reuse(length)
        {
            return Some((hand_out(stuck, length), Zeroed::No));
        }
        return span::in_chunk(length, align);
    };
    for (kept, bytes) in mapping.margins.iter().zip(margins) {
        kept.set(bytes);
    }
    mapping.set(base, length);
    DEMAND.note_fresh(length);
    if wanted == Zeroed::No && length >= HUGE_MIN {
        ask_for_huge(mapping);
    }
    Some((hand_out(mapping, length), Zeroed::Yes))
}

/// Asks for huge pages in a fresh mapping that has room for some, if the options have it so. All of it: advice for a part
/// would make it several to the kernel, which moves none of them.
fn ask_for_huge(mapping: &Mapping) {
    let (start, whole) = mapping.whole();
    let length = mapping.length.get();
    match config::huge_pages() {
        HugePages::Off => {}
        HugePages::Advise => os::advise_huge(start, whole),
        HugePages::Auto if length > HUGE_MAX => {}
        HugePages::Auto => arena::advise_by_price((start, whole), (mapping.base(), length)),
    }
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
    let is_sparse = length < align / SPARSE && mappings::live_count() < MOST_SPARSE;
    let in_mapping = is_sparse.then(|| alloc(length, align, wanted)).flatten();
    in_mapping
        .or_else(|| alloc_span(units, size, align))
        .or_else(|| alloc(length, align, wanted))
}

/// As [`alloc`], if a cached mapping is long enough, in a process that is not hardened.
pub(crate) fn alloc_cached(size: usize) -> Option<NonNull<u8>> {
    Some(reuse_fitting(round_up(size, os::page_size())?)?.base())
}

/// A cached mapping that is long enough, or, if it need not be zeroed, made so.
fn alloc_cached_or_grown(length: usize, wanted: Zeroed) -> Option<&'static Mapping> {
    if guarded::is_apart() {
        let mapping = (wanted == Zeroed::No).then(|| cache::reuse_apart(length))??;
        hand_out(mapping, length);
        return Some(mapping);
    }
    reuse_fitting(length).or_else(|| {
        // The longest shorter one: its pages save faults even so.
        let grown = (wanted == Zeroed::No).then(|| cache::grow_longest(length))??;
        hand_out(grown, length);
        Some(grown)
    })
}

/// A cached mapping that is long enough, in a process that does not keep them apart.
fn reuse_fitting(length: usize) -> Option<&'static Mapping> {
    cache::take_fitting(length).unwrap_or_else(|cache::NoneLeft| {
        let mapping = cache::reuse_fitting(length)?;
        hand_out(mapping, length);
        Some(mapping)
    })
}

/// Makes a mapping one that serves `length` bytes; its first byte.
fn hand_out(mapping: &'static Mapping, length: usize) -> NonNull<u8> {
    mapping.hand_out(&MAPPINGS.lock(), length)
}

/// Frees what [`alloc`] gave for `size` bytes, or for any if that is 0.
///
/// # Safety
/// 1. Nobody uses the block any more.
pub(crate) unsafe fn free(block: NonNull<u8>, size: usize) {
    match evict::free(block, size) {
        Ok(()) => {}
        Err(Some(misuse)) => die(misuse, Call::Free, block.addr().get()),
        // At the limit of mappings, it was given a span.
        // SAFETY: 1. of a span or a mapping, nobody uses the block.
        Err(None) => unsafe { span::free_span_if(block, |units| units.bytes() >= size) },
    }
}

/// A descriptor without a mapping.
fn descriptor() -> Option<&'static Mapping> {
    // A statement of its own: the lock is not held while metadata is allocated.
    let left_over = MAPPINGS.lock().descriptor();
    if left_over.is_some() {
        return left_over;
    }
    let table = meta::alloc(size_of::<Mapping>())?;
    // SAFETY: 1. zeroed metadata of this size, aligned to a line, never freed; all zero is a
    // descriptor without a mapping.
    Some(unsafe { table.cast::<Mapping>().as_ref() })
}

/// Takes back a descriptor whose mapping is gone.
fn retire(mapping: &'static Mapping) {
    MAPPINGS.lock().retire(mapping);
}

/// Inserts a mapping among the live ones.
fn insert(mapping: &'static Mapping) {
    MAPPINGS.lock().insert(mapping);
}

/// Removes the mapping at `block` from the live ones.
fn remove(block: NonNull<u8>) -> Option<&'static Mapping> {
    MAPPINGS.lock().remove(block)
}

/// Gives cached mappings back to the kernel; bytes returned.
pub(crate) fn decay(age: Age) -> usize {
    evict::decay(age)
}

/// Bytes of live mappings and spans.
pub(crate) fn live() -> usize {
    mappings::live_bytes() + span::live()
}

/// Bytes of all mappings, cached ones included, and how many of them are in memory.
pub(crate) fn committed_and_resident() -> (usize, usize) {
    let mappings = MAPPINGS.lock();
    let (mut committed, mut resident) = (0, 0);
    for mapping in mappings.live().chain(mappings.freed()) {
        committed += mapping.length.get();
        // A question to the kernel under the lock: rare, and no mapping may go meanwhile.
        resident += os::resident(mapping.base(), mapping.pages());
    }
    (committed, resident)
}

/// Checks the mappings (docs/states.md, I9).
pub(crate) fn verify() -> Result<(), Violation> {
    let mappings = MAPPINGS.lock();
    mappings.verify()?;
    cache::verify(&mappings)
}

/// In a forked child: makes the mappings whole.
///
/// # Safety
/// 1. This is the only thread inside the allocator, and it does not hold the lock.
pub(crate) unsafe fn recover(_: &arena::Whole) {
    // SAFETY: 1. this function's own 1., word for word.
    unsafe { mappings::recover() };
}

// A span that is the way out for a large allocation fits a chunk.
static_assertions::const_assert!(CHUNK >= SPAN_MAX);
