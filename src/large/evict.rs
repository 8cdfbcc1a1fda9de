//! Freed mappings on their way back to the kernel: by age, by number, by bytes, and those that it refused.

use super::cache::{self, REST};
use super::mappings::{MAPPINGS, Mappings, cached_bytes};
use super::stuck;
use super::{Age, Mapping, descriptor, guarded};
use crate::config;
use crate::demand::{AT_ONCE, Cause, DEMAND};
use crate::os;

/// Most mappings in the cache.
const ENTRIES: usize = 32;
/// The least that goes back of a mapping in parts.
const PART: usize = 1 << 20;

/// Caches a freed mapping, or unmaps it if it is too long for that; then what is due.
pub(super) fn cache_or_unmap(mapping: &'static Mapping) {
    mapping.restore();
    mapping.freed.set(os::now_ms());
    let length = mapping.length.get();
    let most = config::large_cache().min(DEMAND.budget());
    let is_too_long = length > most || !os::can_cut(length);
    // SAFETY: 1. freed, and in no list yet.
    if is_too_long || !unsafe { mapping.shut() } {
        if stuck::unmap(mapping) {
            DEMAND.note_return(length, Cause::Budget);
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
        if stuck::unmap(mapping) {
            bytes += length;
            if age == Age::Due {
                DEMAND.note_return(length, cause);
            }
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

impl Mappings {
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
        let (now, delay) = (os::now_ms(), config::purge_delay_ms());
        // What was not needed of late goes once it is old.
        let unneeded = if now >= oldest.mapping.freed.get() + delay {
            DEMAND.look(now, delay);
            DEMAND.excess(delay)
        } else {
            0
        };
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
