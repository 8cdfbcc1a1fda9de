//! In a forked child: what threads of the parent were doing here when they vanished.

use super::class::{forget_purges, is_a_purge_under_way};
use super::unused::Unused;
use super::{heaps, home};
use crate::arena;
use crate::size_class::SizeClass;
use crate::slab::{Slab, SlabState};
use crate::sync::{Ordering, Slot};

/// Breaks the locks of threads that are gone, and rebuilds from the bitmaps the classes that they
/// held or purged.
///
/// # Safety
/// 1. This is the only thread inside the allocator, and it holds no lock.
pub(crate) unsafe fn recover() {
    // First: the repair of a class is the end of the state by which a purge is known.
    if is_a_purge_under_way() {
        for slab in arena::chunks().flat_map(Slab::of_chunk) {
            if slab.state() == SlabState::Holes {
                home(slab).note_broken();
            }
        }
    }
    for (index, heap) in heaps() {
        for class in SizeClass::all() {
            let mut unused = Unused::none();
            {
                // SAFETY: 1. this thread is alone, and lets go of each lock before the next.
                let guard = unsafe { heap.class(class).break_lock() };
                guard.get().repair(class, index, &mut unused);
            }
            // If this child forks before, its child finds the spans claimed by nobody, and frees
            // them.
            unused.release();
        }
    }
    forget_purges();
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
        let unused = {
            let guard = home(slab).lock();
            let locked = guard.get();
            locked.put_again(slab, block);
            locked.file(slab, slab.info())
        };
        Unused::from(unused).release();
    }
}
