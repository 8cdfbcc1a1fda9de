//! Fresh chunks: a descriptor, and 4 MiB of committed memory cut from a reservation that grows by a
//! factor. The system calls are made without the arena's lock, but one thread at a time makes a
//! chunk: who finds no room meanwhile waits for that chunk, and seldom needs another.

use core::ptr::NonNull;

use super::chunk::{Chunk, DESCRIPTOR};
use super::pool::Pool;
use super::price::{Extent, Price};
use super::reservation::Reservation;
use super::runs::{Purpose, Want};
use super::tags::Tags;
use super::{ARENA, Locked, NO_BIN, meta};
use crate::config::{self, HugePages};
use crate::hardening::Hardening;
use crate::os::{self, Access, PageLen, failpoints};
use crate::sync::{GuardedU8, GuardedUsize};
use crate::units::{CHUNK, UNITS_PER_CHUNK};
use crate::valgrind;

/// Huge pages are asked for from the chunk on that makes one 2 MiB page an eighth of the heap.
const HUGE_FROM: usize = 4;
/// And only while of the spans that were claimed lately at most one in so many is the first slab of its class in its
/// heap.
const FIRST: usize = 8;

/// 1 while huge pages are dear, for who does not hold the lock.
static HIGH: GuardedU8 = GuardedU8::new(0);

/// Bytes of a huge page.
const HUGE: usize = CHUNK / 2;
/// Small pages that a sample of their price takes: those of tables that slabs of the chunk will have.
const SAMPLES: usize = 4;
/// A first touch takes longer, in nanoseconds.
const FAULT_NS: u64 = 50;

/// The reservations that chunks are cut from, for spans of one unit and for longer ones: each kind
/// has its own. Huge pages are asked for in one kind only, and to the kernel what is advised and
/// what is not are two mappings: chunks in turn would be a mapping each. In a reservation, what
/// was cut is one, and the rest another.
pub(super) struct Fresh {
    kinds: [Reservation; 2],
    /// What huge pages cost.
    price: Price,
}

impl Fresh {
    pub(super) const fn new() -> Self {
        Self {
            kinds: [const { Reservation::new() }; 2],
            price: Price::new(),
        }
    }

    fn of(&self, dense: bool) -> &Reservation {
        &self.kinds[usize::from(!dense)]
    }
}

impl Fresh {
    /// Asks for huge pages in a fresh chunk at `base`, if the options have it so, and by what they
    /// cost; whether it did.
    fn ask_for_huge(&self, chunk: &'static Chunk, base: NonNull<u8>) -> bool {
        match config::huge_pages() {
            HugePages::Off => return false,
            HugePages::Advise => {
                os::advise_huge(base, PageLen::CHUNK);
                return true;
            }
            HugePages::Auto => {}
        }
        let now = os::now_ms();
        match self.price.extent(now) {
            Extent::None => return false,
            Extent::Trial => os::advise_huge(base, PageLen::units(UNITS_PER_CHUNK / 2)),
            Extent::Whole => os::advise_huge(base, PageLen::CHUNK),
        }
        let small = || chunk.touch_unit_meta(SAMPLES);
        if let Some(price) = failpoints::huge_price().or_else(|| price_of(base, small)) {
            self.note(price, now);
        }
        true
    }

    /// Takes note of a sample.
    fn note(&self, price: u64, now: u64) {
        self.price.note(price, now);
        HIGH.set(u8::from(self.price.is_high()));
    }
}

/// Whether the heap grows because it is full, or as it spreads over classes and heaps: then most pages of its slabs stay
/// untouched, and a huge page would bring them in.
pub(super) struct Growth {
    /// Spans claimed since the last chunk was made.
    claims: GuardedUsize,
    /// Those that became the first slab of their class in their heap.
    firsts: GuardedUsize,
}

impl Growth {
    pub(super) const fn new() -> Self {
        Self {
            claims: GuardedUsize::new(0),
            firsts: GuardedUsize::new(0),
        }
    }

    pub(super) fn note(&self, purpose: Purpose) {
        self.claims.set(self.claims.get() + 1);
        let is_first = purpose == Purpose::First;
        self.firsts.set(self.firsts.get() + usize::from(is_first));
    }

    /// Whether it was full; counts anew.
    fn was_full(&self) -> bool {
        let (claims, firsts) = (self.claims.get(), self.firsts.get());
        self.claims.set(0);
        self.firsts.set(0);
        firsts <= claims / FIRST
    }
}

/// Asks for huge pages in a fresh mapping of a long block, by what they cost. Some mappings are samples: if one finds
/// them dear, it does without. `block` are the mapping's accessible bytes.
pub(crate) fn advise_by_price((base, length): (NonNull<u8>, PageLen), block: (NonNull<u8>, usize)) {
    let Some(fresh) = ARENA.making.try_lock() else {
        // Who makes a chunk takes a sample.
        if !huge_pages_are_dear() {
            os::advise_huge(base, length);
        }
        return;
    };
    let (price, now) = (&fresh.price, os::now_ms());
    if price.extent(now) == Extent::None {
        return;
    }
    os::advise_huge(base, length);
    if !price.wants_sample() {
        return;
    }
    let found = price_in_mapping(block);
    let Some(sample) = failpoints::huge_price().or(found) else {
        return;
    };
    fresh.note(sample, now);
    if !price.is_proved() {
        os::refuse_huge(base, length);
    }
}

/// What the first huge page of so many bytes costs, in small pages that are mapped for that.
fn price_in_mapping((block, bytes): (NonNull<u8>, usize)) -> Option<u64> {
    let address = block.addr().get();
    let first = address.next_multiple_of(HUGE) - address;
    if first + HUGE > bytes {
        return None;
    }
    // SAFETY: 1. a huge page's bytes before the end, as was just asked.
    let place = unsafe { crate::ptr::advance(block, first) };
    let page = os::page_size();
    let length = PageLen::kept(SAMPLES * page);
    let scratch = os::map(length, page, Access::Committed)?;
    let price = price_of(place, || {
        for offset in (0..length.bytes()).step_by(page) {
            // SAFETY: 1. inside the mapping.
            let place = unsafe { crate::ptr::advance(scratch, offset) };
            // SAFETY: 1. accessible, and nobody else's.
            unsafe { os::touch(place) };
        }
        SAMPLES as u64
    });
    // SAFETY: 1. our own, just mapped, and in nobody's use. If the kernel refuses, its pages stay.
    let _ = unsafe { os::unmap(scratch, length) };
    price
}

/// What the huge page at `base` costs, in small pages, of which `touch_small` touches some for the
/// first time; `None` if nobody can tell.
fn price_of(base: NonNull<u8>, touch_small: impl FnOnce() -> u64) -> Option<u64> {
    let begun = os::now_ns();
    // SAFETY: 1. the first byte of what was just mapped, and is nobody's yet.
    unsafe { os::touch(base) };
    let between = os::now_ns();
    let pages = touch_small();
    let small = os::now_ns().saturating_sub(between);
    // Pages that were in memory before cost next to nothing.
    let is_told = pages > 0 && small >= pages * FAULT_NS;
    is_told.then(|| between.saturating_sub(begun) * pages / small)
}

/// Whether huge pages are known to cost more than they save.
fn huge_pages_are_dear() -> bool {
    HIGH.get() != 0
}

/// A fresh chunk, in no list yet, made for spans as wanted, in a pool or in none.
pub(super) fn new_chunk(
    fresh: &Fresh,
    want: Want,
    pool: Option<&'static Pool>,
) -> Option<&'static Chunk> {
    let chunk = new_descriptor()?;
    let dense = pool.is_none() && want.is_dense();
    let new_addresses = || match pool {
        Some(pool) => pool.new_addresses(),
        None => fresh.of(dense).new_addresses(),
    };
    let base = has_tags(chunk).then(new_addresses).flatten();
    let Some(base) = base else {
        ARENA.lock().put_unused(chunk);
        return None;
    };
    let was_full = ARENA.lock().growth.was_full();
    let may_be_huge = dense && was_full && ARENA.counts.chunks() >= HUGE_FROM;
    let is_huge =
        pool.is_some_and(Pool::wants_huge) || may_be_huge && fresh.ask_for_huge(chunk, base);
    valgrind::fence_off(base, CHUNK);
    chunk.pool.set(pool);
    chunk.set_dense(dense);
    let is_small = pool.is_some_and(Pool::is_small);
    chunk.small_pages.set(u8::from(is_small));
    chunk.huge_pages.set(u8::from(is_huge));
    chunk.set_base(base.as_ptr());
    Some(chunk)
}

/// A descriptor whose tables are empty.
fn new_descriptor() -> Option<&'static Chunk> {
    let unused = ARENA.lock().take_unused();
    if unused.is_some() {
        return unused;
    }
    let table = meta::alloc(DESCRIPTOR)?;
    // SAFETY: 1. zeroed metadata of a descriptor's size, aligned to a line, never freed; all zero
    // is a descriptor without a chunk.
    let chunk: &'static Chunk = unsafe { table.cast::<Chunk>().as_ref() };
    let arena = ARENA.lock();
    chunk.listed(&arena).bin.set(NO_BIN);
    chunk.next_of_all.set(arena.all.get());
    arena.all.set(Some(chunk));
    Some(chunk)
}

impl Locked {
    fn take_unused(&self) -> Option<&'static Chunk> {
        let chunk = self.unused.get()?;
        self.unused.set(chunk.listed(self).next_unused.get());
        Some(chunk)
    }

    /// Keeps a descriptor without a chunk, which is in no list.
    pub(super) fn put_unused(&self, chunk: &'static Chunk) {
        chunk.listed(self).next_unused.set(self.unused.get());
        self.unused.set(Some(chunk));
    }
}

/// Whether the descriptor has the tags that the mode asks for, made on first use.
fn has_tags(chunk: &Chunk) -> bool {
    if !config::mode().has(Hardening::CHECKS) || chunk.tags.get().is_some() {
        return true;
    }
    let Some(table) = meta::alloc_pages(size_of::<Tags>()) else {
        return false;
    };
    // SAFETY: 1. zeroed metadata of this size, never freed; all zero is no live block.
    chunk
        .tags
        .set(Some(unsafe { table.cast::<Tags>().as_ref() }));
    true
}

/// Gives back what no chunk was cut from yet. Where the kernel refuses, it waits on.
pub(crate) fn unreserve() {
    let fresh = ARENA.making.lock();
    fresh.kinds.iter().for_each(Reservation::unreserve);
    // A statement of its own: the lock is not held while they go.
    let mut next = ARENA.lock().pools().next();
    while let Some(pool) = next {
        pool.reservation().unreserve();
        next = pool.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use std::thread;

    #[test]
    fn a_price_is_one_first_touch_in_others() {
        let mut byte = 0_u8;
        let place = NonNull::from(&mut byte);
        // One small page that takes 20 ms, beside a byte that is in memory: no page at all.
        let slow = || {
            thread::sleep(Duration::from_millis(20));
            1
        };
        let price = price_of(place, slow).expect("a price");
        assert!(price < 512, "{price}");
        // So many pages at once were in memory before; and none say nothing.
        assert_eq!(price_of(place, || u64::from(u32::MAX)), None);
        assert_eq!(price_of(place, || 0), None);
    }

    #[test]
    fn a_heap_that_spreads_is_not_full() {
        let growth = Growth::new();
        let note = |firsts: usize, others: usize| {
            (0..firsts).for_each(|_| growth.note(Purpose::First));
            (0..others).for_each(|_| growth.note(Purpose::More));
        };
        note(UNITS_PER_CHUNK, 0);
        assert!(!growth.was_full());
        note(9, 55);
        assert!(!growth.was_full());
        // Each chunk is judged by what was claimed since the last.
        note(8, 56);
        assert!(growth.was_full());
    }
}
