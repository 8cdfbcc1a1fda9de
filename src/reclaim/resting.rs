//! Threads that rest: what a purge knows of the magazines of other threads, and how it uses that without holding all of
//! them off for long.
//!
//! A purge cannot touch the magazines of running threads, and does not have to: it purges the pages *under* the blocks
//! that lie in them, which are free. It meets the threads in groups. Each thread of a group is held off for a moment:
//! its gate is taken, its words are diverted, the kernel runs a barrier on every processor, its blocks are listed, and
//! it is let go. From then on a thread can end at most the one operation it was in, which hands out at most the newest
//! block of one magazine; its next one takes the slow path, and says so (`LockedCache::come_back`). As long as it has
//! not said so, it *rests*: its listed blocks lie where they were.
//!
//! Then slabs are purged, a few at a time. While that lasts, the gates of the threads are held that have blocks in these
//! slabs, so that who rests goes on to rest. Blocks of those who came back are left alone.
//!
//! A thread that rests until the whole purge is over, and still does when the next one meets it, has nothing new to
//! purge: what it listed was purged before.

use super::list::List;
use super::quiesce::{countable, diverted, others};
use crate::heap::{self, Wrong};
use crate::os::{self, failpoints};
use crate::slab::Slab;
use crate::sync::{GuardedU8, Ordering};
use crate::thread_cache::{LockedCache, Purge, ThreadCache, is_gated};
use crate::threads::REGISTRY;
use crate::units::ADDRESS_BITS;

/// Threads of a group, at most, and the blocks that they have together, but for the last thread's. To meet a thread takes
/// half a microsecond, to list a block a nanosecond or two: a group is held off for less than a tenth of a millisecond.
const GROUP: usize = 64;
const GROUP_BLOCKS: usize = 1 << 15;
/// Blocks that one thread can have, as far as room is made for them: 4 MiB of 16 bytes each.
const MOST_BLOCKS: usize = 1 << 18;

/// Units that are purged while threads are held off, some 5 microseconds each, unless these threads are so many: to hold
/// one off and let it go takes a quarter of one. A slab is purged in one go, whoever has its blocks.
const SLICE: usize = 64;
const MOST_HELD: usize = 2048;

/// A block in a magazine: its address, whether it was purged before (the lowest bit is 0 then), and above
/// [`ADDRESS_BITS`] the index of its thread among the met.
#[derive(Clone, Copy)]
struct Entry(u64);

const FRESH: u64 = 1;

impl Entry {
    /// Most threads that an entry can name.
    const THREADS: usize = 1 << (u64::BITS - ADDRESS_BITS);

    fn new(address: usize, thread: usize, is_fresh: bool) -> Self {
        let fresh = if is_fresh { FRESH } else { 0 };
        Self((thread as u64) << ADDRESS_BITS | address as u64 | fresh)
    }

    fn address(self) -> usize {
        (self.0 & ((1 << ADDRESS_BITS) - 1) & !FRESH) as usize
    }

    fn thread(self) -> usize {
        (self.0 >> ADDRESS_BITS) as usize
    }

    fn is_fresh(self) -> bool {
        self.0 & FRESH != 0
    }
}

/// A thread that was met.
#[derive(Clone, Copy)]
struct Member {
    cache: &'static ThreadCache,
    /// It is to be held off with the present slice, or is.
    is_of_slice: bool,
    /// It was found to rest in the present slice.
    rests: bool,
}

/// The number of the last purge. Guarded by `PURGES`.
static LAST: GuardedU8 = GuardedU8::new(0);

/// The threads that were met, and their blocks.
pub(super) struct Resting {
    purge: Purge,
    members: List<Member>,
    blocks: List<Entry>,
    /// Slabs of a slice, and the members that have blocks there.
    slabs: List<&'static Slab>,
    held: List<usize>,
    units: usize,
    /// The blocks of one slab whose threads rest.
    idle: List<usize>,
    /// All blocks were listed, and all purged that were to be, as far as is known.
    is_whole: bool,
    is_over: bool,
}

impl Resting {
    /// Meets all other threads. The caller is the only one who purges.
    pub(super) fn meet_all() -> Result<Self, Wrong> {
        let purge = Purge::of(LAST.get()).next();
        LAST.set(purge.number());
        let mut resting = Self {
            purge,
            members: List::new(),
            blocks: List::new(),
            slabs: List::new(),
            held: List::new(),
            units: 0,
            idle: List::new(),
            is_whole: true,
            is_over: false,
        };
        // Numbers repeat: who was met by one that had this number was not met by this one.
        REGISTRY.lock().all().for_each(|cache| cache.forget(purge));
        let room = resting.slabs.reserve(SLICE) && resting.idle.reserve(heap::MOST_BLOCKS);
        while room && resting.meet_some()? {}
        resting.is_whole &= room;
        // Two that are alike are the same block, in a corrupt heap.
        let entries = resting.blocks.values_mut();
        entries.sort_unstable_by_key(|entry| entry.address());
        resting.is_whole &= resting.held.reserve(resting.members.values().len());
        Ok(resting)
    }

    /// Meets some threads that were not met yet; `false` if there are none, or there is no memory for them.
    fn meet_some(&mut self) -> Result<bool, Wrong> {
        let known = self.members.values().len();
        let has_room =
            self.members.reserve(GROUP) && self.blocks.reserve(GROUP_BLOCKS + MOST_BLOCKS);
        if !has_room || known + GROUP > Entry::THREADS {
            self.is_whole = false;
            return Ok(false);
        }
        let registry = REGISTRY.lock();
        let mut group = Group {
            caches: [None; GROUP],
            count: 0,
        };
        let mut blocks = 0;
        for cache in others(&registry).filter(|cache| !cache.was_met_by(self.purge)) {
            let Some(gate) = diverted(&registry, cache)? else {
                continue;
            };
            blocks += countable(gate.cache())
                .map(|(_, contents)| contents.blocks())
                .sum::<usize>();
            group.caches[group.count] = Some(cache);
            group.count += 1;
            // Let go with the group.
            gate.keep_locked();
            if group.count == GROUP || blocks > GROUP_BLOCKS {
                break;
            }
        }
        if group.count == 0 {
            return Ok(false);
        }
        failpoints::at(failpoints::Point::Hold);
        let is_certain = os::process_barrier();
        for cache in group.locked() {
            self.list(cache, is_certain);
        }
        failpoints::at(failpoints::Point::LetGo);
        Ok(true)
    }

    /// Lists the blocks in the magazines of a thread, but for the newest of each that is not gated, and empties its stock.
    /// One that is at brief work keeps all. Without the barrier nothing is known.
    fn list(&mut self, cache: LockedCache<'_>, is_certain: bool) {
        let index = self.members.values().len();
        // At brief work, it may be about to change what is gated: another time.
        let is_at_rest = is_certain && cache.brief.is_over();
        let is_fresh = cache.meet(self.purge, is_at_rest);
        let member = Member {
            cache: cache.whole(),
            is_of_slice: false,
            rests: false,
        };
        let mut is_whole = self.members.push(member);
        let mut add = |address| {
            is_whole &= self.blocks.push(Entry::new(address, index, is_fresh));
        };
        if !is_at_rest {
            self.is_whole &= is_whole;
            return;
        }
        cache.empty_stock();
        for (class, contents) in countable(cache) {
            // ORDERING: the slots up to `top` are written, see `Magazine::len_of`.
            let older = contents
                .older()
                .iter()
                .map(|slot| slot.load(Ordering::Relaxed).addr());
            older.for_each(&mut add);
            if is_gated(class) && contents.blocks() > 0 {
                add(cache.magazine(class).head().addr());
            }
        }
        self.is_whole &= is_whole;
    }

    /// Purges the free pages of every slab, those under listed blocks, too, a slice at a time while `goes_on` says so;
    /// bytes returned to the kernel.
    pub(super) fn purge(&mut self, goes_on: impl Fn() -> bool) -> usize {
        let mut bytes = 0;
        for slab in heap::slabs() {
            if !goes_on() {
                self.is_whole = false;
                return bytes;
            }
            bytes += self.take(slab);
        }
        bytes += self.purge_slice();
        self.is_over = true;
        bytes
    }

    /// Purges a slab, or adds it to the slice that is purged next; bytes returned to the kernel.
    fn take(&mut self, slab: &'static Slab) -> usize {
        let (from, to) = self.range(slab);
        if from == to {
            // Nobody need be held off.
            return self.note(heap::purge_holes(slab, &[], false));
        }
        let entries = &self.blocks.values()[from..to];
        if !slab.is_touched() && !entries.iter().any(|entry| entry.is_fresh()) {
            return 0;
        }
        for index in from..to {
            let thread = self.blocks.values()[index].thread();
            let member = &mut self.members.values_mut()[thread];
            if !member.is_of_slice && self.held.push(thread) {
                member.is_of_slice = true;
            }
        }
        self.units += slab.info().units.get() as usize;
        let is_full =
            !self.slabs.push(slab) || self.units >= SLICE || self.held.values().len() >= MOST_HELD;
        if is_full { self.purge_slice() } else { 0 }
    }

    /// The entries of blocks of a slab.
    fn range(&self, slab: &Slab) -> (usize, usize) {
        let (entries, info) = (self.blocks.values(), slab.info());
        let start = slab.start();
        let from = entries.partition_point(|entry| entry.address() < start);
        let count = entries[from..]
            .iter()
            .take_while(|entry| slab.holds(entry.address(), info))
            .count();
        (from, from + count)
    }

    fn note(&mut self, purged: Option<usize>) -> usize {
        self.is_whole &= purged.is_some();
        purged.unwrap_or(0)
    }

    /// Purges the slabs of the slice, while the threads that have blocks there are held off.
    fn purge_slice(&mut self) -> usize {
        let mut bytes = 0;
        if !self.slabs.values().is_empty() {
            // So that nobody else holds several gates.
            let registry = REGISTRY.lock();
            self.hold();
            failpoints::at(failpoints::Point::Hold);
            for index in 0..self.slabs.values().len() {
                bytes += self.purge_slab(self.slabs.values()[index]);
            }
            failpoints::at(failpoints::Point::LetGo);
            self.let_go();
            drop(registry);
        }
        self.slabs.clear();
        self.held.clear();
        self.units = 0;
        bytes
    }

    fn hold(&mut self) {
        for thread in self.held.values() {
            let member = &mut self.members.values_mut()[*thread];
            let gate = member.cache.lock();
            member.rests = gate.cache().rests();
            if member.rests {
                gate.keep_locked();
            }
        }
    }

    fn let_go(&mut self) {
        for thread in self.held.values() {
            let member = &mut self.members.values_mut()[*thread];
            if member.rests {
                // SAFETY: 1. kept locked by `hold`.
                unsafe { member.cache.unlock() };
            }
            (member.is_of_slice, member.rests) = (false, false);
        }
    }

    /// Purges a slab of the slice, whose threads are held off.
    fn purge_slab(&mut self, slab: &'static Slab) -> usize {
        let (from, to) = self.range(slab);
        self.idle.clear();
        let mut is_fresh = false;
        for entry in &self.blocks.values()[from..to] {
            if self.members.values()[entry.thread()].rests && self.idle.push(entry.address()) {
                is_fresh |= entry.is_fresh();
            }
        }
        let purged = heap::purge_holes(slab, self.idle.values(), is_fresh);
        self.note(purged)
    }
}

impl Drop for Resting {
    /// Takes leave of the threads that were met: those that rest need not be purged again, if all went well.
    fn drop(&mut self) {
        for member in self.members.values() {
            let gate = member.cache.lock();
            gate.cache().take_leave(self.is_whole && self.is_over);
        }
    }
}

/// Threads whose gates are held.
struct Group {
    caches: [Option<&'static ThreadCache>; GROUP],
    count: usize,
}

impl Group {
    fn locked(&self) -> impl Iterator<Item = LockedCache<'_>> {
        let caches = self.caches.iter().flatten();
        // SAFETY: 1. kept locked by `meet_some`, and not let go before `self` is dropped.
        caches.map(|cache| unsafe { cache.assume_locked() })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for cache in self.caches.iter().flatten() {
            // SAFETY: 1. kept locked by `meet_some`.
            unsafe { cache.unlock() };
        }
    }
}
