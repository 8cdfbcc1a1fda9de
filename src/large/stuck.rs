//! Giving a mapping's addresses back, and what waits where the kernel refuses: at its limit of mappings it cuts none.

use super::list::{Found, List};
use super::mappings::MAPPINGS;
use super::{Age, Mapping, retire};
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
    let mappings = MAPPINGS.lock();
    let [next, again] = mappings.stuck();
    if next.is_empty() {
        again.move_to(next);
    }
}

/// Removes a mapping that the kernel refused to unmap from its list.
fn next_stuck() -> Option<&'static Mapping> {
    MAPPINGS.lock().stuck()[0].remove_newest()
}

/// The same, one that is long enough, of either list: at the limit of mappings there may be no others.
pub(super) fn reuse(length: usize) -> Option<&'static Mapping> {
    let mapping = {
        let mappings = MAPPINGS.lock();
        let shortest = |list: &List| {
            let fitting = list.iter().filter(|stuck| stuck.length() >= length);
            fitting.min_by_key(Found::length).map(Found::remove)
        };
        mappings.stuck().iter().find_map(shortest)?
    };
    // SAFETY: 1. removed from its list, where nobody uses it.
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
    // SAFETY: 1. still ours alone, as the kernel left it where it is.
    let _ = unsafe { os::purge(mapping.base(), mapping.pages()) };
    mapping.is_full.set(0);
    // Where freed mappings are inaccessible, this one is as well, if the kernel lets it be.
    // SAFETY: 1. it comes into a list below.
    let _ = unsafe { mapping.shut() };
    MAPPINGS.lock().stuck()[1].insert(mapping);
    false
}
