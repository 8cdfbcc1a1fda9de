//! Freed mappings on their way back to the kernel: by age, by number, by bytes, and those that it refused.

use super::cache::{self, REST};
use super::mappings::{MAPPINGS, Mappings, cached_bytes};
use super::stuck;
use super::{Age, Mapping, descriptor, guarded};
use crate::config;
use crate::os;

/// Most mappings in the cache.
const ENTRIES: usize = 32;
/// The least that goes back of a mapping in parts.
const PART: usize = 1 << 20;

/// Caches a freed mapping, or unmaps it if it is too long for that; then what is due.
pub(super) fn cache_or_unmap(mapping: &'static Mapping) {
    mapping.restore();
    mapping.freed.set(os::now_ms());
    // One mapping may have half of the cache.
    let is_too_long = mapping.length.get() > config::large_cache() / 2;
    // SAFETY: 1. freed, and in no list yet.
    if is_too_long || !unsafe { mapping.shut() } {
        stuck::unmap(mapping);
    } else {
        cache::cache(mapping);
    }
    decay(Age::Due);
}

/// Gives cached mappings back, and those that the kernel refused before; bytes returned.
pub(super) fn decay(age: Age) -> usize {
    let mut bytes = 0;
    while let Some(mapping) = next_due(age) {
        let length = mapping.length.get();
        if stuck::unmap(mapping) {
            bytes += length;
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
    let may_cut = age == Age::Due && cached_bytes() > most && !guarded::is_apart();
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
        let excess = cached_bytes().saturating_sub(most);
        let is_old = age == Age::Any
            || self.cached().count() > ENTRIES
            || os::now_ms() >= oldest.mapping.freed.get() + config::purge_delay_ms();
        if !is_old && excess == 0 {
            return None;
        }
        let oldest = self.remove_cached(oldest);
        let length = oldest.length.get();
        let part = excess.max(PART).next_multiple_of(PART);
        if !is_old
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
