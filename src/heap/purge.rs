//! Returning what slabs hold: spare slabs whole, and free pages inside partly used ones.

use super::class::ClassHeap;
use super::unused::Unused;
use super::{TABLE, class_of, count, heaps};
use crate::arena;
use crate::config;
use crate::os::{self, PageLen, failpoints};
use crate::size_class::{CLASSES, ClassInfo, SizeClass};
use crate::slab::{Slab, holes};
use crate::sync::{AtomicUsize, Ordering};

/// Gives the spare slabs of all classes back to their chunks.
pub(crate) fn spares() {
    for (_, heap) in heaps() {
        for state in &heap.classes {
            if state.may_have_a_spare() {
                // A statement of its own, at whose end the class is unlocked.
                let spare = state.lock().get().give_up_spare();
                Unused::from(spare).release();
            }
        }
    }
}

/// Every slab, as of some moment while they are walked.
pub(crate) fn slabs() -> impl Iterator<Item = &'static Slab> {
    arena::chunks().flat_map(Slab::of_chunk)
}

/// Most blocks of a slab.
pub(crate) const MOST_BLOCKS: usize = 64 * 64;

/// Steps of one part of a round: slabs looked at, units purged, classes turned to.
const STEPS: usize = 64;

/// Slabs looked at under one hold of a class's lock.
const LOOKS: usize = 32;

/// The places of classes, all heaps' one after the other.
fn places() -> usize {
    count() * CLASSES
}

/// One more than the place of the class that [`some_holes`] goes on with; 0 between two rounds.
static PLACE: AtomicUsize = AtomicUsize::new(0);

/// Steps that the round under way has spent on that class.
static SPENT: AtomicUsize = AtomicUsize::new(0);

/// Purges free pages of slabs that nothing left or came back to since a look half a delay ago: a part
/// of the round through all classes that is under way. If there is none, one begins if it
/// `may_begin`. Returns whether the round goes on.
pub(crate) fn some_holes(may_begin: bool) -> bool {
    // ORDERING: a place to go on; two threads at once look at different slabs, or at different
    // classes.
    let at = go_on(PLACE.load(Ordering::Relaxed), may_begin, part);
    // ORDERING: as above.
    PLACE.store(at, Ordering::Relaxed);
    at != 0
}

/// What [`PLACE`] becomes by a part of a round, if there is one to go on or one may begin.
fn go_on(at: usize, may_begin: bool, part: impl FnOnce(usize) -> usize) -> usize {
    if at == 0 && !may_begin {
        return 0;
    }
    match part(at.saturating_sub(1)) {
        next if next < places() => next + 1,
        _ => 0,
    }
}

/// A part of a round that goes on with the class at the place `first`; where the next part does.
fn part(first: usize) -> usize {
    let (mut steps, mut place) = (STEPS, first);
    let places = places();
    while place < places {
        let Some(heap) = TABLE[place / CLASSES].get() else {
            place = (place / CLASSES + 1) * CLASSES;
            continue;
        };
        let class = SizeClass::new(place % CLASSES);
        let (state, info, before) = (heap.class(class), class.info(), steps);
        old_of(state, info, &mut steps);
        // ORDERING: as in `some_holes`; a wrong sum ends a class's turn sooner or later.
        let spent = SPENT.load(Ordering::Relaxed) + before - steps;
        if steps == 0 && spent < most_steps(state, info) {
            SPENT.store(spent, Ordering::Relaxed);
            break;
        }
        SPENT.store(0, Ordering::Relaxed);
        place += 1;
        steps = steps.saturating_sub(1);
        if steps == 0 {
            break;
        }
    }
    place
}

/// Steps after which a round goes on to the next class, even if others are at work on the slabs.
fn most_steps(state: &ClassHeap, info: &ClassInfo) -> usize {
    state.slabs_about() * (2 + info.units.get() as usize)
}

/// The same, a whole round, which ends even if others are at work on the slabs; bytes returned to the kernel.
pub(crate) fn old_holes() -> usize {
    let mut bytes = 0;
    for (_, heap) in heaps() {
        for class in SizeClass::all() {
            let (state, info) = (heap.class(class), class.info());
            let mut steps = most_steps(state, info);
            bytes += old_of(state, info, &mut steps);
        }
    }
    bytes
}

/// Purges the free pages of old slabs of one class, as many as `steps`, from which it counts down,
/// allow; bytes returned to the kernel.
fn old_of(state: &'static ClassHeap, info: &'static ClassInfo, steps: &mut usize) -> usize {
    let mut bytes = 0;
    let delay = config::purge_delay_ms().div_ceil(2);
    let mut is_done = !state.may_have_holes();
    while *steps > 0 && !is_done {
        let (look, free) = {
            let guard = state.lock();
            let locked = guard.get();
            let look = locked.look(LOOKS.min(*steps), delay);
            let free = look.old.map(|slab| slab.free_bits(locked.held));
            (look, free)
        };
        *steps -= look.looks;
        is_done = look.is_last;
        if let (Some(slab), Some(free)) = (look.old, free) {
            *steps = steps.saturating_sub(info.units.get() as usize);
            // What a kernel refused waits for the next round, and with it what is behind it.
            let purged = purge_claimed(slab, state, &free);
            is_done |= purged.is_refused;
            bytes += purged.bytes;
        }
    }
    bytes
}

/// Purges the free pages of one slab, old or not, and those under blocks that are `idle`: in magazines, where they stay
/// meanwhile. There is something to do if blocks left or came back since the last time, or if some of the idle ones
/// `are_fresh`. Bytes returned to the kernel; `None` if somebody else is at work on the slab.
pub(crate) fn purge_holes(slab: &'static Slab, idle: &[usize], are_fresh: bool) -> Option<usize> {
    let (class, heap) = (slab.class(), slab.heap());
    let state = class_of(class, heap);
    let mut free = {
        let guard = state.lock();
        let locked = guard.get();
        if !slab.is_of(class, heap) || !(slab.is_touched() || are_fresh) {
            return Some(0);
        }
        if !locked.begin_purge(slab) {
            return None;
        }
        slab.free_bits(locked.held)
    };
    let info = slab.info();
    // The slab may be another than when they were listed.
    let inside = idle.iter().filter(|address| slab.holds(**address, info));
    let blocks = inside.filter_map(|address| slab.block_of(*address, info).ok());
    blocks.for_each(|block| free[block / 64] |= 1 << (block % 64));
    Some(purge_claimed(slab, state, &free).bytes)
}

/// What a purge of one slab came to.
struct Purged {
    bytes: usize,
    /// The kernel did not take all.
    is_refused: bool,
}

/// Purges the free pages of a slab that was taken out of the lists under the lock
/// ([`Locked::begin_purge`]), without the lock, then puts it back.
fn purge_claimed(slab: &'static Slab, state: &ClassHeap, free: &[u64; 64]) -> Purged {
    let (base, info) = (slab.base(), slab.info());
    failpoints::at(failpoints::Point::Holes);
    let mut purged = Purged {
        bytes: 0,
        is_refused: false,
    };
    for (offset, length) in holes::runs(info, free, os::page_size()) {
        slab.stay_small();
        // SAFETY: 1. a run inside the slab.
        let run = unsafe { crate::ptr::advance::<u8>(base, offset) };
        // SAFETY: 1. inside a slab that this thread alone purges; its free blocks cannot leave
        // while it is in no list, nor idle ones while their threads are held off.
        if unsafe { os::purge(run, PageLen::within(length)) } {
            purged.bytes += length;
        } else {
            purged.is_refused = true;
        }
    }
    let unused = {
        let guard = state.lock();
        let locked = guard.get();
        if purged.is_refused {
            slab.touch(locked.held);
        }
        locked.end_purge(slab);
        locked.file(slab, info)
    };
    Unused::from(unused).release();
    purged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_goes_on_where_it_stopped() {
        let none = |_| unreachable!("nothing is under way");
        assert_eq!(go_on(0, false, none), 0);
        // In the very first class.
        let at = go_on(0, true, |first| first);
        assert_ne!(at, 0);
        let at = go_on(at, false, |first| first + 7);
        assert_eq!(go_on(at, false, |first| first), at);
        assert_eq!(go_on(at, false, |_| places()), 0);
    }
}
