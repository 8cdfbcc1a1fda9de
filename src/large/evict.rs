//! Freed mappings on their way back to the kernel: by age, by number, by bytes, and those that it refused.

use super::cache::{REST, keep, push, remove};
use super::list::best;
use super::stuck;
use super::{Age, LARGE, Mapping, descriptor, guarded, retire};
use crate::config;
use crate::os;

/// Most mappings in the cache.
const ENTRIES: usize = 32;
/// The least that goes back of a mapping in parts.
const PART: usize = 1 << 20;

/// Keeps a freed mapping, or gives it back if it is too long to keep; then what is due.
pub(super) fn put(mapping: &'static Mapping) {
    mapping.restore();
    mapping.freed.set(os::now_ms());
    // One mapping may have half of the cache.
    let is_too_long = mapping.length.get() > config::large_cache() / 2;
    // SAFETY: 1. freed, and in no list yet.
    if is_too_long || !unsafe { mapping.shut() } {
        stuck::unmap(mapping);
    } else {
        keep(mapping);
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

/// Takes what is due out of the cache: the mapping freed first, or as much of it as is too much.
fn next_due(age: Age) -> Option<&'static Mapping> {
    let most = config::large_cache();
    // Read without the lock: without a descriptor the mapping goes whole.
    let spare = if age == Age::Due && LARGE.cached_bytes.get() > most && !guarded::is_apart() {
        descriptor()
    } else {
        None
    };
    let (due, unneeded) = {
        let _held = LARGE.lock.lock();
        due_held(age, most, spare)
    };
    if let Some(unneeded) = unneeded {
        retire(unneeded);
    }
    due
}

/// What is due, and `spare` if it was not used. Locked.
fn due_held(
    age: Age,
    most: usize,
    spare: Option<&'static Mapping>,
) -> (Option<&'static Mapping>, Option<&'static Mapping>) {
    // Of two freed in one millisecond the one farther down the list.
    let oldest = best(
        &LARGE.cached,
        |_| true,
        |new, old| new.freed.get() <= old.freed.get(),
    );
    let Some((link, oldest)) = oldest else {
        return (None, spare);
    };
    let excess = LARGE.cached_bytes.get().saturating_sub(most);
    let is_old = age == Age::Any
        || entries() > ENTRIES
        || os::now_ms() >= oldest.freed.get() + config::purge_delay_ms();
    if !is_old && excess == 0 {
        return (None, spare);
    }
    remove(link, oldest);
    let length = oldest.length.get();
    let part = excess.max(PART).next_multiple_of(PART);
    if !is_old
        && part + REST <= length
        && let Some(end) = spare
    {
        end.set_rest_of(oldest, length - part);
        push(oldest);
        return (Some(end), None);
    }
    (Some(oldest), spare)
}

/// Mappings in the cache. Locked.
fn entries() -> usize {
    let (mut link, mut entries) = (&LARGE.cached, 0);
    while let Some(mapping) = link.get() {
        link = &mapping.next;
        entries += 1;
    }
    entries
}
