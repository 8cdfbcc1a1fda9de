//! Heaps: the slabs of each class, listed by how much of them is free.
//!
//! There are as many heaps as processors; threads are spread over them and a heap never belongs to
//! one. Each class of a heap has a lock of its own, taken once per batch. A slab
//! stays with the heap that made it; who frees a block of it takes that heap's lock.

mod flush;
mod purge;
pub(crate) mod recover;
mod refill;

pub(crate) use flush::{Wrong, class_at, die, flush, why_not};
pub(crate) use purge::{Idle, all_holes, old_holes, some_holes, spares};
pub(crate) use refill::refill;

use crate::arena::{self, meta};
use crate::error::Violation;
use crate::os::{self, Lock};
use crate::size_class::{CLASSES, ClassInfo, SizeClass};
use crate::slab::{Slab, SlabState};
use crate::sync::{GuardedU8, GuardedUsize, Link, same};

/// Most heaps; more processors share.
pub(crate) const HEAPS: usize = 32;
/// Lists of partly used slabs by free blocks, in eighths ([`crate::size_class::ClassInfo::eighths`]).
const BINS: usize = 8;

/// One class of one heap. A cache line or two of its own: threads contend for it.
#[repr(C, align(128))]
pub(crate) struct ClassHeap {
    pub(crate) lock: Lock<()>,
    /// Bit `i` is set when `bins[i]` holds a slab.
    mask: GuardedU8,
    /// Partly used slabs; newest first.
    bins: [Link<Slab>; BINS],
    /// A slab without used blocks, so that a class at a boundary does not thrash.
    spare: Link<Slab>,
    /// Free blocks of all slabs of the class.
    free: GuardedUsize,
    /// Slabs of the class.
    slabs: GuardedUsize,
    /// 1 while a child of `fork` knows that the lists need rebuilding.
    broken: GuardedU8,
}

/// The slabs that serve some of the threads. All zero is empty.
pub(crate) struct Heap {
    classes: [ClassHeap; CLASSES],
}

static TABLE: [Link<Heap>; HEAPS] = [const { Link::none() }; HEAPS];

/// Heaps in use: those whose index is below.
static COUNT: GuardedUsize = GuardedUsize::new(0);

/// Makes the heaps' number known, at initialisation.
pub(crate) fn initialise() {
    // Of threads that share a heap, as many as there are processors run at once.
    COUNT.set(os::cpus().clamp(1, HEAPS));
}

/// Heaps that threads are spread over.
pub(crate) fn count() -> usize {
    COUNT.get().max(1)
}

/// The heap of this index, made on first use. `None` without memory.
fn heap(index: usize) -> Option<&'static Heap> {
    if let Some(heap) = TABLE[index].get() {
        return Some(heap);
    }
    let table = meta::alloc(size_of::<Heap>() + align_of::<Heap>())?;
    let aligned = table.align_offset(align_of::<Heap>());
    // SAFETY: 1. `align_of` bytes more were allocated.
    let heap = unsafe { crate::ptr::advance::<Heap>(table, aligned) };
    // SAFETY: 1. zeroed metadata, never freed; all zero is an empty heap.
    let heap: &'static Heap = unsafe { heap.as_ref() };
    if !TABLE[index].set_first(heap) {
        return TABLE[index].get();
    }
    Some(heap)
}

/// The heaps that exist, with their indices.
fn heaps() -> impl Iterator<Item = (usize, &'static Heap)> {
    TABLE
        .iter()
        .enumerate()
        .filter_map(|(index, link)| Some((index, link.get()?)))
}

impl Heap {
    fn class(&self, class: SizeClass) -> &ClassHeap {
        &self.classes[class.index()]
    }
}

/// The class list that a slab belongs to.
fn home(slab: &Slab) -> &'static ClassHeap {
    class_of(slab.class(), slab.heap())
}

/// The slabs of `class` in the heap of this index, which owns a slab or did.
fn class_of(class: SizeClass, heap: usize) -> &'static ClassHeap {
    let heap = TABLE[heap].get().expect("a slab's heap exists");
    heap.class(class)
}

impl ClassHeap {
    fn link(&self, slab: &'static Slab, info: &ClassInfo) {
        let bin = info.eighths(slab.free());
        let first = self.bins[bin].get();
        slab.previous.set(None);
        slab.next.set(first);
        if let Some(first) = first {
            first.previous.set(Some(slab));
        }
        self.bins[bin].set(Some(slab));
        self.mask.set(self.mask.get() | 1 << bin);
        slab.set_bin(bin, info.reaches_eighths(bin + 1));
    }

    fn unlink(&self, slab: &'static Slab) {
        let bin = slab.bin();
        let (previous, next) = (slab.previous.get(), slab.next.get());
        previous
            .map_or(&self.bins[bin], |before| &before.next)
            .set(next);
        if let Some(after) = next {
            after.previous.set(previous);
        }
        if self.bins[bin].get().is_none() {
            self.mask.set(self.mask.get() & !(1 << bin));
        }
        slab.set_state(SlabState::Full);
    }

    /// Whether a slab is where its free count belongs: most blocks come and go without a change.
    #[inline]
    fn is_settled(slab: &Slab, info: &ClassInfo) -> bool {
        let free = slab.free();
        slab.state() == SlabState::Binned
            && free > 0
            && free < info.blocks as usize
            && info.eighths(free) == slab.bin()
    }

    /// Puts a slab where its free count belongs. A slab that nothing uses is returned unless the
    /// class keeps it as its spare; the caller gives its span back once the class is unlocked.
    #[must_use]
    #[inline]
    fn settle(&self, slab: &'static Slab, info: &ClassInfo) -> Option<&'static Slab> {
        if Self::is_settled(slab, info) {
            return None;
        }
        self.resettle(slab, info)
    }

    /// [`settle`](Self::settle), where something changes.
    #[inline(never)]
    fn resettle(&self, slab: &'static Slab, info: &ClassInfo) -> Option<&'static Slab> {
        let (free, blocks) = (slab.free(), info.blocks as usize);
        match slab.state() {
            // Its purger settles it.
            SlabState::Holes => return None,
            SlabState::Binned => self.unlink(slab),
            SlabState::Spare => self.spare.set(None),
            SlabState::Full => {}
        }
        slab.set_state(SlabState::Full);
        if free == blocks {
            if self.spare.get().is_some() {
                self.give_up(slab);
                return Some(slab);
            }
            slab.set_state(SlabState::Spare);
            self.spare.set(Some(slab));
        } else if free > 0 {
            self.link(slab, info);
        }
        None
    }

    /// Takes a slab that nothing uses and no list holds out of the class. Locked.
    fn give_up(&self, slab: &'static Slab) {
        slab.resign();
        self.slabs.set(self.slabs.get() - 1);
        self.free.set(self.free.get() - slab.free());
    }

    /// The slab to refill from: the fullest that is at least an eighth free, then nearly full ones,
    /// then the spare.
    fn choose(&self) -> Option<&'static Slab> {
        let mask = self.mask.get();
        let roomy = mask & !1;
        let bin = if roomy != 0 {
            roomy.trailing_zeros()
        } else {
            mask.trailing_zeros()
        };
        // Without any, the bin is past the last.
        match self.bins.get(bin as usize) {
            Some(list) => list.get(),
            None => self.spare.get(),
        }
    }
}

/// Bytes of blocks that left the slabs: live ones and those in magazines.
pub(crate) fn used_bytes() -> usize {
    let mut bytes = 0;
    for (_, heap) in heaps() {
        for class in SizeClass::all() {
            let state = heap.class(class);
            let _held = state.lock.lock();
            let blocks = state.slabs.get() * class.info().blocks as usize;
            bytes += (blocks - state.free.get()) * class.size();
        }
    }
    bytes
}

/// Checks every slab and list (ALGORITHM.md, I3 to I6).
pub(crate) fn verify() -> Result<(), Violation> {
    for (index, heap) in heaps() {
        for class in SizeClass::all() {
            verify_class(index, heap.class(class), class)?;
        }
    }
    Ok(())
}

fn verify_class(index: usize, state: &ClassHeap, class: SizeClass) -> Result<(), Violation> {
    if state.slabs.get() == 0 {
        return Ok(());
    }
    let _held = state.lock.lock();
    let (mut slabs, mut free) = (0, 0);
    for slab in arena::chunks().flat_map(Slab::of_chunk) {
        if !slab.is_of(class, index) {
            continue;
        }
        let address = slab.base().addr().get();
        let check = |holds: bool, invariant| {
            if holds {
                Ok(())
            } else {
                Err(Violation { invariant, address })
            }
        };
        slab.verify()?;
        let (left, blocks) = (slab.free(), class.info().blocks as usize);
        let bin = slab.bin();
        check(
            match slab.state() {
                SlabState::Full => left == 0,
                SlabState::Spare => left == blocks && same(state.spare.get(), slab),
                SlabState::Holes => true,
                SlabState::Binned => {
                    let before = slab
                        .previous
                        .get()
                        .map_or(&state.bins[bin], |slab| &slab.next);
                    left > 0
                        && left < blocks
                        && class.info().eighths(left) == bin
                        && same(before.get(), slab)
                        && state.mask.get() >> bin & 1 == 1
                }
            },
            "I5: a slab is in the list of its free count",
        )?;
        slabs += 1;
        free += left;
    }
    let is_named = |bin: usize| state.mask.get() >> bin & 1 == 1;
    if (0..BINS).any(|bin| is_named(bin) != state.bins[bin].get().is_some()) {
        let invariant = "I5: the mask names the lists that hold a slab";
        return Err(Violation {
            invariant,
            address: core::ptr::from_ref(state).addr(),
        });
    }
    if slabs != state.slabs.get() || free != state.free.get() {
        let invariant = "I6: a class counts its slabs and free blocks";
        return Err(Violation {
            invariant,
            address: core::ptr::from_ref(state).addr(),
        });
    }
    Ok(())
}
