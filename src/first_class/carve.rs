//! Blocks of memory with attributes, for the heaps that ask for these: spans of a pool, whole or cut into granules.
//!
//! A *plot* is a span of one unit that is cut: a word says which granules of it somebody has. Plots with room are in
//! lists by their longest free run. One lock for each pool guards its plots. The words are the truth: a child of a fork
//! that finds the lock held makes the lists anew from them.

use core::ptr::NonNull;

use super::engine::CONFIG;
use super::wanted::Refused;
use crate::arena::{
    self, Chunk, GRANULE, Pool, Span, UNIT_META, UnitKind, Zeroed, first_run_of, longest_run,
};
use crate::config::Attributes;
use crate::os::{self, Held, Lock, NotGranted, PageLen, failpoints};
use crate::sync::{GuardedPtr, GuardedU8, GuardedU64, Link};
use crate::threads;
use crate::units::{UNIT, UnitCount, UnitIndex, low_bits};

/// Granules of a plot: one bit each.
const GRANULES: usize = UNIT / GRANULE;

/// Lists of plots whose longest free run is `2^i` to `2^(i+1) - 1` granules.
const LISTS: usize = GRANULES.ilog2() as usize + 1;

/// Plots looked at in the list that may or may not hold a long enough run.
const TRIES: usize = 4;

/// What serves the heaps with some attributes.
pub(super) struct Carver {
    pool: &'static Pool,
    /// 1 from when a forked child finds the lock held until it has made the lists anew.
    torn: GuardedU8,
    lists: Lock<Lists>,
    next: Link<Self>,
}

/// Plots by their longest free run.
type Lists = [GuardedPtr<Plot>; LISTS];

/// The newest of all.
static FIRST: Lock<Link<Carver>> = Lock::new(Link::none());

/// One plot, in what its chunk keeps for its unit; zero where a span of a pool is none.
struct Plot {
    /// The unit; written last.
    base: GuardedPtr<u8>,
    taken: GuardedU64,
    /// Its list and one more; 0 for none.
    list: GuardedU8,
    next: GuardedPtr<Self>,
    previous: GuardedPtr<Self>,
}

static_assertions::const_assert!(size_of::<Plot>() <= UNIT_META);
static_assertions::const_assert!(GRANULES <= 64);

impl Plot {
    /// The place of a unit's.
    fn at(chunk: &'static Chunk, unit: UnitIndex) -> NonNull<Self> {
        chunk.unit_meta(unit).cast()
    }

    /// Those of a chunk.
    fn of_chunk(chunk: &'static Chunk) -> impl Iterator<Item = &'static Self> {
        let begins =
            |unit: &UnitIndex| chunk.kind(*unit) == UnitKind::Carved && chunk.head(*unit) == *unit;
        // SAFETY: 1. of a span that was carved or is whole: then it is all zero.
        let plot = move |unit| unsafe { Self::at(chunk, unit).as_ref() };
        let plots = UnitIndex::all().filter(begins).map(plot);
        plots.filter(|plot: &&Self| plot.base.get().is_some())
    }

    fn free(&self) -> u64 {
        !self.taken.get() & low_bits(GRANULES)
    }

    /// The list that it belongs in.
    fn list(&self) -> Option<usize> {
        longest_run(self.free())
            .checked_ilog2()
            .map(|log| log as usize)
    }
}

impl Carver {
    /// That of these attributes, made on first use, if the kernel and the machine have such memory.
    pub(super) fn of(attributes: Attributes) -> Result<&'static Self, Refused> {
        threads::begin(&CONFIG);
        // A child of a fork: a carver that was being entered is lost.
        FIRST.break_inherited();
        let first = FIRST.lock();
        let mut next = first.get();
        while let Some(carver) = next {
            if carver.pool.attributes() == attributes {
                return Ok(carver);
            }
            next = carver.next.get();
        }
        attributes.try_out().map_err(|why| match why {
            NotGranted::NoMemory => Refused::NoMemory,
            NotGranted::Unknown => Refused::Unsupported,
        })?;
        let pool = arena::pool(attributes).ok_or(Refused::NoMemory)?;
        let place = arena::meta::alloc(size_of::<Self>()).ok_or(Refused::NoMemory)?;
        let place = place.cast::<Self>();
        let fresh = Self {
            pool,
            torn: GuardedU8::new(0),
            lists: Lock::new([const { GuardedPtr::null() }; LISTS]),
            next: Link::none(),
        };
        fresh.next.set(first.get());
        // SAFETY: 1. metadata of this size, aligned to a line, that nobody else has.
        unsafe { place.write(fresh) };
        // SAFETY: 1. just written, and never freed.
        let fresh: &'static Self = unsafe { place.as_ref() };
        first.set(Some(fresh));
        Ok(fresh)
    }

    pub(super) fn attributes(&self) -> Attributes {
        self.pool.attributes()
    }

    /// The lock; in a forked child, taken from a thread that is gone.
    fn lock(&self) -> Held<'_, Lists> {
        threads::begin(&CONFIG);
        if self.lists.is_inherited() {
            // Before the lock is broken: a child of this child finds it free.
            self.torn.set(1);
            self.lists.break_inherited();
        }
        let lists = self.lists.lock();
        if self.torn.get() != 0 {
            self.make_anew(&lists);
            self.torn.set(0);
        }
        lists
    }

    /// A block of so many bytes, at most a unit, aligned to at most one.
    fn carve(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let (count, step) = (granules(bytes), granules(align));
        let lists = self.lock();
        let plot = match find(&lists, count, step) {
            Some(plot) => plot,
            None => self.begin()?,
        };
        let first = first_run_of(plot.free(), count, step)? as usize;
        let taken = low_bits(count as usize) << first;
        plot.taken.set(plot.taken.get() | taken);
        failpoints::at(failpoints::Point::Heap);
        relist(&lists, plot);
        // SAFETY: 1. inside the unit.
        Some(unsafe { crate::ptr::advance(plot.base.get()?, first * GRANULE) })
    }

    /// A plot of which nobody has anything, in no list.
    fn begin(&self) -> Option<&'static Plot> {
        let (span, _) = arena::claim_in_pool(self.pool, UnitCount::new(1), 1)?;
        let plot = Plot::at(span.chunk, span.first);
        let fresh = Plot {
            base: GuardedPtr::null(),
            taken: GuardedU64::new(0),
            list: GuardedU8::new(0),
            next: GuardedPtr::null(),
            previous: GuardedPtr::null(),
        };
        fresh.base.set(Some(span.base()));
        // SAFETY: 1. set aside for this unit, which nobody else has, and large enough.
        unsafe { plot.write(fresh) };
        span.become_kind(UnitKind::Carved);
        // SAFETY: 1. just written; the chunk's descriptor is never freed.
        Some(unsafe { plot.as_ref() })
    }

    /// Takes back what [`carve`](Self::carve) gave.
    fn give_back(&self, chunk: &'static Chunk, block: NonNull<u8>, bytes: usize) {
        let address = block.addr().get();
        let (count, first) = (granules(bytes) as usize, address % UNIT / GRANULE);
        let lists = self.lock();
        let unit = UnitIndex::of(address);
        // SAFETY: 1. of a plot, as the block is one of its.
        let plot: &'static Plot = unsafe { Plot::at(chunk, unit).as_ref() };
        plot.taken
            .set(plot.taken.get() & !(low_bits(count) << first));
        failpoints::at(failpoints::Point::Heap);
        if plot.taken.get() == 0 {
            unlist(&lists, plot);
            // SAFETY: 1. nobody has anything of it, and nobody finds it any more.
            release(unsafe { chunk.span(unit) });
        } else {
            relist(&lists, plot);
        }
    }

    /// Makes the lists from the plots, in a forked child.
    fn make_anew(&self, lists: &Lists) {
        lists.iter().for_each(|list| list.set(None));
        let of_pool = |chunk: &&'static Chunk| chunk.is_of(self.pool);
        for plot in arena::chunks().filter(of_pool).flat_map(Plot::of_chunk) {
            plot.list.set(0);
            relist(lists, plot);
        }
    }
}

/// Granules that hold so many bytes, at most a unit's.
fn granules(bytes: usize) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "at most 32")]
    {
        bytes.div_ceil(GRANULE) as u32
    }
}

/// A plot with so long a run.
fn find(lists: &Lists, count: u32, step: u32) -> Option<&'static Plot> {
    let unsure = count.ilog2() as usize;
    // Wherever such a run begins, it holds an aligned one.
    let sure = (count + step - 1).next_power_of_two().ilog2() as usize;
    // SAFETY: 1. in a list: a plot, whose chunk's descriptor is never freed.
    let plot = |place: &GuardedPtr<Plot>| place.get().map(|plot| unsafe { plot.as_ref() });
    for list in &lists[unsure..sure.min(LISTS)] {
        let mut next: Option<&'static Plot> = plot(list);
        for _ in 0..TRIES {
            let Some(candidate) = next else { break };
            if first_run_of(candidate.free(), count, step).is_some() {
                return Some(candidate);
            }
            next = plot(&candidate.next);
        }
    }
    lists.get(sure..)?.iter().find_map(plot)
}

/// Moves a plot to the list of its longest free run.
fn relist(lists: &Lists, plot: &'static Plot) {
    let list = plot.list();
    #[expect(clippy::cast_possible_truncation, reason = "few lists")]
    let number = list.map_or(0, |list| list as u8 + 1);
    if number == plot.list.get() {
        return;
    }
    unlist(lists, plot);
    if let Some(list) = list {
        let first = lists[list].get();
        plot.previous.set(None);
        plot.next.set(first);
        if let Some(first) = first {
            // SAFETY: 1. in a list: a plot.
            unsafe { first.as_ref() }.previous.set(Some(plot.into()));
        }
        lists[list].set(Some(plot.into()));
        plot.list.set(number);
    }
}

fn unlist(lists: &Lists, plot: &'static Plot) {
    let Some(list) = usize::from(plot.list.get()).checked_sub(1) else {
        return;
    };
    let (next, previous) = (plot.next.get(), plot.previous.get());
    match previous {
        // SAFETY: 1. in a list: a plot.
        Some(before) => unsafe { before.as_ref() }.next.set(next),
        None => lists[list].set(next),
    }
    if let Some(after) = next {
        // SAFETY: 1. in a list: a plot.
        unsafe { after.as_ref() }.previous.set(previous);
    }
    plot.list.set(0);
}

/// A span of a pool that is claimed is no plot.
fn clear(span: &Span) {
    let place = Plot::at(span.chunk, span.first);
    // SAFETY: 1. set aside for this unit, which the span has; all zero is none.
    unsafe { place.write_bytes(0, 1) };
}

/// Gives a span back to its pool.
fn release(span: Span) {
    span.become_kind(UnitKind::Claimed);
    // Who has the unit next finds zeros.
    clear(&span);
    arena::release(span);
}

/// Bytes that what is asked for counts for and may be used: granules, or whole pages of a longer span.
pub(super) fn rounded(size: usize, align: usize) -> usize {
    let step = if is_cut(size, align) {
        GRANULE
    } else {
        os::page_size()
    };
    size.next_multiple_of(step)
}

fn is_cut(size: usize, align: usize) -> bool {
    size <= UNIT && align <= UNIT
}

impl Carver {
    /// A block of at most a chunk.
    pub(super) fn block(&self, size: usize, align: usize, wanted: Zeroed) -> Option<NonNull<u8>> {
        let bytes = rounded(size, align);
        let block = if is_cut(size, align) {
            let block = self.carve(bytes, align)?;
            if wanted == Zeroed::Yes {
                // SAFETY: 1. a fresh block of so many bytes.
                unsafe { block.write_bytes(0, bytes) };
            }
            block
        } else {
            let (span, zeroed) =
                arena::claim_in_pool(self.pool, UnitCount::holding(bytes)?, align)?;
            let block = span.base();
            if wanted == Zeroed::Yes && zeroed == Zeroed::No {
                if self.attributes().is_gigantic {
                    // The kernel takes back no part of such a page, and says that it did.
                    // SAFETY: 1. our own, just claimed, in nobody's use.
                    unsafe { block.write_bytes(0, bytes) };
                } else {
                    // SAFETY: 1. as above.
                    let _ = unsafe { os::zero(block, PageLen::kept(bytes)) };
                }
            }
            clear(&span);
            span.become_kind(UnitKind::Carved);
            block
        };
        self.pool.note_taken(bytes);
        Some(block)
    }

    /// Takes back what [`block`](Self::block) gave for this layout.
    ///
    /// # Safety
    /// 1. It is live and of this layout.
    /// 2. Nobody uses it any more.
    pub(super) unsafe fn free(&self, block: NonNull<u8>, size: usize, align: usize) {
        let address = block.addr().get();
        let Some(chunk) = arena::owner(address) else {
            return;
        };
        let bytes = rounded(size, align);
        if is_cut(size, align) {
            self.give_back(chunk, block, bytes);
        } else {
            // SAFETY: 1. the block is all of it, which nobody uses.
            release(unsafe { chunk.span(UnitIndex::of(address)) });
        }
        self.pool.note_given_back(bytes);
    }

    /// A block of more than a chunk in gigantic pages, zero; `None` also if the attributes have none.
    pub(super) fn long(&self, size: usize) -> Option<NonNull<u8>> {
        self.pool.take_long(size)
    }

    /// Takes back what [`long`](Self::long) gave for so many bytes.
    ///
    /// # Safety
    /// 1. Nobody uses it any more.
    pub(super) unsafe fn free_long(&self, block: NonNull<u8>, size: usize) {
        self.pool.give_long(block, size);
    }
}
