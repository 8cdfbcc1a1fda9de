//! In a forked child: what threads of the parent were doing here when they vanished.

use super::{ClassHeap, heaps, home};
use crate::arena;
use crate::size_class::SizeClass;
use crate::slab::{Slab, SlabState};
use crate::sync::{Ordering, Slot};

/// Breaks the locks of threads that are gone, and rebuilds from the bitmaps the classes that they
/// held or purged.
///
/// # Safety
/// 1. This is the only thread inside the allocator, and it holds no lock.
pub(crate) unsafe fn locks() {
    for slab in arena::chunks().flat_map(Slab::of_chunk) {
        if slab.state() == SlabState::Holes {
            home(slab).broken.set(1);
        }
    }
    for (index, heap) in heaps() {
        for class in SizeClass::all() {
            let state = heap.class(class);
            if state.lock.is_locked() {
                state.broken.set(1);
            }
            state.lock.break_inherited();
            if state.broken.get() != 0 {
                state.rebuild(class, index);
            }
        }
    }
}

impl ClassHeap {
    fn rebuild(&self, class: SizeClass, heap: usize) {
        self.bins.iter().for_each(|bin| bin.set(None));
        self.mask.set(0);
        self.spare.set(None);
        self.free.set(0);
        self.slabs.set(0);
        for slab in arena::chunks().flat_map(Slab::of_chunk) {
            if !slab.is_of(class, heap) {
                continue;
            }
            slab.rebuild();
            slab.set_state(SlabState::Full);
            self.slabs.set(self.slabs.get() + 1);
            self.free.set(self.free.get() + slab.free());
            if let Some(unused) = self.settle(slab, slab.info()) {
                unused.next.set(None);
                super::flush::release(Some(unused));
            }
        }
        // Last: this child may fork before.
        self.broken.set(0);
    }
}

/// Takes back blocks of threads that are gone. What is no block of the class, or is free already,
/// is passed over: a thread may have vanished in the middle of an operation.
pub(crate) fn adopt(class: SizeClass, blocks: &[Slot]) {
    for slot in blocks {
        // ORDERING: the thread that wrote it is gone.
        let address = slot.load(Ordering::Relaxed).addr();
        let Ok((slab, block)) = Slab::locate(address, class) else {
            continue;
        };
        let state = home(slab);
        let unused = {
            let _held = state.lock.lock();
            let before = slab.free();
            slab.put_again(block);
            state.free.set(state.free.get() + slab.free() - before);
            state.settle(slab, slab.info())
        };
        super::flush::release(unused.inspect(|slab| slab.next.set(None)));
    }
}
