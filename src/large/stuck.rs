//! Giving a mapping's addresses back, and what waits where the kernel refuses: at its limit of mappings it cuts none.

use super::list::best;
use super::{Age, LARGE, Mapping, retire};
use crate::os;

/// Mappings that the kernel refused to unmap before, tried again with each free of a mapping: more than
/// one, so that they become fewer.
const RETRIES: usize = 2;

/// Tries to unmap what the kernel refused before: two, or, if it is all the same how old they are, each of them; bytes
/// returned.
pub(super) fn retry(age: Age) -> usize {
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
    let _ = unsafe { os::purge(mapping.base(), mapping.pages()) };
    // Where freed mappings are inaccessible, this one is as well, if the kernel lets it be.
    // SAFETY: 1. as above.
    let _ = unsafe { mapping.shut() };
    let _held = LARGE.lock.lock();
    let again = &LARGE.stuck[1];
    mapping.next.set(again.get());
    again.set(Some(mapping));
    false
}
