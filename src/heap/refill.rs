//! From bitmaps to a magazine: own slabs, then those of heaps that have plenty, then a new slab.

use core::ptr::NonNull;

use super::class::{ClassHeap, Locked};
use super::{heap, heaps};
use crate::arena::{self, Purpose};
use crate::config;
use crate::hardening::Hardening;
use crate::os::failpoints;
use crate::random;
use crate::size_class::{ClassInfo, SizeClass};
use crate::slab::Slab;
use crate::sync::{Ordering, Slot};

/// Slabs that one refill draws from: more would hand out blocks too scattered to be worth it.
const SLABS: usize = 4;

/// Blocks on their way into a magazine's slots: the first, which has the lowest address and is to be
/// handed out at once, in front, the others from the end down, so that they are popped ascending.
struct Filling<'a> {
    out: &'a [Slot],
    taken: usize,
}

impl Filling<'_> {
    fn room(&self) -> usize {
        self.out.len() - self.taken
    }

    #[inline]
    fn push(&mut self, block: NonNull<u8>) {
        let place = if self.taken == 0 {
            0
        } else {
            self.out.len() - self.taken
        };
        // ORDERING: read by the same thread, or by a purger that holds its gate.
        self.out[place].store(block.as_ptr(), Ordering::Relaxed);
        self.taken += 1;
    }

    /// Closes the gap that fewer blocks than slots leave behind the first.
    fn finish(self) -> usize {
        let gap = self.room();
        if gap > 0 && self.taken > 1 {
            let (behind, place) = (&self.out[1 + gap..], self.out[1..].as_ptr().cast_mut());
            // SAFETY: 1. both lie in one array, which only this thread writes and others read under its gate.
            unsafe { core::ptr::copy(behind.as_ptr(), place, behind.len()) };
        }
        self.taken
    }
}

/// Fills the front of `out` with free blocks of `class` and says how many: the block to hand out
/// first is the first, the one to hand out next the last, and so on down. Addresses ascend in that
/// order slab by slab. 0 is out of memory.
pub(crate) fn refill(index: usize, class: SizeClass, out: &[Slot]) -> usize {
    let info = class.info();
    let mut filling = Filling { out, taken: 0 };
    if let Some(own) = heap(index) {
        let state = own.class(class);
        state.lock().get().draw(info, &mut filling);
        if filling.taken == 0 {
            borrow(index, class, Need::Usual, &mut filling);
        }
        if filling.taken == 0 {
            new_slab(state, index, class, info, &mut filling);
        }
    }
    if filling.taken == 0 {
        borrow(index, class, Need::Dire, &mut filling);
    }
    filling.finish()
}

/// What another heap is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Blocks of which it has a slab's worth, if nobody is at work there.
    Usual,
    /// Any block: there is no memory for a slab.
    Dire,
}

/// Draws from another heap, so that what one thread frees is not lost on others. The blocks go back there when they
/// are freed.
fn borrow(index: usize, class: SizeClass, need: Need, filling: &mut Filling<'_>) {
    let info = class.info();
    let least = match need {
        Need::Usual => info.blocks as usize,
        Need::Dire => 1,
    };
    for (_, heap) in heaps().filter(|(other, _)| *other != index || need == Need::Dire) {
        let state = heap.class(class);
        // Read without the lock: a wrong guess costs a look.
        if state.free_about() < least {
            continue;
        }
        let guard = match need {
            Need::Usual => state.try_lock(),
            Need::Dire => Some(state.lock()),
        };
        if let Some(guard) = guard {
            guard.get().draw(info, filling);
        }
        if filling.taken > 0 {
            return;
        }
    }
}

fn new_slab(
    state: &ClassHeap,
    index: usize,
    class: SizeClass,
    info: &ClassInfo,
    filling: &mut Filling<'_>,
) {
    let purpose = match state.slabs_about() {
        0 => Purpose::First,
        _ => Purpose::More,
    };
    let Some((span, zeroed)) = arena::claim(info.units, purpose) else {
        return;
    };
    if config::mode().has(Hardening::ZERO) {
        Slab::prepare_fronts(&span, class, zeroed);
    }
    let guard = state.lock();
    let locked = guard.get();
    #[expect(clippy::cast_possible_truncation, reason = "below HEAPS")]
    let slab = Slab::create(span, class, index as u16, locked.held);
    locked.add(slab);
    locked.draw_from(slab, info, filling);
}

impl Locked<'_> {
    fn draw(self, info: &ClassInfo, filling: &mut Filling<'_>) {
        for _ in 0..SLABS {
            if filling.room() == 0 {
                break;
            }
            let Some(slab) = self.choose() else { break };
            self.draw_from(slab, info, filling);
        }
    }

    fn draw_from(self, slab: &'static Slab, info: &ClassInfo, filling: &mut Filling<'_>) {
        let count = slab.free().min(filling.room());
        if slab.free() == info.blocks as usize && config::mode().has(Hardening::RANDOM) {
            slab.recolour(random::next(), self.held);
        }
        // A thread's first blocks are taken one by one.
        let is_first = filling.out.len() == 1 && !config::mode().has(Hardening::RANDOM);
        self.take(slab, count, is_first, info, |block| filling.push(block));
        failpoints::at(failpoints::Point::Refill);
        let unused = self.file(slab, info);
        debug_assert!(unused.is_none(), "blocks were taken");
    }
}
