//! Chunks of address space, divided into spans of units.
//!
//! One lock guards every mask, list and count; no system call happens under it. Spans of one unit
//! (slabs of small blocks) and longer or aligned ones live in different chunks: the former fill their pages
//! densely and gain from huge pages, the latter may be touched sparsely and would be ruined by them.

mod chunk;
mod claim;
pub(crate) mod meta;
mod owner_map;
mod purge;
mod recover;
mod reserve;
mod runs;
pub(crate) mod tags;

pub(crate) use chunk::{Chunk, Span, UNIT_META, UnitKind};
pub(crate) use claim::{Zeroed, claim, claim_aligned};
pub(crate) use purge::{Age, decay, given_back};
pub(crate) use recover::recover;
pub(crate) use reserve::unreserve;

use core::convert::Infallible;

use self::chunk::Links;
use self::owner_map::OwnerMap;
use self::runs::longest_run;
use crate::error::{Misuse, Violation};
use crate::os::{self, Lock, failpoints};
use crate::size_map::MagazineOffset;
use crate::sync::{AtomicPtr, GuardedU8, GuardedU64, GuardedUsize, Link, same};
use crate::units::{CHUNK, UNIT, UnitCount, UnitIndex};

/// Free-run lists: chunks whose longest free run is `2^i` to `2^(i+1) - 1` units.
const BINS: usize = 7;
/// [`Chunk::bin`] of a chunk without free units.
const NO_BIN: u8 = u8::MAX;
/// Chunks by longest free run, shortest runs first.
type Bins = [Link<Chunk>; BINS];

struct Arena {
    lock: Lock<()>,
    /// For spans of one unit, and for longer ones.
    bins: [Bins; 2],
    /// Chunks with dirty units: the one not looked at for longest, and the newest.
    oldest: Link<Chunk>,
    newest: Link<Chunk>,
    /// Every descriptor, newest first.
    all: Link<Chunk>,
    /// Descriptors without a chunk.
    unused: Link<Chunk>,
    /// The reservation that chunks are cut from.
    fresh: AtomicPtr<u8>,
    fresh_left: GuardedUsize,
    /// Chunks that are there.
    chunks: GuardedUsize,
    /// Dirty units of all chunks.
    dirty_units: GuardedUsize,
    /// Spans released since the process began.
    released: GuardedU64,
    /// 1 while a forked child rebuilds: it may fork in turn.
    broken: GuardedU8,
    owners: OwnerMap,
}

static ARENA: Arena = Arena {
    lock: Lock::new(()),
    bins: [const { [const { Link::none() }; BINS] }; 2],
    oldest: Link::none(),
    newest: Link::none(),
    all: Link::none(),
    unused: Link::none(),
    fresh: AtomicPtr::new(core::ptr::null_mut()),
    fresh_left: GuardedUsize::new(0),
    chunks: GuardedUsize::new(0),
    dirty_units: GuardedUsize::new(0),
    released: GuardedU64::new(0),
    broken: GuardedU8::new(0),
    owners: OwnerMap::new(),
};

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
    let mut next = {
        let _held = ARENA.lock.lock();
        ARENA.all.get()
    };
    core::iter::from_fn(move || {
        let chunk = next?;
        next = chunk.next_of_all.get();
        Some(chunk)
    })
    .filter(|chunk| chunk.base().is_some())
}

/// Bytes of all chunks.
pub(crate) fn committed() -> usize {
    ARENA.chunks.get() * CHUNK
}

/// Bytes of all chunks that are in memory.
pub(crate) fn resident() -> usize {
    chunks()
        .filter_map(Chunk::base)
        .map(|base| os::resident(base, CHUNK))
        .sum()
}

/// Takes back a span. Its pages count as dirty.
pub(crate) fn release(span: Span) {
    let found: Result<Span, Infallible> = Ok(span);
    let Ok(()) = release_found(|| found);
}

/// Takes back the span that `find` finds, or says why there is none. The look and the release are one step
/// under the lock: of two frees of a span at the same time, the second finds none.
pub(crate) fn release_found<E>(find: impl FnOnce() -> Result<Span, E>) -> Result<(), E> {
    {
        let _held = ARENA.lock.lock();
        release_held(&find()?);
        ARENA.released.set(ARENA.released.get() + 1);
    }
    decay(Age::Due);
    Ok(())
}

/// Spans released since the process began.
pub(crate) fn released() -> u64 {
    ARENA.released.get()
}

fn release_held(span: &Span) {
    let Span {
        chunk,
        first,
        units,
    } = *span;
    chunk.mark(first, units, UnitKind::Free);
    failpoints::at(failpoints::Point::Release);
    let mask = first.mask(units);
    // Dirty before free: a child of a fork in between knows that old bytes are there.
    set_dirty(chunk, chunk.dirty.get() | mask);
    chunk.free.set(chunk.free.get() | mask);
    rebin(chunk);
}

/// Sets the dirty units of a chunk, and with them its place in the list by age. Locked.
fn set_dirty(chunk: &'static Chunk, dirty: u64) {
    let before = chunk.dirty.get();
    if before == dirty {
        return;
    }
    chunk.dirty.set(dirty);
    chunk.old.set(chunk.old.get() & dirty);
    let units = ARENA.dirty_units.get() + dirty.count_ones() as usize;
    ARENA.dirty_units.set(units - before.count_ones() as usize);
    if before == 0 {
        chunk.looked_at.set(os::now_ms());
        append_by_age(chunk);
    } else if dirty == 0 {
        remove_by_age(chunk);
    }
}

fn append_by_age(chunk: &'static Chunk) {
    let last = ARENA.newest.get();
    chunk.by_age.previous.set(last);
    chunk.by_age.next.set(None);
    last.map_or(&ARENA.oldest, |last| &last.by_age.next)
        .set(Some(chunk));
    ARENA.newest.set(Some(chunk));
}

fn remove_by_age(chunk: &'static Chunk) {
    let Links { next, previous } = &chunk.by_age;
    previous
        .get()
        .map_or(&ARENA.oldest, |before| &before.by_age.next)
        .set(next.get());
    next.get()
        .map_or(&ARENA.newest, |after| &after.by_age.previous)
        .set(previous.get());
}

/// Moves a chunk to the list of its longest free run. Locked.
fn rebin(chunk: &'static Chunk) {
    let longest = longest_run(chunk.free.get());
    #[expect(clippy::cast_possible_truncation, reason = "log2 of at most 64")]
    let bin = if longest == 0 {
        NO_BIN
    } else {
        longest.ilog2() as u8
    };
    if bin == chunk.bin.get() {
        return;
    }
    unbin(chunk);
    if let Some(list) = bins_of(chunk).get(bin as usize) {
        let first = list.get();
        chunk.by_run.previous.set(None);
        chunk.by_run.next.set(first);
        if let Some(first) = first {
            first.by_run.previous.set(Some(chunk));
        }
        list.set(Some(chunk));
        chunk.bin.set(bin);
    }
}

fn unbin(chunk: &'static Chunk) {
    let Some(list) = bins_of(chunk).get(chunk.bin.get() as usize) else {
        return;
    };
    let Links { next, previous } = &chunk.by_run;
    previous
        .get()
        .map_or(list, |before| &before.by_run.next)
        .set(next.get());
    if let Some(after) = next.get() {
        after.by_run.previous.set(previous.get());
    }
    chunk.bin.set(NO_BIN);
}

fn bins_of(chunk: &Chunk) -> &'static Bins {
    &ARENA.bins[usize::from(chunk.dense.get() == 0)]
}

/// Enters a fresh chunk, all free and clean, into the lists and the owner map. Locked.
fn insert_held(chunk: &'static Chunk) {
    chunk.mark(UnitIndex::new(0), UnitCount::new(64), UnitKind::Free);
    chunk.free.set(u64::MAX);
    chunk.purging.set(0);
    set_dirty(chunk, 0);
    rebin(chunk);
    enter(chunk);
}

/// Makes a chunk known by its address. Locked.
fn enter(chunk: &'static Chunk) {
    if let Some(base) = chunk.base() {
        ARENA.owners.set(base.addr().get(), Some(chunk));
    }
    ARENA.chunks.set(ARENA.chunks.get() + 1);
}

/// Checks what the arena derives from the unit tables (ALGORITHM.md, I7 and I8).
pub(crate) fn verify() -> Result<(), Violation> {
    let _held = ARENA.lock.lock();
    let (mut count, mut dirty_units) = (0, 0);
    let mut next = ARENA.all.get();
    while let Some(chunk) = next {
        next = chunk.next_of_all.get();
        let Some(base) = chunk.base() else { continue };
        let address = base.addr().get();
        let check = |holds: bool, invariant| {
            if holds {
                Ok(())
            } else {
                Err(Violation { invariant, address })
            }
        };
        check(
            address.is_multiple_of(CHUNK),
            "I7: chunks are aligned to their size",
        )?;
        if !same(owner(address), chunk) {
            // Between `new_chunk` and `insert_held`, or on its way out: not yet or no longer ours.
            continue;
        }
        let free = chunk.free.get() | chunk.purging.get();
        check(
            free == chunk.free_by_table(),
            "I7: the free mask agrees with the unit table",
        )?;
        check(
            chunk.dirty.get() & !chunk.free.get() == 0,
            "I7: dirty units are free",
        )?;
        check(
            chunk.misplaced().is_none(),
            "I10: only units of slabs have a magazine",
        )?;
        let longest = longest_run(chunk.free.get());
        let bin = longest.checked_ilog2().map_or(u32::from(NO_BIN), |log| log);
        check(
            u32::from(chunk.bin.get()) == bin,
            "I8: a chunk is in the list of its longest run",
        )?;
        count += 1;
        dirty_units += chunk.dirty.get().count_ones() as usize;
    }
    let address = 0;
    if count != ARENA.chunks.get() {
        return Err(Violation {
            invariant: "I8: chunks are counted",
            address,
        });
    }
    if dirty_units != ARENA.dirty_units.get() {
        return Err(Violation {
            invariant: "I8: dirty units are counted",
            address,
        });
    }
    Ok(())
}

/// Bytes of free units whose pages may be resident.
fn dirty_bytes() -> usize {
    ARENA.dirty_units.get() * UNIT
}
