//! Freed mappings kept for reuse: split, and joined with those beside them.

use core::cmp::Reverse;

use super::list::Found;
use super::mappings::{MAPPINGS, Mappings, cached_bytes};
use super::stuck::unmap;
use super::{Mapping, descriptor, guarded};
use crate::demand::DEMAND;
use crate::error::Violation;
use crate::os::{self, PageLen};
use crate::units::UNIT;

/// What is shorter is not split off, as hardly any request would take it.
pub(super) const REST: usize = UNIT;
/// Mappings freed last that wait before they are reused, where mappings are kept apart.
const WAITING: usize = 1;

/// The shortest cached mapping that is long enough. Its rest stays in the cache if that is of use.
pub(super) fn reuse_fitting(length: usize) -> Option<&'static Mapping> {
    // For one of the two parts, made before the lock is taken; without it nothing is split.
    let mut spare = descriptor();
    let mappings = MAPPINGS.lock();
    let fitting = mappings.cached().filter(|cached| cached.length() >= length);
    let found = fitting.min_by_key(Found::length).map(|shortest| {
        let mapping = mappings.remove_cached(shortest);
        let is_worth_it = mapping.length.get() - length >= REST;
        match is_worth_it.then(|| spare.take()).flatten() {
            Some(spare) => mappings.split(mapping, length, spare),
            None => mapping,
        }
    });
    mappings.retire_spare(spare);
    found
}

/// No descriptor is left over, which has to be made without the lock.
pub(super) struct NoneLeft;

/// Hands out the shortest cached mapping that is long enough, all in one hold of the lock.
pub(super) fn take_fitting(length: usize) -> Result<Option<&'static Mapping>, NoneLeft> {
    let mappings = MAPPINGS.lock();
    let fitting = mappings.cached().filter(|cached| cached.length() >= length);
    let Some(shortest) = fitting.min_by_key(Found::length) else {
        return Ok(None);
    };
    let spare = if shortest.length() - length >= REST {
        Some(mappings.descriptor().ok_or(NoneLeft)?)
    } else {
        None
    };
    let mapping = mappings.remove_cached(shortest);
    let mapping = match spare {
        Some(spare) => mappings.split(mapping, length, spare),
        None => mapping,
    };
    mapping.hand_out(&mappings, length);
    Ok(Some(mapping))
}

impl Mappings {
    /// Cuts `length` bytes off a mapping that was just removed from the cache and caches the rest,
    /// with the help of an unused descriptor; what was cut off.
    fn split(
        &self,
        mapping: &'static Mapping,
        length: usize,
        spare: &'static Mapping,
    ) -> &'static Mapping {
        if mapping.is_room.get() == 0 {
            spare.set_rest_of(mapping, length);
            spare.is_room.set(1);
            self.insert_cached(spare);
            return mapping;
        }
        // What lies in front may want to grow.
        spare.set_rest_of(mapping, mapping.length.get() - length);
        self.insert_cached(mapping);
        spare
    }

    /// Takes back a descriptor that was not needed.
    pub(super) fn retire_spare(&self, spare: Option<&'static Mapping>) {
        if let Some(unneeded) = spare {
            self.retire(unneeded);
        }
    }
}

/// Has the kernel lengthen the longest of those that it can.
pub(super) fn grow_longest(length: usize) -> Option<&'static Mapping> {
    let mapping = {
        let mappings = MAPPINGS.lock();
        let can_grow =
            |cached: &Found<'_>| cached.mapping.is_joined.get() == 0 && cached.length() < length;
        let shorter = mappings.cached().filter(can_grow);
        mappings.remove_cached(shorter.min_by_key(|cached| Reverse(cached.length()))?)
    };
    // SAFETY: 1. removed from the cache, so ours alone. 2. nobody uses a cached mapping.
    match unsafe { os::remap(mapping.base(), mapping.pages(), PageLen::kept(length)) } {
        Some(base) => {
            DEMAND.note_fresh(length - mapping.length.get());
            mapping.set(base, length);
            mapping.is_full.set(0);
            Some(mapping)
        }
        None => {
            // No room, or more than one mapping to the kernel, which is not asked again.
            mapping.is_joined.set(1);
            cache(mapping);
            None
        }
    }
}

/// A cached mapping where they are kept apart: whole, and not one of those freed last.
pub(super) fn reuse_apart(length: usize) -> Option<&'static Mapping> {
    let mapping = {
        let mappings = MAPPINGS.lock();
        let fits = |cached: &Found<'_>| {
            let bytes = cached.length();
            bytes >= length && bytes / 2 <= length
        };
        let fitting = mappings.cached().skip(WAITING).filter(fits);
        mappings.remove_cached(fitting.min_by_key(Found::length)?)
    };
    // SAFETY: 1. removed from the cache, where nobody uses it.
    if !unsafe { mapping.open(length) } {
        let _ = unmap(mapping);
        return None;
    }
    Some(mapping)
}

impl Mapping {
    /// Becomes what is left of `mapping` behind its first `length` bytes, which it keeps.
    pub(super) fn set_rest_of(&self, mapping: &Self, length: usize) {
        let rest = mapping.length.get() - length;
        // SAFETY: 1. shorter than the mapping.
        let base = unsafe { crate::ptr::advance(mapping.base(), length) };
        self.set(base, rest);
        self.is_full.set(mapping.is_full.get());
        self.freed.set(mapping.freed.get());
        self.is_joined.set(mapping.is_joined.get());
        mapping.length.set(length);
    }

    /// Becomes one with what begins where this one ends, or ends where it begins.
    fn join(&self, other: &Self) {
        // The time of the longer one: a short one that comes and goes keeps no long one that is unused.
        if other.length.get() > self.length.get() {
            self.freed.set(other.freed.get());
        }
        let base = if other.base() < self.base() {
            self.is_room.set(other.is_room.get());
            other.base()
        } else {
            self.base()
        };
        self.set(base, self.length.get() + other.length.get());
        self.is_full.set(self.is_full.get() & other.is_full.get());
        self.is_joined.set(1);
    }

    fn end(&self) -> usize {
        self.base().addr().get() + self.length.get()
    }
}

/// Lengthens a mapping that is in no list by at least `more` bytes of a cached one that begins where it
/// ends; whether there is one.
pub(super) fn absorb(mapping: &'static Mapping, more: usize) -> bool {
    let mappings = MAPPINGS.lock();
    let is_behind = |cached: &Mapping| cached.base().addr().get() == mapping.end();
    let fits = |cached: &Found<'_>| is_behind(cached.mapping) && cached.length() >= more;
    let Some(found) = mappings.cached().find(fits) else {
        return false;
    };
    let neighbour = mappings.remove_cached(found);
    let left = neighbour.length.get() - more;
    let taken = if left < REST {
        neighbour.length.get()
    } else {
        more
    };
    mapping.length.set(mapping.length.get() + taken);
    let is_full = mapping.is_full.get() & neighbour.is_full.get();
    mapping.is_full.set(is_full);
    mapping.is_joined.set(1);
    if left < REST {
        mappings.retire(neighbour);
    } else {
        // SAFETY: 1. shorter than the neighbour.
        let base = unsafe { crate::ptr::advance(neighbour.base(), more) };
        neighbour.set(base, left);
        neighbour.is_room.set(1);
        mappings.insert_cached(neighbour);
    }
    true
}

/// Cuts what is behind the first `length` bytes off a live mapping that is in no list; `None` if that is not
/// worth it.
pub(super) fn cut(mapping: &'static Mapping, length: usize) -> Option<&'static Mapping> {
    if mapping.length.get() - length < REST {
        return None;
    }
    let rest = descriptor()?;
    rest.set_rest_of(mapping, length);
    rest.is_room.set(1);
    Some(rest)
}

/// Caches a mapping that is in no list, joined with those beside it.
pub(super) fn cache(mapping: &'static Mapping) {
    insert_joined(&MAPPINGS.lock(), mapping);
}

/// The same, for who holds the lock.
pub(super) fn insert_joined(mappings: &Mappings, mapping: &'static Mapping) {
    let is_beside = |cached: &Mapping| {
        let base = cached.base().addr().get();
        base == mapping.end() || cached.end() == mapping.base().addr().get()
    };
    // One on either side.
    while !guarded::is_apart()
        && let Some(found) = mappings.cached().find(|found| is_beside(found.mapping))
    {
        let neighbour = mappings.remove_cached(found);
        mapping.join(neighbour);
        mappings.retire(neighbour);
    }
    mappings.insert_cached(mapping);
}

/// Checks that no two cached mappings meet, as they would have been joined, and that their bytes
/// are counted (docs/states.md, I9).
pub(super) fn verify(mappings: &Mappings) -> Result<(), Violation> {
    let mut bytes = 0;
    for (index, Found { mapping, .. }) in mappings.cached().enumerate() {
        bytes += mapping.length.get();
        let (start, end) = (mapping.base().addr().get(), mapping.end());
        let meets = |other: &Mapping| other.base().addr().get() <= end && other.end() >= start;
        let mut older = mappings.cached().skip(index + 1);
        if !guarded::is_apart() && older.any(|other| meets(other.mapping)) {
            return Err(Violation {
                invariant: "I9: cached mappings do not meet",
                address: start,
            });
        }
    }
    if bytes != cached_bytes() {
        return Err(Violation {
            invariant: "I9: cached mappings are counted",
            address: 0,
        });
    }
    Ok(())
}
