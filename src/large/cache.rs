//! Freed mappings kept for reuse, bounded in bytes, number and age.

use core::ptr::NonNull;

use super::{Age, LARGE, Mapping, descriptor, guarded, retire};
use crate::config;
use crate::os;
use crate::sync::Link;

/// Most mappings in the cache.
const ENTRIES: usize = 16;
/// Mappings that the kernel refused to unmap before, tried again with each free of a mapping: more than
/// one, so that they become fewer.
const RETRIES: usize = 2;
/// Mappings freed last that wait before they are reused, where mappings are kept apart.
const WAITING: usize = 1;

/// A cached mapping of `length` bytes: the shortest that is long enough, its rest staying in the
/// cache if that is longer than what was asked for; or else the longest shorter one, grown: its pages
/// save faults even so.
pub(super) fn take(length: usize) -> Option<&'static Mapping> {
    if guarded::is_apart() {
        return take_apart(length);
    }
    // For the rest, made before the lock is taken; without it nothing is split.
    let mut rest = descriptor();
    let mapping = {
        let _held = LARGE.lock.lock();
        let all = &LARGE.cached;
        let link = best(all, |cached| cached >= length, |new, old| new < old)
            .or_else(|| best(all, |cached| cached < length, |new, old| new > old));
        let mapping = link.and_then(|link| {
            let mapping = link.get()?;
            remove(link, mapping);
            Some(mapping)
        });
        if let (Some(mapping), Some(tail)) = (mapping, rest)
            && mapping.length.get() / 2 > length
        {
            tail.freed.set(mapping.freed.get());
            tail.set_rest_of(mapping, length);
            push(tail);
            rest = None;
        }
        mapping
    };
    if let Some(unneeded) = rest {
        retire(unneeded);
    }
    let mapping = mapping?;
    let cached = mapping.length.get();
    if cached >= length {
        return Some(mapping);
    }
    // SAFETY: 1. taken out of the cache, so ours alone. 2. nobody uses a cached mapping.
    match unsafe { os::remap(mapping.base(), cached, length) } {
        Some(base) => {
            mapping.set(base, length);
            Some(mapping)
        }
        None => {
            // Grown together from two kernel mappings, or no room: not worth another try.
            let _ = unmap(mapping);
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
        let fits = |cached| cached >= length && cached / 2 <= length;
        let link = best(newest, fits, |new, old| new < old)?;
        let mapping = link.get()?;
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

/// Whether a freed mapping begins at `block`.
pub(super) fn holds(block: NonNull<u8>) -> bool {
    let _held = LARGE.lock.lock();
    [&LARGE.cached, &LARGE.stuck].into_iter().any(|list| {
        let mut link = list;
        while let Some(mapping) = link.get() {
            if mapping.base() == block {
                return true;
            }
            link = &mapping.next;
        }
        false
    })
}

impl Mapping {
    /// Becomes what is left of `mapping` behind its first `length` bytes, which it keeps.
    fn set_rest_of(&self, mapping: &Self, length: usize) {
        let rest = mapping.length.get() - length;
        // SAFETY: 1. shorter than the mapping.
        let base = unsafe { crate::ptr::advance(mapping.base(), length) };
        self.set(base, rest);
        mapping.length.set(length);
    }
}

/// Lengthens a mapping that is in no list by `more` bytes of a cached one that begins where it
/// ends; whether there is one.
pub(super) fn absorb(mapping: &'static Mapping, more: usize) -> bool {
    let end = mapping.base().addr().get() + mapping.length.get();
    let used_up = {
        let _held = LARGE.lock.lock();
        let mut link = &LARGE.cached;
        let neighbour = loop {
            let Some(cached) = link.get() else {
                return false;
            };
            if cached.base().addr().get() == end && cached.length.get() >= more {
                break cached;
            }
            link = &cached.next;
        };
        remove(link, neighbour);
        mapping.length.set(mapping.length.get() + more);
        let left = neighbour.length.get() - more;
        if left > 0 {
            // SAFETY: 1. shorter than the neighbour.
            let base = unsafe { crate::ptr::advance(neighbour.base(), more) };
            neighbour.set(base, left);
            push(neighbour);
        }
        (left == 0).then_some(neighbour)
    };
    if let Some(neighbour) = used_up {
        retire(neighbour);
    }
    true
}

/// The link to the best mapping from `link` on whose length will do. Locked.
fn best(
    mut link: &'static Link<Mapping>,
    will_do: impl Fn(usize) -> bool,
    is_better: impl Fn(usize, usize) -> bool,
) -> Option<&'static Link<Mapping>> {
    let mut found: Option<(&Link<Mapping>, usize)> = None;
    while let Some(mapping) = link.get() {
        let length = mapping.length.get();
        if will_do(length) && found.is_none_or(|(_, best)| is_better(length, best)) {
            found = Some((link, length));
        }
        link = &mapping.next;
    }
    found.map(|(link, _)| link)
}

/// Takes a mapping out of the list, `link` being what leads to it. Locked.
fn remove(link: &Link<Mapping>, mapping: &'static Mapping) {
    link.set(mapping.next.get());
    LARGE
        .cached_bytes
        .set(LARGE.cached_bytes.get() - mapping.length.get());
}

fn push(mapping: &'static Mapping) {
    mapping.next.set(LARGE.cached.get());
    LARGE.cached.set(Some(mapping));
    LARGE
        .cached_bytes
        .set(LARGE.cached_bytes.get() + mapping.length.get());
}

/// Keeps a freed mapping, or gives it back if it is too long to keep; then what is due.
pub(super) fn put(mapping: &'static Mapping) {
    mapping.restore();
    mapping.freed.set(os::now_ms());
    // One mapping may have half of the cache.
    let is_too_long = mapping.length.get() > config::large_cache() / 2;
    // SAFETY: 1. freed, and in no list yet.
    if is_too_long || !unsafe { mapping.shut() } {
        unmap(mapping);
    } else {
        let _held = LARGE.lock.lock();
        push(mapping);
    }
    decay(Age::Due);
}

/// Gives cached mappings back, and those that the kernel refused before; bytes returned.
pub(super) fn decay(age: Age) -> usize {
    let mut bytes = 0;
    while let Some(mapping) = oldest_due(age) {
        let length = mapping.length.get();
        if !unmap(mapping) {
            return bytes;
        }
        bytes += length;
    }
    let tries = if age == Age::Any { usize::MAX } else { RETRIES };
    for _ in 0..tries {
        let Some(mapping) = newest_stuck() else {
            break;
        };
        let length = mapping.length.get();
        if !unmap(mapping) {
            break;
        }
        bytes += length;
    }
    bytes
}

/// Takes a mapping that the kernel refused to unmap out of its list.
fn newest_stuck() -> Option<&'static Mapping> {
    let _held = LARGE.lock.lock();
    let mapping = LARGE.stuck.get()?;
    LARGE.stuck.set(mapping.next.get());
    Some(mapping)
}

/// The same, one that is long enough: at the limit of mappings there may be no others.
pub(super) fn take_stuck(length: usize) -> Option<&'static Mapping> {
    let mapping = {
        let _held = LARGE.lock.lock();
        let link = best(&LARGE.stuck, |stuck| stuck >= length, |new, old| new < old)?;
        let mapping = link.get()?;
        link.set(mapping.next.get());
        mapping
    };
    // SAFETY: 1. taken out of its list.
    if !unsafe { mapping.open(length) } {
        let _ = unmap(mapping);
        return None;
    }
    Some(mapping)
}

/// Takes the mapping freed first out of the cache, if it is due.
fn oldest_due(age: Age) -> Option<&'static Mapping> {
    let _held = LARGE.lock.lock();
    let mut link = &LARGE.cached;
    let mut entries = 1;
    let mut oldest = link.get()?;
    while let Some(next) = oldest.next.get() {
        link = &oldest.next;
        oldest = next;
        entries += 1;
    }
    let due = age == Age::Any
        || entries > ENTRIES
        || LARGE.cached_bytes.get() > config::large_cache()
        || os::now_ms() >= oldest.freed.get() + config::purge_delay_ms();
    due.then(|| {
        remove(link, oldest);
        oldest
    })
}

/// Unmaps a mapping that is in no list. At the limit of mappings the kernel may refuse to cut it
/// out: then its pages go back, and the addresses wait to be used or unmapped later.
fn unmap(mapping: &'static Mapping) -> bool {
    let (start, length) = mapping.whole();
    // SAFETY: 1. in no list any more, so ours alone.
    if unsafe { os::unmap(start, length) } {
        retire(mapping);
        return true;
    }
    // SAFETY: 1. as above.
    let _ = unsafe { os::purge(mapping.base(), mapping.length.get()) };
    let _held = LARGE.lock.lock();
    mapping.next.set(LARGE.stuck.get());
    LARGE.stuck.set(Some(mapping));
    false
}
