//! All mappings behind one lock: live ones in a table by address, freed ones in lists.

use core::ptr::NonNull;

use super::list::{Found, List};
use super::{Mapping, guarded};
use crate::demand::DEMAND;
use crate::error::Violation;
use crate::os::{self, Lock, failpoints};
use crate::sync::{GuardedU8, GuardedU64, GuardedUsize, OwnLines};

const BUCKETS: usize = 4096;

/// Every mapping that no thread has in its hands.
pub(super) struct Mappings {
    /// Live mappings by address.
    table: [List; BUCKETS],
    /// Freed mappings.
    cached: List,
    /// Freed mappings that the kernel refused to unmap, their pages given back: those to try next,
    /// and those that were refused since.
    stuck: [List; 2],
    /// Descriptors without a mapping.
    unused: List,
}

pub(super) static MAPPINGS: OwnLines<Lock<Mappings>> = OwnLines(Lock::new(Mappings {
    table: [const { List::new() }; BUCKETS],
    cached: List::new(),
    stuck: [const { List::new() }; 2],
    unused: List::new(),
}));

/// What there is in `MAPPINGS`: written under its lock, by this file only, and read without it,
/// too.
struct Counts {
    /// Live mappings.
    live: GuardedUsize,
    live_bytes: GuardedUsize,
    /// Live ones removed since the process began, by a free or a resize.
    removed: GuardedU64,
    cached_bytes: GuardedUsize,
    /// 1 from when a forked child finds the lock held until it has counted anew.
    broken: GuardedU8,
}

static COUNTS: OwnLines<Counts> = OwnLines(Counts {
    live: GuardedUsize::new(0),
    live_bytes: GuardedUsize::new(0),
    removed: GuardedU64::new(0),
    cached_bytes: GuardedUsize::new(0),
    broken: GuardedU8::new(0),
});

/// Live mappings, about so many.
pub(super) fn live_count() -> usize {
    COUNTS.live.get()
}

pub(super) fn live_bytes() -> usize {
    COUNTS.live_bytes.get()
}

/// Live mappings removed since the process began.
pub(crate) fn removed() -> u64 {
    COUNTS.removed.get()
}

pub(super) fn cached_bytes() -> usize {
    COUNTS.cached_bytes.get()
}

/// Tells what mappings need, and what is kept beside them. The counts were just changed.
fn note_demand() {
    DEMAND.note_mappings(live_bytes(), cached_bytes());
}

impl Mappings {
    fn bucket(&self, address: usize) -> &List {
        // Neighbouring mappings differ in the page number's low bits.
        let page = address / os::page_size();
        &self.table[(page ^ (page >> 12)) % BUCKETS]
    }

    fn find(&self, block: NonNull<u8>) -> Option<Found<'_>> {
        let mut bucket = self.bucket(block.addr().get()).iter();
        bucket.find(|found| found.mapping.base() == block)
    }

    /// The live mapping at `block`.
    pub(super) fn live_at(&self, block: NonNull<u8>) -> Option<&'static Mapping> {
        self.find(block).map(|found| found.mapping)
    }

    /// Inserts a mapping among the live ones.
    pub(super) fn insert(&self, mapping: &'static Mapping) {
        failpoints::at(failpoints::Point::Large);
        self.bucket(mapping.base().addr().get()).insert(mapping);
        let bytes = COUNTS.live_bytes.get() + mapping.length.get();
        COUNTS.live_bytes.set(bytes);
        COUNTS.live.set(COUNTS.live.get() + 1);
        note_demand();
    }

    /// Removes the mapping at `block` from the live ones.
    pub(super) fn remove(&self, block: NonNull<u8>) -> Option<&'static Mapping> {
        failpoints::at(failpoints::Point::Large);
        let mapping = self.find(block)?.remove();
        let bytes = COUNTS.live_bytes.get() - mapping.length.get();
        COUNTS.live_bytes.set(bytes);
        COUNTS.live.set(COUNTS.live.get() - 1);
        COUNTS.removed.set(COUNTS.removed.get() + 1);
        note_demand();
        Some(mapping)
    }

    /// The live mappings.
    pub(super) fn live(&self) -> impl Iterator<Item = &'static Mapping> {
        let live = self.table.iter().flat_map(List::iter);
        live.map(|found| found.mapping)
    }

    /// The freed mappings, stuck ones first.
    pub(super) fn freed(&self) -> impl Iterator<Item = &'static Mapping> {
        let lists = self.stuck.iter().chain([&self.cached]);
        lists.flat_map(List::iter).map(|found| found.mapping)
    }

    /// The cached mappings, those freed last first.
    pub(super) fn cached(&self) -> impl Iterator<Item = Found<'_>> {
        self.cached.iter()
    }

    /// Inserts a mapping in front of the cached ones.
    pub(super) fn insert_cached(&self, mapping: &'static Mapping) {
        self.cached.insert(mapping);
        let bytes = COUNTS.cached_bytes.get() + mapping.length.get();
        COUNTS.cached_bytes.set(bytes);
        note_demand();
    }

    /// Removes one of the cached mappings.
    pub(super) fn remove_cached(&self, found: Found<'_>) -> &'static Mapping {
        let mapping = found.remove();
        let bytes = COUNTS.cached_bytes.get() - mapping.length.get();
        COUNTS.cached_bytes.set(bytes);
        note_demand();
        mapping
    }

    /// The freed mappings that the kernel refused to unmap: to try next, and refused since.
    pub(super) fn stuck(&self) -> &[List; 2] {
        &self.stuck
    }

    /// A descriptor without a mapping, if one is left over.
    pub(super) fn descriptor(&self) -> Option<&'static Mapping> {
        let mapping = self.unused.remove_newest()?;
        mapping.is_room.set(0);
        mapping.is_joined.set(0);
        mapping.is_full.set(0);
        Some(mapping)
    }

    /// Takes back a descriptor whose mapping is gone.
    pub(super) fn retire(&self, mapping: &'static Mapping) {
        self.unused.insert(mapping);
    }

    /// Checks the live mappings (docs/states.md, I9).
    pub(super) fn verify(&self) -> Result<(), Violation> {
        let mut bytes = 0;
        for bucket in &self.table {
            for Found { mapping, .. } in bucket.iter() {
                let address = mapping.base().addr().get();
                if mapping.asked.get() > mapping.length.get() && !guarded::is_apart() {
                    return Err(Violation {
                        invariant: "I9: a mapping is as long as was asked for",
                        address,
                    });
                }
                if !core::ptr::eq(self.bucket(address), bucket) {
                    return Err(Violation {
                        invariant: "I9: a mapping is in its bucket",
                        address,
                    });
                }
                bytes += mapping.length.get();
            }
        }
        if bytes != live_bytes() {
            return Err(Violation {
                invariant: "I9: live mappings are counted",
                address: 0,
            });
        }
        Ok(())
    }

    /// Counts anew what is in the lists.
    fn recount(&self) {
        let bytes = |mapping: &'static Mapping| {
            failpoints::count_step();
            mapping.length.get()
        };
        COUNTS.live.set(self.live().count());
        COUNTS.live_bytes.set(self.live().map(bytes).sum());
        let cached = self.cached().map(|found| found.length());
        COUNTS.cached_bytes.set(cached.sum());
        note_demand();
    }
}

/// In a forked child: breaks the lock of a thread that is gone. It left each list whole, at worst
/// without the mapping that it moved; the counts, which it may not have come to, are counted anew.
///
/// # Safety
/// 1. This is the only thread inside the allocator, and it does not hold the lock.
pub(super) unsafe fn recover() {
    if MAPPINGS.is_locked() {
        // Before the lock is broken: a child of this child finds it free.
        COUNTS.broken.set(1);
    }
    MAPPINGS.break_inherited();
    if COUNTS.broken.get() != 0 {
        MAPPINGS.lock().recount();
        COUNTS.broken.set(0);
    }
}
