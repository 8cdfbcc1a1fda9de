//! Chunks of address space, divided into spans of units.
//!
//! One lock guards every mask, list and count; no system call happens under it. Another is held by
//! who makes a chunk, for which system calls are needed. Spans of one unit
//! (slabs of small blocks) and longer or aligned ones live in different chunks: the former fill their pages
//! densely and gain from huge pages, the latter may be touched sparsely and would be ruined by them.

mod chunk;
mod claim;
mod counts;
#[cfg(feature = "heaps")]
mod gigantic;
mod masks;
pub(crate) mod meta;
mod owner_map;
#[cfg_attr(not(feature = "heaps"), path = "pool_off.rs")]
mod pool;
mod price;
mod purge;
mod recover;
mod reservation;
mod reserve;
mod runs;
mod span;
mod span_use;
pub(crate) mod tags;
#[cfg(feature = "heaps")]
mod tenants;
mod under_way;
mod verify;

pub(crate) use chunk::{Chunk, UNIT_META, UnitKind};
#[cfg(feature = "heaps")]
pub(crate) use claim::claim_in_pool;
pub(crate) use claim::{Zeroed, claim, claim_aligned};
pub(crate) use pool::taken;
#[cfg(feature = "heaps")]
pub(crate) use pool::{Pool, pool};
pub(crate) use purge::{Age, decay, given_back};
pub(crate) use recover::{Whole, recover};
pub(crate) use reserve::{advise_by_price, unreserve};
#[cfg(feature = "heaps")]
pub(crate) use runs::first_run_of;
pub(crate) use runs::{Purpose, longest_run};
pub(crate) use span::Span;
pub(crate) use span_use::SpanUse;
#[cfg(feature = "heaps")]
pub(crate) use tenants::{GRANULE, set_tenant, tenant};
#[cfg(feature = "failpoints")]
pub use verify::spans_on_their_way;
pub(crate) use verify::verify;

use self::chunk::Links;
use self::counts::Counts;
use self::masks::{Change, Masks};
use self::owner_map::OwnerMap;
#[cfg(not(feature = "heaps"))]
use self::pool::Pool;
use self::reserve::{Fresh, Growth};
use self::under_way::UnderWay;
use crate::demand::DEMAND;
use crate::error::Misuse;
use crate::os::{self, Held, Lock, PageLen, failpoints};
use crate::size_map::MagazineOffset;
use crate::sync::{GuardedU8, GuardedUsize, Link, OwnLines};
use crate::units::{CHUNK, UNIT, UnitCount, UnitIndex};

/// Free-run lists: chunks whose longest free run is `2^i` to `2^(i+1) - 1` units.
const BINS: usize = 7;
/// What [`chunk::Listed::bin`] is for a chunk without free units.
const NO_BIN: u8 = u8::MAX;
/// Chunks by longest free run, shortest runs first.
type Bins = [Link<Chunk>; BINS];

/// What the arena's lock guards. Who has a reference to it holds the lock: only [`Arena::lock`]
/// gives one, and, to the repair of a forked child, [`Arena::break_lock`]. So functions that need
/// the lock are methods here, or ask for a reference (`_: &Locked`). Cells, not plain fields: a
/// child finds them as the stores before the fork left them.
struct Locked {
    /// For spans of one unit, and for longer ones.
    bins: [Bins; 2],
    /// Chunks with dirty units: the one not looked at for longest, and the newest.
    oldest: Link<Chunk>,
    newest: Link<Chunk>,
    /// Every descriptor, newest first.
    all: Link<Chunk>,
    /// The newest of the pools.
    first_pool: Link<Pool>,
    /// Descriptors without a chunk.
    unused: Link<Chunk>,
    /// Dirty units of all chunks.
    dirty_units: GuardedUsize,
    /// Units of all spans.
    used_units: GuardedUsize,
    growth: Growth,
}

struct Arena {
    lock: OwnLines<Lock<Locked>>,
    /// Held while a chunk is made, above `lock`: others who need one wait and look again.
    making: OwnLines<Lock<Fresh>>,
    counts: OwnLines<Counts>,
    /// 1 from when a forked child finds something half done until it is repaired: it may fork in turn.
    broken: GuardedU8,
    under_way: UnderWay,
    owners: OwnerMap,
}

static ARENA: Arena = Arena {
    lock: OwnLines(Lock::new(Locked {
        bins: [const { [const { Link::none() }; BINS] }; 2],
        oldest: Link::none(),
        newest: Link::none(),
        all: Link::none(),
        first_pool: Link::none(),
        unused: Link::none(),
        dirty_units: GuardedUsize::new(0),
        used_units: GuardedUsize::new(0),
        growth: Growth::new(),
    })),
    making: OwnLines(Lock::new(Fresh::new())),
    counts: OwnLines(Counts::new()),
    broken: GuardedU8::new(0),
    under_way: UnderWay::new(),
    owners: OwnerMap::new(),
};

impl Arena {
    fn lock(&self) -> Held<'_, Locked> {
        self.lock.lock()
    }

    /// The repair's way in: takes the lock from a thread that is gone, and keeps in mind that it
    /// had it. A chunk that another was making is lost.
    ///
    /// # Safety
    /// 1. This is the only thread inside the allocator, and it does not hold the lock.
    unsafe fn break_lock(&self) -> Held<'_, Locked> {
        // Before the lock is broken: a child of this child finds it free, and what it guards torn.
        if self.lock.is_locked() {
            self.broken.set(1);
        }
        self.lock.break_inherited();
        self.making.break_inherited();
        self.lock()
    }
}

/// The chunk that holds `address`, if it is ours. Lock-free.
#[inline]
pub(crate) fn owner(address: usize) -> Option<&'static Chunk> {
    ARENA.owners.get(address)
}

/// Where the magazine of the block at `address` stands: that of none, or `None`, for what is no block. Lock-free.
#[inline(always)]
pub(crate) fn magazine_offset(address: usize) -> Option<MagazineOffset> {
    ARENA.owners.magazine_offset(address)
}

/// Why nothing of this kind that a user holds begins at `address`, as far as the unit there tells.
#[cold]
pub(crate) fn why_none(address: usize, kind: UnitKind) -> Misuse {
    let Some(chunk) = owner(address) else {
        return Misuse::Foreign;
    };
    match chunk.kind(UnitIndex::of(address)) {
        UnitKind::Free | UnitKind::Claimed => Misuse::Vacant,
        found if found == kind => Misuse::Interior,
        _ => Misuse::WrongClass,
    }
}

/// Every chunk that is there.
pub(crate) fn chunks() -> impl Iterator<Item = &'static Chunk> {
    let first = ARENA.lock().all.get();
    chunks_from(first)
}

/// Those from a descriptor on. A descriptor's link to the next is never changed once it is in the
/// list.
fn chunks_from(mut next: Option<&'static Chunk>) -> impl Iterator<Item = &'static Chunk> {
    core::iter::from_fn(move || {
        let chunk = next?;
        next = chunk.next_of_all.get();
        Some(chunk)
    })
    .filter(|chunk| chunk.base().is_some())
}

/// Bytes of all chunks.
pub(crate) fn committed() -> usize {
    ARENA.counts.chunks() * CHUNK
}

/// Bytes of all chunks that are in memory.
pub(crate) fn resident() -> usize {
    chunks()
        .filter_map(Chunk::base)
        .map(|base| os::resident(base, PageLen::CHUNK))
        .sum()
}

/// Takes back the span of what was a slab. Its pages count as dirty.
pub(crate) fn release(span: Span) {
    {
        let arena = ARENA.lock();
        arena.release(&span);
        ARENA.under_way.end_leaving(span.chunk, span.first);
    }
    decay(Age::Due);
}

/// Takes back spans, all in one hold of the lock.
pub(crate) fn release_all(spans: impl Iterator<Item = Span>) {
    let arena = ARENA.lock();
    for span in spans {
        arena.release(&span);
    }
}

/// Takes back the span that `find` finds, or says why there is none. The look and the release are one step
/// under the lock: of two frees of a span at the same time, the second finds none.
pub(crate) fn release_found<E>(find: impl FnOnce() -> Result<Span, E>) -> Result<(), E> {
    {
        let arena = ARENA.lock();
        arena.release(&find()?);
    }
    decay(Age::Due);
    Ok(())
}

/// Spans released since the process began.
pub(crate) fn released() -> u64 {
    ARENA.counts.released()
}

impl Locked {
    fn release(&self, span: &Span) {
        let Span {
            chunk,
            first,
            units,
        } = *span;
        chunk.mark(first, units, UnitKind::Free);
        failpoints::at(failpoints::Point::Release);
        let used = self.used_units.get() - units.get() as usize;
        self.used_units.set(used);
        DEMAND.note_fewer_spans(used * UNIT);
        if chunk.is_gigantic() {
            self.change(chunk, |masks| masks.release_whole(first.mask(units)));
        } else {
            self.change(chunk, |masks| masks.release(first.mask(units)));
        }
        ARENA.counts.add_released(self);
    }

    /// Changes a chunk's masks, and what follows from them: counts, and its places in the lists.
    fn change(&self, chunk: &'static Chunk, step: impl FnOnce(&Masks) -> Change) {
        let change = step(&chunk.listed(self).masks);
        if change.before != change.after {
            self.note_dirty(chunk, change);
        }
        self.rebin(chunk);
    }

    /// Where huge pages may come in, clean units come in beside used ones: from here on they count as
    /// dirty. That they are still zero is forgotten, which nobody asks of spans of one unit.
    fn note_huge(&self, chunk: &'static Chunk) {
        if chunk.huge_pages.get() != 0 {
            self.change(chunk, Masks::soil);
        }
    }

    /// Counts a chunk's dirty units anew once they changed, and sees to its place by age.
    #[inline(never)]
    fn note_dirty(&self, chunk: &'static Chunk, change: Change) {
        let Change { before, after } = change;
        let units = self.dirty_units.get() + after.count_ones() as usize;
        self.dirty_units.set(units - before.count_ones() as usize);
        // Units are released, or claimed and purged: of one chunk at a time, never both.
        if after & !before != 0 {
            DEMAND.note_more_dirty(self.dirty_bytes());
        } else {
            DEMAND.note_fewer_dirty(self.dirty_bytes());
        }
        if before == 0 {
            chunk.listed(self).looked_at.set(os::now_ms());
            self.append_by_age(chunk);
        } else if after == 0 {
            self.remove_by_age(chunk);
        }
    }

    fn append_by_age(&self, chunk: &'static Chunk) {
        let last = self.newest.get();
        let own = &chunk.listed(self).by_age;
        own.previous.set(last);
        own.next.set(None);
        last.map_or(&self.oldest, |last| &last.listed(self).by_age.next)
            .set(Some(chunk));
        self.newest.set(Some(chunk));
    }

    fn remove_by_age(&self, chunk: &'static Chunk) {
        let Links { next, previous } = &chunk.listed(self).by_age;
        previous
            .get()
            .map_or(&self.oldest, |before| &before.listed(self).by_age.next)
            .set(next.get());
        next.get()
            .map_or(&self.newest, |after| &after.listed(self).by_age.previous)
            .set(previous.get());
    }

    /// Moves a chunk to the list of its longest free run.
    #[inline(never)]
    fn rebin(&self, chunk: &'static Chunk) {
        let listed = chunk.listed(self);
        let longest = longest_run(listed.masks.free());
        #[expect(clippy::cast_possible_truncation, reason = "log2 of at most 64")]
        let bin = if longest == 0 {
            NO_BIN
        } else {
            longest.ilog2() as u8
        };
        if bin == listed.bin.get() {
            return;
        }
        self.unbin(chunk);
        if let Some(list) = self.bins_of(chunk).get(bin as usize) {
            let first = list.get();
            listed.by_run.previous.set(None);
            listed.by_run.next.set(first);
            if let Some(first) = first {
                first.listed(self).by_run.previous.set(Some(chunk));
            }
            list.set(Some(chunk));
            listed.bin.set(bin);
        }
    }

    fn unbin(&self, chunk: &'static Chunk) {
        let listed = chunk.listed(self);
        let Some(list) = self.bins_of(chunk).get(listed.bin.get() as usize) else {
            return;
        };
        let Links { next, previous } = &listed.by_run;
        previous
            .get()
            .map_or(list, |before| &before.listed(self).by_run.next)
            .set(next.get());
        if let Some(after) = next.get() {
            after.listed(self).by_run.previous.set(previous.get());
        }
        listed.bin.set(NO_BIN);
    }

    /// The lists that a chunk may be in.
    fn bins_of(&self, chunk: &'static Chunk) -> &Bins {
        match chunk.pool.get() {
            Some(pool) => pool.bins(self),
            None => self.bins(chunk.is_dense()),
        }
    }

    /// The lists of chunks that serve spans of one unit, or of those that serve longer ones.
    fn bins(&self, dense: bool) -> &Bins {
        &self.bins[usize::from(!dense)]
    }

    /// Enters a fresh chunk, all free and clean, into the lists and the owner map.
    fn insert(&self, chunk: &'static Chunk) {
        chunk.mark(UnitIndex::new(0), UnitCount::new(64), UnitKind::Free);
        self.change(chunk, Masks::reset);
        self.enter(chunk);
    }

    /// Makes a chunk known by its address.
    fn enter(&self, chunk: &'static Chunk) {
        if let Some(base) = chunk.base() {
            ARENA.owners.set(self, base.addr().get(), Some(chunk));
        }
        ARENA.counts.set_chunks(self, ARENA.counts.chunks() + 1);
    }

    /// Every chunk that is there.
    fn chunks(&self) -> impl Iterator<Item = &'static Chunk> {
        chunks_from(self.all.get())
    }

    /// Bytes of free units whose pages may be resident.
    fn dirty_bytes(&self) -> usize {
        self.dirty_units.get() * UNIT
    }
}
