//! In a forked child: what threads of the parent were doing here when they vanished.

use super::class::ClassHeap;
use super::unused::Unused;
use super::{heaps, home};
use crate::arena;
use crate::os::failpoints;
use crate::size_class::SizeClass;
use crate::slab::Slab;
use crate::sync::{Ordering, Slot};

/// In a forked child: slabs give and take blocks.
#[must_use]
pub(crate) struct Whole(());

/// Breaks the locks of threads that are gone, and rebuilds from the bitmaps the classes that they
/// held or purged.
///
/// # Safety
/// 1. This is the only thread inside the allocator, and it holds no lock.
pub(crate) unsafe fn recover(_: &arena::Whole) -> Whole {
    let classes = || heaps().flat_map(|(_, heap)| SizeClass::all().map(|class| heap.class(class)));
    for class in classes() {
        // SAFETY: 1. this thread is alone, and lets go of each lock before the next.
        unsafe { class.begin_repair() };
    }
    if !classes().any(ClassHeap::is_broken) {
        return Whole(());
    }
    let mut unused = Unused::none();
    for slab in arena::chunks().flat_map(Slab::of_chunk) {
        failpoints::count_step();
        let home = home(slab);
        if home.is_broken() {
            home.lock().get().repair(slab, &mut unused);
        }
    }
    // If this child forks from here on, its child finds the spans claimed by nobody, and frees them.
    classes().for_each(ClassHeap::end_repair);
    unused.release();
    Whole(())
}

/// Takes back blocks of threads that are gone. What is no block of the class, or is free already,
/// is passed over: a thread may have vanished in the middle of an operation.
pub(crate) fn adopt(class: SizeClass, blocks: &[Slot]) {
    for slot in blocks {
        failpoints::count_step();
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
