//! From bitmaps to a magazine: own slabs, then those of heaps that have plenty, then a new slab.

use super::{ClassHeap, Slot, TABLE, heap};
use crate::arena;
use crate::os::failpoints;
use crate::size_class::{Row, SizeClass};
use crate::slab::Slab;
use crate::sync::Ordering;

/// Slabs that one refill draws from: more would hand out blocks too scattered to be worth it.
const SLABS: usize = 4;

/// Fills the front of `out` with free blocks of `class`, addresses ascending slab by slab, and says
/// how many. 0 is out of memory.
pub(crate) fn refill(index: usize, class: SizeClass, out: &[Slot]) -> usize {
    let Some(own) = heap(index) else { return 0 };
    let (state, row) = (own.class(class), class.row());
    let taken = {
        let _held = state.lock.lock();
        state.draw(row, out)
    };
    if taken > 0 {
        return taken;
    }
    let taken = borrow(index, class, row, out);
    if taken > 0 {
        return taken;
    }
    new_slab(state, index, class, row, out)
}

/// Draws from another heap that has a slab's worth of free blocks, so that what one thread frees is
/// not lost on others. The blocks go back there when they are freed.
fn borrow(index: usize, class: SizeClass, row: &Row, out: &[Slot]) -> usize {
    for other in (0..TABLE.len()).filter(|other| *other != index) {
        let Some(heap) = TABLE[other].get() else {
            continue;
        };
        let state = heap.class(class);
        // Read without the lock: a wrong guess costs a look.
        if state.free.get() < row.blocks as usize {
            continue;
        }
        let Some(_held) = state.lock.try_lock() else {
            continue;
        };
        let taken = state.draw(row, out);
        if taken > 0 {
            return taken;
        }
    }
    0
}

fn new_slab(state: &ClassHeap, index: usize, class: SizeClass, row: &Row, out: &[Slot]) -> usize {
    let Some((span, _)) = arena::claim(row.units) else {
        return 0;
    };
    let _held = state.lock.lock();
    #[expect(clippy::cast_possible_truncation, reason = "below HEAPS")]
    let slab = Slab::create(span, class, index as u8);
    state.slabs.set(state.slabs.get() + 1);
    state.free.set(state.free.get() + row.blocks as usize);
    state.draw_from(slab, row, out)
}

impl ClassHeap {
    fn draw(&self, row: &Row, out: &[Slot]) -> usize {
        let mut taken = 0;
        for _ in 0..SLABS {
            if taken == out.len() {
                break;
            }
            let Some(slab) = self.choose() else { break };
            taken += self.draw_from(slab, row, &out[taken..]);
        }
        taken
    }

    fn draw_from(&self, slab: &'static Slab, row: &Row, out: &[Slot]) -> usize {
        let count = slab.free().min(out.len());
        let mut slots = out.iter();
        slab.take(count, row, |block| {
            if let Some(slot) = slots.next() {
                // ORDERING: read by the same thread, or by a purger that holds its gate.
                slot.store(block.as_ptr(), Ordering::Relaxed);
            }
        });
        self.free.set(self.free.get() - count);
        failpoints::at(failpoints::Point::Refill);
        let unused = self.settle(slab);
        debug_assert!(unused.is_none(), "blocks were taken");
        count
    }
}
