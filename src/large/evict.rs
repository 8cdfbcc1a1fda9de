//! Freed mappings on their way back to the kernel: by age, by number, by bytes, and those that it refused.

use super::cache::{REST, best, keep, push, remove};
use super::{Age, LARGE, Mapping, descriptor, guarded, retire};
use crate::config;
use crate::os;

/// Most mappings in the cache.
const ENTRIES: usize = 32;
/// The least that goes back of a mapping in parts.
const PART: usize = 1 << 20;
/// Mappings that the kernel refused to unmap before, tried again with each free of a mapping: more than
/// one, so that they become fewer.
const RETRIES: usize = 2;

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
        keep(mapping);
    }
    decay(Age::Due);
}

/// Gives cached mappings back, and those that the kernel refused before; bytes returned.
pub(super) fn decay(age: Age) -> usize {
    let mut bytes = 0;
    while let Some(mapping) = next_due(age) {
        let length = mapping.length.get();
        if unmap(mapping) {
            bytes += length;
        } else if age == Age::Due {
            // At the limit of mappings: another may go, but one free does not pay for many refusals.
            return bytes;
        }
    }
    bytes + retry(age)
}

/// Tries to unmap what the kernel refused before: two, or, if it is all the same how old they are, each of them; bytes
/// returned.
fn retry(age: Age) -> usize {
    // Those that the first round finds refused before the others, and those refused in it, come in the second.
    let (rounds, tries) = match age {
        Age::Due => (1, RETRIES),
        Age::Any => (2, usize::MAX),
    };
    let mut bytes = 0;
    for _ in 0..rounds {
        begin_round();
        for mapping in core::iter::from_fn(next_stuck).take(tries) {
            let length = mapping.length.get();
            if unmap(mapping) {
                bytes += length;
            }
        }
    }
    bytes
}

/// Those that were refused again are the next to be tried, once all others were.
fn begin_round() {
    let _held = LARGE.lock.lock();
    let [stuck, again] = &LARGE.stuck;
    if stuck.get().is_none() {
        let all = again.get();
        // In a child of a fork in between they are lost, not in both.
        again.set(None);
        stuck.set(all);
    }
}

/// Takes a mapping that the kernel refused to unmap out of its list.
fn next_stuck() -> Option<&'static Mapping> {
    let _held = LARGE.lock.lock();
    let mapping = LARGE.stuck[0].get()?;
    LARGE.stuck[0].set(mapping.next.get());
    Some(mapping)
}

/// The same, one that is long enough, of either list: at the limit of mappings there may be no others.
pub(super) fn take_stuck(length: usize) -> Option<&'static Mapping> {
    let mapping = {
        let _held = LARGE.lock.lock();
        let will_do = |stuck: &Mapping| stuck.length.get() >= length;
        let is_better = |new: &Mapping, old: &Mapping| new.length.get() < old.length.get();
        let mut found = LARGE
            .stuck
            .iter()
            .map(|list| best(list, will_do, is_better));
        let (link, mapping) = found.find_map(|found| found)?;
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

/// Unmaps a mapping that is in no list. At the limit of mappings the kernel may refuse to cut it
/// out: then its pages go back, and the addresses wait to be used or unmapped later.
pub(super) fn unmap(mapping: &'static Mapping) -> bool {
    let (start, length) = mapping.whole();
    // SAFETY: 1. in no list any more, so ours alone.
    if unsafe { os::unmap(start, length) } {
        retire(mapping);
        return true;
    }
    // SAFETY: 1. as above.
    let _ = unsafe { os::purge(mapping.base(), mapping.length.get()) };
    // Where freed mappings are inaccessible, this one is as well, if the kernel lets it be.
    // SAFETY: 1. as above.
    let _ = unsafe { mapping.shut() };
    let _held = LARGE.lock.lock();
    let again = &LARGE.stuck[1];
    mapping.next.set(again.get());
    again.set(Some(mapping));
    false
}
