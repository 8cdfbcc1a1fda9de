//! Freed mappings on their way back to the kernel: by age, by number, by bytes, and those that it refused.

use core::ptr::NonNull;

use super::cache::{self, REST};
use super::mappings::{MAPPINGS, Mappings, cached_bytes};
use super::stuck;
use super::{Age, Mapping, descriptor, guarded};
use crate::config;
use crate::demand::{AT_ONCE, Cause, DEMAND};
use crate::error::Misuse;
use crate::os;

/// Most mappings in the cache.
const ENTRIES: usize = 32;
/// The least that goes back of a mapping in parts.
const PART: usize = 1 << 20;

/// Takes the mapping at `block` back from its user, who had `size` bytes of it or, if that is 0, any number, and caches
/// it; then what is due. Where that is nothing, all in one hold of the lock. `None` is no mapping.
pub(super) fn free(block: NonNull<u8>, size: usize) -> Result<(), Option<Misuse>> {
    let most = config::large_cache();
    let (mapping, is_due) = {
        let mappings = MAPPINGS.lock();
        let mapping = mappings.remove(block).ok_or(None)?;
        if !mapping.serves(size) {
            return Err(Some(Misuse::WrongClass));
        }
        let length = mapping.length.get();
        if guarded::is_apart() || is_too_long(length) {
            (Some(mapping), true)
        } else {
            mapping.freed.set(os::now_ms());
            cache::insert_joined(&mappings, mapping);
            (None, mappings.is_due(most))
        }
    };
    match mapping {
        Some(mapping) => cache_or_unmap(mapping),
        None if is_due => {
            decay(Age::Due);
        }
        None => {}
    }
    Ok(())
}

/// Whether a mapping is too long to be cached, or to go back in parts.
fn is_too_long(length: usize) -> bool {
    length > config::large_cache().min(DEMAND.budget()) || !os::can_cut(length)
}

/// Caches a freed mapping, or unmaps it if it is too long for that; then what is due.
pub(super) fn cache_or_unmap(mapping: &'static Mapping) {
    mapping.restore();
    mapping.freed.set(os::now_ms());
    let length = mapping.length.get();
    // SAFETY: 1. freed, and in no list yet.
    if is_too_long(length) || !unsafe { mapping.shut() } {
        // A long table of which little was used costs little to have again.
        let returned = os::about_resident(mapping.base(), mapping.pages());
        if stuck::unmap(mapping) {
            DEMAND.note_return(returned, Cause::Budget);
        }
    } else {
        cache::cache(mapping);
    }
    decay(Age::Due);
}

/// Gives cached mappings back, all of them or a part of what is due, and those that the kernel
/// refused before; bytes returned.
pub(super) fn decay(age: Age) -> usize {
    let most = if age == Age::Due { AT_ONCE } else { usize::MAX };
    let mut bytes = 0;
    let cause = DEMAND.cause();
    // What is beyond a bound goes at once: nobody may come by later.
    let is_bounded = || cached_bytes() <= config::large_cache() && DEMAND.beyond_budget() == 0;
    while (bytes < most || !is_bounded())
        && let Some(mapping) = next_due(age)
    {
        let length = mapping.length.get();
        // By the pages that it has, not by its addresses.
        let returned = match age {
            Age::Due => os::about_resident(mapping.base(), mapping.pages()),
            Age::Any => 0,
        };
        if stuck::unmap(mapping) {
            bytes += length;
            DEMAND.note_return(returned, cause);
        } else if age == Age::Due {
            // At the limit of mappings: another may go, but one free does not pay for many refusals.
            return bytes;
        }
    }
    bytes + stuck::retry(age)
}

/// Removes what is due from the cache: the mapping freed first, or as much of it as is too much.
fn next_due(age: Age) -> Option<&'static Mapping> {
    let most = config::large_cache();
    // For the part, made before the lock is taken; without a descriptor the mapping goes whole.
    let is_much = cached_bytes() > most || DEMAND.excess(config::purge_delay_ms()) > 0;
    let may_cut = age == Age::Due && is_much && !guarded::is_apart();
    let mut spare = may_cut.then(descriptor).flatten();
    let mappings = MAPPINGS.lock();
    let due = mappings.remove_due(age, most, &mut spare);
    mappings.retire_spare(spare);
    due
}

/// Bytes that were not needed of late, if this mapping is old: then it goes, as far as it is as long.
fn unneeded(cached: &Mapping) -> usize {
    let (now, delay) = (os::now_ms(), config::purge_delay_ms());
    if now < cached.freed.get() + delay {
        return 0;
    }
    DEMAND.look(now, delay);
    DEMAND.excess(delay)
}

impl Mappings {
    /// Whether anything is to go back, or to be tried again.
    fn is_due(&self, most: usize) -> bool {
        self.cached().any(|cached| unneeded(cached.mapping) > 0)
            || self.cached().count() > ENTRIES
            || cached_bytes() > most
            || DEMAND.beyond_budget() > 0
            || self.stuck().iter().any(|list| !list.is_empty())
    }

    /// Removes what is due from the cache; a part of a mapping takes the descriptor `spare`.
    fn remove_due(
        &self,
        age: Age,
        most: usize,
        spare: &mut Option<&'static Mapping>,
    ) -> Option<&'static Mapping> {
        // Of two freed in one millisecond the one farther down the list.
        let freed_first = |new: &Mapping, old: &Mapping| new.freed.get() <= old.freed.get();
        let oldest = self.cached().reduce(|old, new| {
            if freed_first(new.mapping, old.mapping) {
                new
            } else {
                old
            }
        })?;
        let unneeded = unneeded(oldest.mapping);
        let over = cached_bytes().saturating_sub(most);
        let over = over.max(DEMAND.beyond_budget());
        let excess = over.max(unneeded.min(AT_ONCE));
        let goes_whole = age == Age::Any || self.cached().count() > ENTRIES;
        if !goes_whole && excess == 0 {
            return None;
        }
        let oldest = self.remove_cached(oldest);
        let length = oldest.length.get();
        let part = excess.max(PART).next_multiple_of(PART);
        if !goes_whole
            && part + REST <= length
            && let Some(end) = spare.take()
        {
            end.set_rest_of(oldest, length - part);
            self.insert_cached(oldest);
            return Some(end);
        }
        Some(oldest)
    }
}
