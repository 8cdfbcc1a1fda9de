//! Freed mappings kept for reuse: split, and joined with those beside them.

use super::list::best;
use super::stuck::unmap;
use super::{LARGE, Mapping, descriptor, guarded, retire, retire_held};
use crate::error::Violation;
use crate::os::{self, PageLen};
use crate::sync::Link;
use crate::units::UNIT;

/// What is shorter is not split off, as hardly any request would take it.
pub(super) const REST: usize = UNIT;
/// Mappings freed last that wait before they are reused, where mappings are kept apart.
const WAITING: usize = 1;

/// A cached mapping of `length` bytes, or else the longest shorter one, grown: its pages save faults even so.
pub(super) fn take(length: usize) -> Option<&'static Mapping> {
    if guarded::is_apart() {
        return take_apart(length);
    }
    take_fitting(length).or_else(|| grow_longest(length))
}

/// The shortest cached mapping that is long enough. Its rest stays in the cache if that is of use.
pub(super) fn take_fitting(length: usize) -> Option<&'static Mapping> {
    // For one of the two parts, made before the lock is taken; without it nothing is split.
    let spare = descriptor();
    let (mapping, unneeded) = {
        let _held = LARGE.lock.lock();
        let found = best(
            &LARGE.cached,
            |cached| cached.length.get() >= length,
            |new, old| new.length.get() < old.length.get(),
        );
        match found {
            None => (None, spare),
            Some((link, mapping)) => {
                remove(link, mapping);
                match spare.filter(|_| mapping.length.get() - length >= REST) {
                    None => (Some(mapping), spare),
                    Some(spare) => (Some(split(mapping, length, spare)), None),
                }
            }
        }
    };
    if let Some(unneeded) = unneeded {
        retire(unneeded);
    }
    mapping
}

/// Cuts `length` bytes off a mapping that was just taken out of the list and puts the rest back, with the help of
/// an unused descriptor; what was cut off. Locked.
fn split(mapping: &'static Mapping, length: usize, spare: &'static Mapping) -> &'static Mapping {
    if mapping.is_room.get() == 0 {
        spare.set_rest_of(mapping, length);
        spare.is_room.set(1);
        push(spare);
        return mapping;
    }
    // What lies in front may want to grow.
    spare.set_rest_of(mapping, mapping.length.get() - length);
    push(mapping);
    spare
}

/// Has the kernel lengthen the longest of those that it can.
fn grow_longest(length: usize) -> Option<&'static Mapping> {
    let mapping = {
        let _held = LARGE.lock.lock();
        let (link, mapping) = best(
            &LARGE.cached,
            |cached| cached.is_joined.get() == 0 && cached.length.get() < length,
            |new, old| new.length.get() > old.length.get(),
        )?;
        remove(link, mapping);
        mapping
    };
    // SAFETY: 1. taken out of the cache, so ours alone. 2. nobody uses a cached mapping.
    match unsafe { os::remap(mapping.base(), mapping.pages(), PageLen::kept(length)) } {
        Some(base) => {
            mapping.set(base, length);
            Some(mapping)
        }
        None => {
            // No room, or more than one mapping to the kernel, which is not asked again.
            mapping.is_joined.set(1);
            keep(mapping);
            None
        }
    }
}

/// As [`take`], the mapping whole and not one of those freed last.
fn take_apart(length: usize) -> Option<&'static Mapping> {
    let mapping = {
        let _held = LARGE.lock.lock();
        let mut newest = &LARGE.cached;
        for _ in 0..WAITING {
            newest = &newest.get()?.next;
        }
        let fits = |cached: &Mapping| {
            let bytes = cached.length.get();
            bytes >= length && bytes / 2 <= length
        };
        let (link, mapping) = best(newest, fits, |new, old| new.length.get() < old.length.get())?;
        remove(link, mapping);
        mapping
    };
    // SAFETY: 1. taken out of its list.
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
        self.is_joined.set(1);
    }

    fn end(&self) -> usize {
        self.base().addr().get() + self.length.get()
    }
}

/// Lengthens a mapping that is in no list by at least `more` bytes of a cached one that begins where it
/// ends; whether there is one.
pub(super) fn absorb(mapping: &'static Mapping, more: usize) -> bool {
    let _held = LARGE.lock.lock();
    let is_behind = |cached: &Mapping| cached.base().addr().get() == mapping.end();
    let fits = |cached: &Mapping| is_behind(cached) && cached.length.get() >= more;
    let Some((link, neighbour)) = best(&LARGE.cached, fits, |_, _| false) else {
        return false;
    };
    remove(link, neighbour);
    let left = neighbour.length.get() - more;
    let taken = if left < REST {
        neighbour.length.get()
    } else {
        more
    };
    mapping.length.set(mapping.length.get() + taken);
    mapping.is_joined.set(1);
    if left < REST {
        retire_held(neighbour);
    } else {
        // SAFETY: 1. shorter than the neighbour.
        let base = unsafe { crate::ptr::advance(neighbour.base(), more) };
        neighbour.set(base, left);
        neighbour.is_room.set(1);
        push(neighbour);
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

/// Puts a mapping among the cached ones, joined with those beside it.
pub(super) fn keep(mapping: &'static Mapping) {
    let _held = LARGE.lock.lock();
    let beside = |cached: &Mapping| {
        let base = cached.base().addr().get();
        base == mapping.end() || cached.end() == mapping.base().addr().get()
    };
    // One on either side.
    while !guarded::is_apart()
        && let Some((link, neighbour)) = best(&LARGE.cached, beside, |_, _| false)
    {
        remove(link, neighbour);
        mapping.join(neighbour);
        retire_held(neighbour);
    }
    push(mapping);
}

/// Takes a mapping out of the list, `link` being what leads to it. Locked.
pub(super) fn remove(link: &Link<Mapping>, mapping: &'static Mapping) {
    link.set(mapping.next.get());
    LARGE
        .cached_bytes
        .set(LARGE.cached_bytes.get() - mapping.length.get());
}

/// Puts a mapping in front of the list. Locked.
pub(super) fn push(mapping: &'static Mapping) {
    mapping.next.set(LARGE.cached.get());
    LARGE.cached.set(Some(mapping));
    LARGE
        .cached_bytes
        .set(LARGE.cached_bytes.get() + mapping.length.get());
}

/// Checks that no two cached mappings meet, as they would have been joined (ALGORITHM.md, I9); their bytes. Locked.
pub(super) fn verify() -> Result<usize, Violation> {
    let (mut link, mut bytes) = (&LARGE.cached, 0);
    while let Some(mapping) = link.get() {
        bytes += mapping.length.get();
        link = &mapping.next;
        let (start, end) = (mapping.base().addr().get(), mapping.end());
        let meets = |other: &Mapping| other.base().addr().get() <= end && other.end() >= start;
        if !guarded::is_apart() && best(link, meets, |_, _| false).is_some() {
            return Err(Violation {
                invariant: "I9: cached mappings do not meet",
                address: start,
            });
        }
    }
    Ok(bytes)
}
