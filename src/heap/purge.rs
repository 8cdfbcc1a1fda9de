//! Returning what slabs hold: spare slabs whole, and free pages inside partly used ones.

use super::class::Locked;
use super::unused::Unused;
use super::{class_of, heaps};
use crate::arena;
use crate::os::{self, PageLen, failpoints};
use crate::slab::{Slab, SlabState, holes};
use crate::sync::{AtomicUsize, Ordering};

/// Blocks in magazines of threads that are held off, by address, ascending: free to be purged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle<'a>(pub(crate) &'a [usize]);

impl Idle<'_> {
    /// The addresses in the units of `slab`.
    fn of(&self, slab: &Slab) -> impl Iterator<Item = usize> {
        let info = slab.info();
        let start = slab.base().addr().get();
        let from = self.0.partition_point(|address| *address < start);
        self.0[from..]
            .iter()
            .copied()
            .take_while(move |address| slab.holds(*address, info))
    }

    fn holds_one_of(&self, slab: &Slab) -> bool {
        self.of(slab).next().is_some()
    }

    /// Adds the blocks of `slab` to its free ones.
    fn add_to(&self, slab: &Slab, free: &mut [u64; 64]) {
        let info = slab.info();
        for block in self
            .of(slab)
            .filter_map(|address| slab.block_of(address, info).ok())
        {
            free[block / 64] |= 1 << (block % 64);
        }
    }
}

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

/// Purges the free pages of every slab; bytes returned to the kernel.
pub(crate) fn all_holes(idle: Idle<'_>) -> usize {
    let slabs = arena::chunks().flat_map(Slab::of_chunk);
    slabs.map(|slab| purge_holes(slab, idle)).sum()
}

/// Where [`some_holes`] goes on: a count of slabs.
static CURSOR: AtomicUsize = AtomicUsize::new(0);

/// Purges the free pages of slabs that nothing left or came back to for two sweeps, looking at the
/// next `count` slabs.
pub(crate) fn some_holes(count: usize) {
    // ORDERING: a cursor; two sweepers at once look at different slabs.
    let from = CURSOR.fetch_add(count, Ordering::Relaxed);
    if sweep(from, count) < count {
        // ORDERING: as above.
        CURSOR.store(0, Ordering::Relaxed);
    }
}

/// The same, looking at all slabs.
pub(crate) fn old_holes() {
    sweep(0, usize::MAX);
}

/// Looks at `count` slabs from the one numbered `from` on; how many there were.
fn sweep(from: usize, count: usize) -> usize {
    let mut seen = 0;
    for slab in arena::chunks()
        .flat_map(Slab::of_chunk)
        .skip(from)
        .take(count)
    {
        seen += 1;
        let old = {
            let (class, heap) = (slab.class(), slab.heap());
            let guard = class_of(class, heap).lock();
            slab.is_of(class, heap) && slab.age(guard.get().held)
        };
        if old {
            purge_holes(slab, Idle(&[]));
        }
    }
    seen
}

/// Purges the free pages of one slab: claimed under the lock by taking the slab out of the lists,
/// purged without it, then put back.
fn purge_holes(slab: &'static Slab, idle: Idle<'_>) -> usize {
    let (class, heap) = (slab.class(), slab.heap());
    let state = class_of(class, heap);
    let info = class.info();
    let mut free = {
        let guard = state.lock();
        let locked = guard.get();
        let may_be_dirty = || slab.is_touched() || idle.holds_one_of(slab);
        if !slab.is_of(class, heap) || !may_be_dirty() || !locked.begin_purge(slab) {
            return 0;
        }
        slab.free_bits(locked.held)
    };
    let base = slab.base();
    failpoints::at(failpoints::Point::Holes);
    idle.add_to(slab, &mut free);
    let mut bytes = 0;
    let mut refused = false;
    for (offset, length) in holes::runs(info, &free, os::page_size()) {
        slab.stay_small();
        // SAFETY: 1. a run inside the slab.
        let run = unsafe { crate::ptr::advance::<u8>(base, offset) };
        // SAFETY: 1. inside a slab that this thread alone purges; its free blocks cannot leave
        // while it is in no list, nor idle ones while their threads are held off.
        if unsafe { os::purge(run, PageLen::within(length)) } {
            bytes += length;
        } else {
            refused = true;
        }
    }
    let unused = {
        let guard = state.lock();
        let locked = guard.get();
        if refused {
            slab.touch(locked.held);
        }
        slab.set_state(SlabState::Full, locked.held);
        locked.file(slab, info)
    };
    Unused::from(unused).release();
    bytes
}

impl Locked<'_> {
    /// Takes a slab out of the lists for a purge, unless another purge has.
    fn begin_purge(self, slab: &'static Slab) -> bool {
        if !self.unfile(slab) {
            return false;
        }
        slab.clean(self.held);
        slab.set_state(SlabState::Holes, self.held);
        true
    }
}
