//! Freed spans that a thread keeps for itself: a free and an allocation of the same number of units leave
//! the arena, and other threads, alone.
//!
//! A stock lists spans by their units, those freed last on top. It keeps a share of what is in use.
//! What is beyond goes to the arena, many spans in one hold of its lock. So does at each look what was not taken
//! since the last.
//!
//! **Who may use it**: its thread, in brief work or with its gate; who holds that thread off, if it is at rest; who
//! has the cache of no thread.
//!
//! **What a fork leaves.** The state of a span ([`SpanUse`]) says whether it lies in a stock, and in which.
//! Each step writes its list first where a span comes in, and last where one goes. So a child keeps what its state
//! says is there, once, and drops the rest.

use core::ptr::NonNull;

use super::SPAN_UNITS;
use super::site::use_at;
use super::span::Freed;
use crate::arena::{self, Age, Span, SpanUse, meta};
use crate::config;
use crate::demand::DEMAND;
use crate::error::Violation;
use crate::os::failpoints;
use crate::sync::{
    AtomicU32, AtomicUsize, GuardedU8, GuardedU32, GuardedUsize, Link, Ordering, OwnLines, same,
};
use crate::units::{LINE, UNIT, UnitCount};

/// Most spans of a number of units: half of them leave in one hold of the arena's lock, which takes some
/// microseconds.
const DEPTH: usize = 16;
/// The stocks of all threads may keep one of so many bytes in use: sizes that differ are freed and wanted in
/// turn, so that some of each must wait. A thread that asks may have half of what others leave: one an eighth, two a
/// twelfth each.
const SHARE: usize = 4;
/// Units that a stock may keep where little is live: a few of the short spans that are most.
const LEAST: usize = 4;
/// Units that all may keep where little is live, beyond which there is no least.
const LEAST_OF_ALL: usize = 64 * LEAST;

/// One thread's. All zero is empty.
#[repr(C, align(64))]
pub(crate) struct Stock {
    /// A number that no other stock has.
    number: GuardedU32,
    /// Units that may come in before it is asked anew how many there may be.
    room: GuardedUsize,
    /// How many there may be, as of the last time that this was asked.
    granted: GuardedUsize,
    /// How many spans of each number of units there are.
    counts: [GuardedU8; SPAN_UNITS],
    /// The least that there were since the last look: so many at the bottom were not taken.
    least: [GuardedU8; SPAN_UNITS],
    /// Those of one number of units, the newest last.
    spans: [[Link<SpanUse>; DEPTH]; SPAN_UNITS],
}

/// The stocks that were made.
static MADE: AtomicU32 = AtomicU32::new(0);
/// What was granted to all of them, in units. An estimate in a forked child.
static GRANTED: OwnLines<AtomicUsize> = OwnLines(AtomicUsize::new(0));

impl Stock {
    /// A stock for a thread. `None` without memory.
    pub(crate) fn create() -> Option<&'static Self> {
        const { assert!(align_of::<Self>() == LINE) };
        let stock = meta::alloc(size_of::<Self>())?;
        // SAFETY: 1. zeroed metadata of this size, aligned to a line, never freed; all zero is an
        // empty stock.
        let stock: &'static Self = unsafe { stock.cast().as_ref() };
        // ORDERING: a number.
        stock.number.set(MADE.fetch_add(1, Ordering::Relaxed));
        Some(stock)
    }

    /// A block of `size` bytes in a span of `units`, if there is one.
    #[inline(always)]
    pub(crate) fn take(&self, units: UnitCount, size: usize, align: usize) -> Option<NonNull<u8>> {
        let list = units.get() as usize - 1;
        let left = self.counts.get(list)?.get().checked_sub(1)?;
        let held = self.spans[list].get(usize::from(left))?.get()?;
        // First: in a child of a fork from here on it is its user's.
        let block = held.hand_out_again(size, align)?;
        failpoints::at(failpoints::Point::Stock);
        self.counts[list].set(left);
        self.least[list].set(self.least[list].get().min(left));
        self.room.set(self.room.get() + units.get() as usize);
        Some(block)
    }

    /// Takes the span of the block from its user, if it has so many units. Unless that is said, nothing was
    /// done.
    #[inline(always)]
    pub(crate) fn put(&self, block: NonNull<u8>, units: Option<UnitCount>) -> Freed {
        let Some((_, _, held)) = use_at(block) else {
            return Freed::No;
        };
        let found = held.units();
        // OVERFLOW: no list has that index.
        let list = usize::from(found.wrapping_sub(1));
        // Of one unit there are some that were aligned, for which nobody asks again.
        if list == 0
            || list >= SPAN_UNITS
            || units.is_some_and(|units| units.get() != u32::from(found))
        {
            return Freed::No;
        }
        let count = self.counts[list].get();
        match self.room.get().checked_sub(usize::from(found)) {
            Some(room) if usize::from(count) < DEPTH => {
                self.insert(block, held, [list, usize::from(count), room])
            }
            _ => Freed::Full,
        }
    }

    /// Inserts a span at its place in a list, and has so much room from then on.
    #[inline(always)]
    fn insert(
        &self,
        block: NonNull<u8>,
        held: &'static SpanUse,
        [list, place, room]: [usize; 3],
    ) -> Freed {
        // First: a child for which it is still its user's drops it here.
        self.spans[list][place].set(Some(held));
        let counts = &self.counts[list];
        counts.set(counts.get() + 1);
        failpoints::at(failpoints::Point::Stock);
        if !held.take_back(block, self.number.get()) {
            // It is not his, or another free was first.
            counts.set(counts.get() - 1);
            return Freed::No;
        }
        self.room.set(room);
        Freed::Yes
    }

    /// Makes room in a list of spans of so many units, as far as it may have any: others go to the arena, whose lock
    /// is taken.
    #[cold]
    pub(crate) fn make_room_for(&self, units: UnitCount) {
        let units = units.get() as usize;
        let Some(count) = self.counts.get(units - 1) else {
            return;
        };
        if usize::from(count.get()) == DEPTH {
            self.release_oldest(units - 1, DEPTH / 2);
        }
        let most = self.ask(units);
        let mut kept = self.units();
        if kept + units > most {
            for list in 0..SPAN_UNITS {
                let count = usize::from(self.counts[list].get());
                self.release_oldest(list, count.div_ceil(4));
            }
            kept = self.units();
        }
        self.room.set(most.saturating_sub(kept));
    }

    /// Asks how many units the stock may have, that is to take in a span of `units`.
    fn ask(&self, units: usize) -> usize {
        if config::purge_delay_ms() == 0 {
            // What is freed goes back at once.
            self.grant(0);
            return 0;
        }
        // ORDERING: an estimate.
        let granted = GRANTED.load(Ordering::Relaxed);
        let others = granted.saturating_sub(self.granted.get());
        let all = DEMAND.part(SHARE, 0) / UNIT;
        let share = all.saturating_sub(others) / 2;
        let most = if others <= all.max(LEAST_OF_ALL) {
            // One of any length, in a stock that has no other.
            share.max(LEAST).max(units)
        } else {
            share
        };
        // They are free units to the user.
        let bound = config::thread_cache().min(config::dirty_budget());
        let most = most.min(bound / UNIT);
        self.grant(most);
        most
    }

    fn grant(&self, most: usize) {
        let before = self.granted.get();
        self.granted.set(most);
        if most != before {
            // OVERFLOW: modulo 2^64, of which the sum of all is a small part.
            // ORDERING: an estimate.
            GRANTED.fetch_add(most.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    /// Units of its spans.
    fn units(&self) -> usize {
        let all = (1..).zip(&self.counts);
        all.map(|(units, count)| units * usize::from(count.get()))
            .sum()
    }

    /// The spans of a list, oldest first.
    fn list(&self, list: usize) -> &[Link<SpanUse>] {
        &self.spans[list][..usize::from(self.counts[list].get()).min(DEPTH)]
    }

    /// Gives the `count` oldest spans of a list to the arena. The caller says what room there is then.
    fn release_oldest(&self, list: usize, count: usize) {
        let all = self.list(list);
        let (leaving, staying) = all.split_at(count.min(all.len()));
        if leaving.is_empty() {
            return;
        }
        // SAFETY: 1. who puts a span in a stock gives it to that, which forgets it below.
        let leave = |held: &SpanUse| unsafe { Span::out_of_stock(held) };
        arena::release_all(leaving.iter().filter_map(Link::get).filter_map(leave));
        for (place, span) in all.iter().zip(staying) {
            place.set(span.get());
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most DEPTH")]
        let left = staying.len() as u8;
        self.counts[list].set(left);
        self.least[list].set(self.least[list].get().min(left));
    }

    /// Gives what was not taken since the last look to the arena, or all.
    pub(crate) fn release(&self, age: Age) {
        for (list, (count, least)) in self.counts.iter().zip(&self.least).enumerate() {
            let unused = match age {
                Age::Due => least.get(),
                Age::Any => count.get(),
            };
            self.release_oldest(list, usize::from(unused));
            least.set(count.get());
        }
        // Asked anew by the next span.
        self.room.set(0);
        if age == Age::Any {
            self.grant(0);
        }
    }

    /// Drops what is not whole, in a stock whose thread is gone and may have been at work.
    pub(crate) fn repair(&self) {
        for list in 0..SPAN_UNITS {
            let mut kept = 0;
            for place in 0..self.list(list).len() {
                let spans = &self.spans[list];
                let Some(held) = spans[place].get() else {
                    continue;
                };
                let is_second = spans[..kept].iter().any(|other| same(other.get(), held));
                if !is_second && self.has(held, list) {
                    spans[kept].set(Some(held));
                    kept += 1;
                }
            }
            #[expect(clippy::cast_possible_truncation, reason = "at most DEPTH")]
            self.counts[list].set(kept as u8);
            self.least[list].set(0);
        }
        self.room.set(0);
    }

    fn has(&self, held: &SpanUse, list: usize) -> bool {
        held.is_stocked_in(self.number.get()) && usize::from(held.units()) == list + 1
    }

    /// Bytes of its spans.
    pub(crate) fn bytes(&self) -> usize {
        self.units() * UNIT
    }

    /// Checks that its spans say that they lie here (docs/states.md, I12).
    pub(crate) fn verify(&self) -> Result<(), Violation> {
        let is_whole = |list: usize| {
            let mut spans = self.list(list).iter();
            spans.all(|place| place.get().is_some_and(|held| self.has(held, list)))
        };
        if (0..SPAN_UNITS).all(is_whole) {
            return Ok(());
        }
        Err(Violation {
            invariant: "I12: a span in a stock says so",
            address: core::ptr::from_ref(self).addr(),
        })
    }
}
