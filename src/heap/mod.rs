//! Heaps: the slabs of each class, listed by how much of them is free.
//!
//! There are as many heaps as processors; threads are spread over them and a heap never belongs to
//! one. Each class of a heap has a lock of its own, taken once per batch. A slab
//! stays with the heap that made it; who frees a block of it takes that heap's lock.

mod by_age;
mod class;
mod flush;
mod purge;
pub(crate) mod recover;
mod refill;
mod unused;

pub(crate) use flush::{Wrong, class_at, die, flush, why_not};
pub(crate) use purge::{MOST_BLOCKS, old_holes, purge_holes, slabs, some_holes, spares};
pub(crate) use refill::refill;

use self::class::ClassHeap;
use crate::arena::meta;
use crate::error::Violation;
use crate::os;
use crate::size_class::{CLASSES, SizeClass};
use crate::slab::Slab;
use crate::sync::{GuardedUsize, Link};

/// Most heaps, as many as tables have room for; where there are more processors, some share.
pub(crate) const HEAPS: usize = 512;
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
    TABLE[..count()]
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

/// Bytes of blocks that left the slabs: live ones and those in magazines.
pub(crate) fn used_bytes() -> usize {
    let mut bytes = 0;
    for (_, heap) in heaps() {
        for class in SizeClass::all() {
            bytes += heap.class(class).lock().get().used(class.info()) * class.size();
        }
    }
    bytes
}

/// Bytes of free blocks in slabs, read without the locks: a guess.
pub(crate) fn free_bytes_about() -> usize {
    let of = |heap: &Heap| {
        let classes = SizeClass::all();
        classes
            .map(|class| heap.class(class).free_about() * class.size())
            .sum::<usize>()
    };
    heaps().map(|(_, heap)| of(heap)).sum()
}

/// Checks every slab and list (docs/states.md, I3 to I6).
pub(crate) fn verify() -> Result<(), Violation> {
    for (index, heap) in heaps() {
        for class in SizeClass::all() {
            heap.class(class).lock().get().verify(class, index)?;
        }
    }
    Ok(())
}
