//! How many blocks a magazine may hold, and how many move at once.
//!
//! A magazine begins with room for one block and a refill of one. Refills double. Room doubles
//! when empty and full alternate, because then a larger one would have saved both trips; traffic in
//! one direction gains nothing beyond a batch. Bounded by class and by thread.

use core::ptr::NonNull;

use super::contents::{Contents, end_unload};
use super::locked::LockedCache;
use super::{ThreadCache, sharers, total};
use crate::arena::{Age, meta};
use crate::config;
use crate::hardening::Hardening;
use crate::heap::{self, Wrong};
use crate::size_class::SizeClass;
use crate::sync::{GuardedU8, GuardedU16, Ordering, Slot};
use crate::units::LINE;

/// Most bytes of blocks in one magazine, unless that is fewer blocks than [`LEAST_LOG`] allows.
const BYTES: usize = 512 << 10;
/// Most slots of a magazine, as log2; one slot is not used.
const MOST_LOG: u8 = 13;
/// Most blocks of a class that one slow path moves: about 120 instructions each, where they lie in slabs at random.
pub(crate) const AT_ONCE: usize = 2048;
/// Every class may hold this many blocks: slots, as log2.
const LEAST_LOG: u8 = 2;
/// Slots of a new magazine, as log2: one block, as a thread that does little needs no more.
const FIRST_LOG: u8 = NIL_LOG;
/// Slots of a new magazine where blocks are to be handed out at random, as log2: to choose from.
const RANDOM_LOG: u8 = 5;
/// Slots of a magazine for one block, as log2: all such magazines of a thread share them.
const NIL_LOG: u8 = 1;
/// Slots that one-way traffic is given, as log2.
const ONE_WAY_LOG: u8 = 8;

/// Slow paths of a thread in a class that count as its first: std's threads have some of their own.
const EARLY: u8 = 16;
/// The bits of a [`Move`].
const LAST: u8 = 3;

/// Into how many parts the threads that share a heap divide what one may cache, at most.
pub(crate) const SHARES: usize = 4;
/// Sharers counted at most, and looks after which one that took none is none: some ten milliseconds, so that one that
/// waits for a processor comes back before.
const MOST_SHARERS: usize = 2 * SHARES;
const LOOKS_OF_ONE: u16 = 8;
/// Looks after which a thread counts as at work: 1024 slow paths, more than it takes to fill all magazines.
const AT_WORK: u16 = 4;

/// What a magazine remembers between slow paths. Guarded by the cache's gate.
#[derive(Debug)]
pub(crate) struct Record {
    /// Slots, as log2; 0 is none.
    log: GuardedU8,
    /// The last thing that happened, a [`Move`], or 0; above these two bits, slow paths so far, up to [`EARLY`].
    last_and_early: GuardedU8,
    /// Blocks of the next refill.
    batch: GuardedU16,
    /// Blocks at the last tick.
    seen: GuardedU16,
}

/// The direction that blocks moved in.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Move {
    Refill = 1,
    Flush = 2,
}

impl Record {
    pub(crate) fn slots(&self) -> usize {
        slots(self.log.get())
    }

    fn capacity(&self) -> usize {
        self.slots().saturating_sub(1)
    }

    pub(crate) fn note(&self, direction: Move) {
        self.set_last(direction as u8);
    }

    fn last(&self) -> u8 {
        self.last_and_early.get() & LAST
    }

    fn set_last(&self, last: u8) {
        self.last_and_early
            .set(self.last_and_early.get() & !LAST | last);
    }

    /// Counts a slow path of `class`, whose blocks may share cache lines. Whether it is one of the first: then one block
    /// is taken from its slab, or given back there, alone. What a thread is given and frees early is another
    /// thread's, most likely, with that thread's blocks beside it, and is not to be handed out here.
    pub(crate) fn goes_alone(&self, class: SizeClass) -> bool {
        if class.size() >= LINE || config::mode().is_hardened() {
            return false;
        }
        let seen = self.last_and_early.get();
        let is_early = seen < EARLY * (LAST + 1);
        if is_early {
            self.last_and_early.set(seen + LAST + 1);
        }
        is_early
    }

    /// Blocks for the next refill, and twice as many for the one after it.
    pub(crate) fn next_batch(&self) -> usize {
        let least = if is_random() { 1 << RANDOM_LOG } else { 1 };
        let batch = usize::from(self.batch.get().max(least)).min(self.capacity());
        #[expect(clippy::cast_possible_truncation, reason = "bounded by AT_ONCE")]
        self.batch.set((batch * 2).min(AT_ONCE) as u16);
        batch
    }

    /// How many of its blocks a full magazine gives back: half, for what comes next may be a pop; seven eighths
    /// where it is full for the second time in a row, for then it may well be full again.
    pub(crate) fn gives(&self, blocks: usize) -> usize {
        let kept = if self.last() == Move::Flush as u8 {
            blocks / 8
        } else {
            blocks / 2
        };
        (blocks - kept).min(AT_ONCE)
    }

    /// Whether the magazine should grow now that it ran into its bound in `direction`.
    fn wants_room(&self, direction: Move) -> bool {
        let turned = self.last() != 0 && self.last() != direction as u8;
        turned || self.log.get() < ONE_WAY_LOG
    }
}

fn slots(log: u8) -> usize {
    if log == 0 { 0 } else { 1 << log }
}

fn is_random() -> bool {
    config::mode().has(Hardening::RANDOM)
}

fn first_log() -> u8 {
    if is_random() { RANDOM_LOG } else { FIRST_LOG }
}

/// Most slots for blocks of `size` bytes, as log2.
fn most_log(size: usize) -> u8 {
    #[expect(clippy::cast_possible_truncation, reason = "a log2")]
    let log = (BYTES / size + 1).ilog2() as u8;
    log.clamp(LEAST_LOG, MOST_LOG)
}

impl<'a> LockedCache<'a> {
    /// What the magazine of `class` remembers.
    pub(crate) fn record(self, class: SizeClass) -> &'static Record {
        &self.cache.records[class.index()]
    }

    /// The slots of the magazine of `class`, and how many blocks are in it.
    pub(crate) fn contents(self, class: SizeClass) -> Contents<'a> {
        let magazine = self.cache.magazine(class);
        Contents::of(magazine, magazine.slots(self.record(class).slots()))
    }

    /// Whether the magazine of `class`, which is gated, holds `block`.
    pub(crate) fn holds(self, class: SizeClass, block: NonNull<u8>) -> bool {
        self.magazine(class).holds(self.contents(class), block)
    }

    /// Makes room in the magazine of `class` if it ran into its bound and may grow; whether it did.
    pub(crate) fn grow(self, class: SizeClass, direction: Move) -> bool {
        let record = self.record(class);
        let (log, size) = (record.log.get(), class.size());
        let next = if log == 0 {
            first_log().min(most_log(size))
        } else {
            log + 1
        };
        if next > most_log(size) || (log != 0 && !record.wants_room(direction)) {
            return false;
        }
        let more = ((1 << next) - 1 - record.capacity()) * size;
        let budget = self.budget();
        let is_too_much = self.beyond_one.get() + more > total::allowed(budget, self.is_at_work());
        if is_too_much || self.capacity.get() + more > budget {
            // Out of budget: a class that is new has to do with one block.
            return log == 0 && self.resize(class, NIL_LOG);
        }
        self.resize(class, next)
    }

    /// Most bytes that the thread's magazines may grow to hold: threads that share a heap, which is to say a
    /// processor, share what one may have, down to a quarter each.
    fn budget(self) -> usize {
        config::thread_cache() / self.sharers().clamp(1, SHARES)
    }

    /// Threads that share the heap. Before a thread's first look, all threads of the heap are taken for such.
    fn sharers(self) -> usize {
        match self.sharers.get() {
            0 => sharers::of(self.heap.get() as usize),
            looks => usize::from(looks.div_ceil(LOOKS_OF_ONE)),
        }
    }

    /// Counts who shares the heap: as many threads as took a turn at looks, this one among them, since its last. One that
    /// sleeps takes none. One that only lost its processor does not go at once: the count falls by one in some looks.
    pub(crate) fn count_sharers(self) {
        let heap = self.heap.get() as usize;
        let looks = sharers::note_look(heap, self.thread.get());
        // OVERFLOW: modulo 2^32, as the count.
        let since = looks.wrapping_sub(self.looks.get()) as usize;
        self.looks.set(looks);
        let seen = since.min(sharers::of(heap)).clamp(1, MOST_SHARERS);
        #[expect(clippy::cast_possible_truncation, reason = "at most MOST_SHARERS")]
        let seen = seen as u16 * LOOKS_OF_ONE;
        let before = self.sharers.get();
        self.sharers.set(seen.max(before.saturating_sub(1)));
        self.own_looks.set((self.own_looks.get() + 1).min(AT_WORK));
    }

    /// Whether it has taken so many slow paths that it is no thread that does little and sleeps, beside few others.
    fn is_at_work(self) -> bool {
        self.own_looks.get() == AT_WORK && self.sharers() < SHARES
    }

    /// Gives the magazine of `class` `2^log` slots, at least as many as it has blocks plus one.
    fn resize(self, class: SizeClass, log: u8) -> bool {
        let old = self.contents(class);
        let count = 1 << log;
        let slots: &'static [Slot] = if log == NIL_LOG {
            &self.cache.nil
        } else {
            let Some(array) = meta::alloc_array(count * size_of::<Slot>()) else {
                return false;
            };
            // SAFETY: 1. as long as asked for, and aligned for slots; any bits are a slot.
            unsafe { core::slice::from_raw_parts(array.cast::<Slot>().as_ptr(), count) }
        };
        old.copy_to(slots);
        let magazine = self.magazine(class);
        magazine.install(slots, old.blocks(), magazine.head());
        self.set_log(class, log);
        free_slots(old.slots);
        true
    }

    /// Notes the slots that the magazine of `class` has from here on.
    fn set_log(self, class: SizeClass, log: u8) {
        let (record, size) = (self.record(class), class.size());
        let before = record.log.get();
        record.log.set(log);
        let bytes = |log: u8| slots(log).saturating_sub(1) * size;
        let grown = self.capacity.get() + bytes(log);
        self.capacity.set(grown.saturating_sub(bytes(before)));
        let beyond_one = |log: u8| if log > NIL_LOG { bytes(log) } else { 0 };
        let (before, after) = (beyond_one(before), beyond_one(log));
        let grown = self.beyond_one.get() + after;
        self.beyond_one.set(grown.saturating_sub(before));
        total::change(before, after);
    }

    /// Returns the `count` oldest blocks of the magazine to the heaps. If one of them is wrong, all that the
    /// magazine holds is lost.
    pub(crate) fn flush_oldest(self, class: SizeClass, count: usize) -> Result<(), Wrong> {
        let flushed = self.try_to_flush(class, count);
        if flushed.is_err() {
            // Some are in the bitmaps by now.
            self.give_up(class);
        }
        flushed
    }

    fn try_to_flush(self, class: SizeClass, count: usize) -> Result<(), Wrong> {
        let (magazine, contents) = (self.magazine(class), self.contents(class));
        if count == 0 || contents.blocks() == 0 {
            return Ok(());
        }
        if count >= contents.blocks() {
            // SAFETY: 1. the magazine's free blocks, which it just lost.
            unsafe { heap::flush(class, magazine.unload(contents))? };
            end_unload(contents);
            return Ok(());
        }
        // SAFETY: 1. the magazine's free blocks; it loses them below, before its owner goes on.
        unsafe { heap::flush(class, contents.oldest(count))? };
        magazine.drop_oldest(contents, count);
        Ok(())
    }

    /// Forgets the `count` oldest blocks of a magazine, which are fewer than there are.
    pub(crate) fn drop_oldest(self, class: SizeClass, count: usize) {
        self.magazine(class)
            .drop_oldest(self.contents(class), count);
    }

    /// Returns all blocks of the magazine to the heaps, and its slots.
    pub(crate) fn empty(self, class: SizeClass) -> Result<(), Wrong> {
        self.flush_oldest(class, usize::MAX)?;
        self.forget(class);
        Ok(())
    }

    /// Returns all blocks of all magazines to the heaps, and their slots, those in quarantine and all spans.
    pub(crate) fn empty_all(self) -> Result<(), Wrong> {
        self.stir();
        let emptied = SizeClass::all().try_for_each(|class| {
            self.work_on(class);
            self.empty(class)
        });
        self.end_work();
        self.empty_stock();
        emptied?;
        self.empty_quarantine()
    }

    /// Gives the spans in the stock to the arena, what a thread that is gone has left, too.
    pub(crate) fn empty_stock(self) {
        if let Some(stock) = self.cache.stock() {
            stock.repair();
            stock.release(Age::Any);
        }
    }

    /// Gives those to the arena that were not taken since the last look.
    pub(crate) fn shrink_stock(self) {
        if let Some(stock) = self.cache.stock() {
            stock.release(Age::Due);
        }
    }

    /// Takes the slots away from a magazine without looking at its blocks.
    #[inline(never)]
    pub(crate) fn forget(self, class: SizeClass) {
        let contents = self.contents(class);
        self.give_up(class);
        free_slots(contents.slots);
    }

    /// Counts the capacity anew.
    pub(crate) fn recount(self) {
        let bytes = |class: SizeClass| self.record(class).capacity() * class.size();
        self.capacity.set(SizeClass::all().map(bytes).sum());
        let long = |class: &SizeClass| self.record(*class).log.get() > NIL_LOG;
        let beyond_one = SizeClass::all().filter(long).map(bytes);
        self.beyond_one.set(beyond_one.sum());
    }

    /// Takes the slots away from a magazine and loses them.
    pub(crate) fn give_up(self, class: SizeClass) {
        self.magazine(class).uninstall();
        // What was cut short may have left a block here, in a slot that others share (see
        // `contents`).
        // ORDERING: only who has the gate writes.
        self.nil[1].store(core::ptr::null_mut(), Ordering::Relaxed);
        self.set_log(class, 0);
        let record = self.record(class);
        record.set_last(0);
        record.batch.set(0);
    }

    /// Halves the magazines that hold as many blocks as at the last tick: most of them are unused,
    /// and to one that is not it does little harm. All of them, where all threads hold too much and this
    /// one more than it may.
    pub(crate) fn shrink_unused(self) -> Result<(), Wrong> {
        let is_too_much =
            total::is_too_much(self.beyond_one.get(), self.budget(), self.is_at_work());
        for class in SizeClass::all() {
            self.work_on(class);
            let record = self.record(class);
            let contents = self.contents(class);
            if contents.capacity() == 0 {
                continue;
            }
            let blocks = contents.blocks();
            #[expect(clippy::cast_possible_truncation, reason = "bounded by MOST_LOG")]
            let now = blocks as u16;
            let seen = record.seen.get();
            record.seen.set(now);
            if seen != now && !is_too_much {
                continue;
            }
            let unused = blocks.div_ceil(2).min(AT_ONCE);
            self.flush_oldest(class, unused)?;
            if blocks - unused >= record.slots() / 2 {
                // Half the slots would not hold the rest yet.
                continue;
            }
            if record.log.get() > FIRST_LOG {
                self.resize(class, record.log.get() - 1);
            } else if self.contents(class).blocks() == 0 {
                self.forget(class);
            }
        }
        Ok(())
    }
}

impl ThreadCache {
    /// Forgets what the thread that had the cache before was at.
    pub(crate) fn begin_anew(&self) {
        for record in &self.records {
            record.last_and_early.set(0);
        }
        self.sharers.set(0);
        self.own_looks.set(0);
        self.brief.forget();
    }
}

/// Recycles the slots of a magazine, unless they are those that magazines share.
fn free_slots(slots: &'static [Slot]) {
    if let (Some(first), count) = (slots.first(), slots.len())
        && count > 1 << NIL_LOG
    {
        let array = NonNull::from(first).cast::<u8>();
        // SAFETY: 1. from `alloc_array` with this length; no magazine leads to it any more.
        unsafe { meta::free_array(array, count * size_of::<Slot>()) };
    }
}
