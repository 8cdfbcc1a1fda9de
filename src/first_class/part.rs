//! A part of a heap: what one thread allocates from. Each class has a current sub-slab, and a list of others that have
//! free blocks.
//!
//! A part lies in the heap's memory and belongs to one thread at a time, its *owner*. When the owner is gone, the next
//! thread that needs a part takes it over, as it is. Until then others take sub-slabs with free blocks from it, under
//! the lock of the heap.

use core::ptr::{self, NonNull};

use super::class::{CLASSES, Class};
use super::entry::{Entry, FIRST};
use super::memory::{self, Memory, Page};
use super::owner::Owner;
use super::returned::Returned;
use super::sub_slab::{Place, SubSlab};
use super::wanted::Refused;
use crate::arena;
use crate::error::Misuse;
use crate::os::failpoints;
use crate::sync::{GuardedPtr, GuardedU8, GuardedUsize, Slot};

/// One thread's. It lies in a [`Page`].
#[repr(C, align(64))]
pub(super) struct Part {
    pub(super) owner: Owner,
    /// The heap's next part. Set before the part is in the list, and never again.
    pub(super) next: GuardedPtr<Self>,
    memory: NonNull<Memory>,
    /// Pages with descriptors, this part's own among them, newest first.
    pages: GuardedPtr<Page>,
    /// Descriptors that are not used.
    pub(super) unused: GuardedPtr<SubSlab>,
    pub(super) returned: Returned<SubSlab>,
    /// Blocks, and their bytes, that the owner freed to other parts, and that came back to this one: what is neither
    /// used nor free.
    pub(super) freed: [GuardedUsize; 2],
    pub(super) collected: [GuardedUsize; 2],
    /// Sub-slabs begun since it was last looked for parts without an owner.
    begun: GuardedUsize,
    /// 1 in a child of a fork whose parent may have left sub-slabs with a link to a stack that is gone: what others free
    /// there is not pushed.
    pub(super) has_stuck: GuardedU8,
    /// Sub-slabs begun since these were last looked for.
    pub(super) begun_since: GuardedUsize,
    /// By class, sub-slabs with free blocks that are not the current one.
    listed: [GuardedPtr<SubSlab>; CLASSES],
    /// The slots of every magazine with room for one block: slot 1 of such a one is always null.
    pub(super) nil: [Slot; FIRST],
    pub(super) entries: [Entry; CLASSES],
}

// SAFETY: 1. `memory` blocks the auto impl: it leads to counts. Everything else is the owner's, atomic, or guarded as the
// fields say.
unsafe impl Sync for Part {}

impl Part {
    /// An empty part in `page`, which is to be the first of its pages.
    ///
    /// # Safety
    /// 1. Nobody else has the place, which is aligned, as long as a part, and stays as long as the result.
    pub(super) unsafe fn begin_at<'a>(
        place: NonNull<Self>,
        memory: NonNull<Memory>,
        page: NonNull<Page>,
    ) -> &'a Self {
        // In place: a copy of it would take longer than all the rest of an empty heap.
        // SAFETY: 1. our own. Zero is a part without sub-slabs, but for what follows.
        unsafe { place.write_bytes(0, 1) };
        // SAFETY: 1. our own: the field of what was just written.
        let field = unsafe { &raw mut (*place.as_ptr()).memory };
        // SAFETY: 1. as above.
        unsafe { field.write(memory) };
        // SAFETY: 1. our own.
        let part = unsafe { place.as_ref() };
        part.pages.set(Some(page));
        part
    }

    pub(super) fn memory(&self) -> &Memory {
        // SAFETY: 1. the heap's, which lives as long as its parts.
        unsafe { self.memory.as_ref() }
    }

    pub(super) fn entry_of(&self, slab: &SubSlab) -> &Entry {
        self.entry(slab.class())
    }

    pub(super) fn listed(&self, class: Class) -> &GuardedPtr<SubSlab> {
        &self.listed[class.index()]
    }

    /// A block that is at hand.
    #[inline(always)]
    pub(super) fn take(&self, class: Class) -> Option<NonNull<u8>> {
        self.entry(class).take(class)
    }

    /// Takes back a block, of whatever part; `false` if the magazine is full.
    #[inline(always)]
    pub(super) fn push(&self, class: Class, block: NonNull<u8>) -> bool {
        self.entry(class).push(block)
    }

    #[inline(always)]
    pub(super) fn entry(&self, class: Class) -> &Entry {
        // SAFETY: 1. the index of a class is below `CLASSES`.
        unsafe { self.entries.get_unchecked(class.index()) }
    }

    /// Blocks in use and their bytes, less those that the owner freed elsewhere: it may be less than none, and the sum
    /// of all parts is right.
    pub(super) fn used(&self) -> [usize; 2] {
        let mut all = [0_usize; 2];
        for (class, entry) in Class::all().zip(&self.entries) {
            // OVERFLOW: modulo 2^64, see above.
            all[0] = all[0].wrapping_add(entry.in_use());
            all[1] = all[1].wrapping_add(entry.in_use().wrapping_mul(class.size()));
        }
        for (sum, (freed, collected)) in all.iter_mut().zip(self.freed.iter().zip(&self.collected))
        {
            // OVERFLOW: modulo 2^64, see above.
            *sum = sum.wrapping_sub(freed.get()).wrapping_add(collected.get());
        }
        all
    }

    /// A block of a class whose current sub-slab has none at hand, as far as the part has any. By the owner.
    pub(super) fn refill(&self, class: Class) -> Option<NonNull<u8>> {
        self.collect();
        self.refill_from_own(class)
    }

    fn refill_from_own(&self, class: Class) -> Option<NonNull<u8>> {
        let entry = self.entry(class);
        if !entry.check_out() {
            let first = self.listed(class);
            let listed = first.get()?;
            // SAFETY: 1. in a list, so a descriptor of this heap.
            let listed = unsafe { listed.as_ref() };
            listed.unlink(first);
            failpoints::at(failpoints::Point::Part);
            self.replace(entry, listed);
            entry.check_out();
        }
        entry.take(class)
    }

    /// Has `slab`, which is in no list, for the current one of its class, in which nothing is free or at hand.
    fn replace(&self, entry: &Entry, slab: &SubSlab) {
        let current = entry.current();
        if current.is_used() {
            entry.add_used(current.used());
            current.set_place(Place::Full);
        }
        entry.take_used(slab.used());
        slab.set_place(Place::Current);
        entry.set_current(slab);
    }

    /// Has no current sub-slab any more.
    pub(super) fn retire(&self, entry: &Entry) {
        entry.check_in();
        let current = entry.current();
        if current.is_used() {
            entry.has_no_current();
            entry.add_used(current.used());
            current.set_place(Place::Full);
            if current.free_word().is_some() {
                self.note_free(entry, current);
            }
        }
    }

    /// A block of a fresh sub-slab.
    pub(super) fn refill_fresh(&self, class: Class) -> Result<NonNull<u8>, Refused> {
        let slab = self.begin(class)?;
        self.begun.set(self.begun.get() + 1);
        self.begun_since.set(self.begun_since.get() + 1);
        let entry = self.entry(class);
        self.replace(entry, slab);
        entry.check_out_fresh(slab);
        entry.take(class).ok_or(Refused::NoMemory)
    }

    /// Gives a class one sub-slab more.
    fn begin(&self, class: Class) -> Result<&SubSlab, Refused> {
        let entry = self.entry(class);
        let held = self.memory().held();
        let mut bytes = class.sub_slab(entry.count(), held);
        let slab = self.descriptor()?;
        let mut found = self.memory().carrier(bytes);
        while found.is_err() && bytes > class.least() {
            // Near the limit a shorter one may do.
            bytes /= 2;
            found = self.memory().carrier(bytes);
        }
        let base = found.inspect_err(|_| slab.link_unused(&self.unused))?;
        let place = ptr::from_ref(slab).cast_mut().cast();
        if !arena::set_tenant(base.addr().get(), bytes, place) {
            slab.link_unused(&self.unused);
            // SAFETY: 1. just charged. 2. nobody has any of it.
            unsafe { self.memory().give_carrier_back(base, bytes) };
            return Err(Refused::NoMemory);
        }
        slab.set_part(self.number());
        failpoints::at(failpoints::Point::Part);
        slab.begin(base, bytes, class);
        failpoints::at(failpoints::Point::Part);
        entry.count_one_more();
        Ok(slab)
    }

    /// A descriptor that is not used and in no list.
    fn descriptor(&self) -> Result<&SubSlab, Refused> {
        if let Some(unused) = self.unused.get() {
            // SAFETY: 1. in a list, so a descriptor of this heap.
            let unused = unsafe { unused.as_ref() };
            self.unused.set(unused.next());
            return Ok(unused);
        }
        let newest = self.pages.get().ok_or(Refused::NoMemory)?;
        // SAFETY: 1. one of the part's pages, which live as long as the heap's memory.
        if let Some(fresh) = unsafe { newest.as_ref() }.descriptor() {
            return Ok(fresh);
        }
        let page = self.memory().page()?;
        let page = Page::begin(page, self.pages.get(), 0);
        self.pages.set(Some(page));
        // SAFETY: 1. as above.
        unsafe { page.as_ref() }
            .descriptor()
            .ok_or(Refused::NoMemory)
    }

    /// Sees to a sub-slab that is not current and has one free block or more.
    pub(super) fn note_free(&self, entry: &Entry, slab: &SubSlab) {
        if slab.used() == 0 {
            self.end(entry, slab);
        } else if slab.place() == Place::Full {
            slab.set_place(Place::Listed);
            slab.link(self.listed(slab.class()));
        }
    }

    /// Gives the block of a sub-slab without used blocks, which is not current, back to the engine.
    fn end(&self, entry: &Entry, slab: &SubSlab) {
        if slab.place() == Place::Listed {
            slab.unlink(self.listed(slab.class()));
        }
        entry.count_one_less();
        failpoints::at(failpoints::Point::Part);
        self.memory().end(slab);
        failpoints::at(failpoints::Point::Part);
        slab.link_unused(&self.unused);
    }

    /// Takes in what other threads freed.
    pub(super) fn collect(&self) {
        if self.returned.is_empty() {
            return;
        }
        self.returned.take_all(|slab| self.collect_from(slab));
    }

    pub(super) fn collect_from(&self, slab: &SubSlab) {
        if !slab.is_used() {
            return;
        }
        if !self.owns(slab) {
            // It is another part's since it was pushed.
            if let Some(part) = part_of(slab) {
                part.returned.push(slab);
            }
            return;
        }
        let count = slab.collect();
        note([count, count * slab.size()], &self.collected);
        failpoints::at(failpoints::Point::Part);
        let entry = self.entry_of(slab);
        if count > 0 && slab.place() != Place::Current {
            entry.take_used(count);
            self.note_free(entry, slab);
        }
    }

    /// Whether a look at so many other parts is paid for by as many sub-slabs that were begun since the last.
    pub(super) fn is_time_to_look(&self, parts: usize) -> bool {
        let is_time = self.begun.get() >= parts;
        if is_time {
            self.begun.set(0);
        }
        is_time
    }

    pub(super) fn owns(&self, slab: &SubSlab) -> bool {
        slab.part() == self.number()
    }

    /// Every descriptor in the part's pages.
    pub(super) fn sub_slabs(&self) -> impl Iterator<Item = &SubSlab> {
        self.pages().flat_map(|page| {
            // SAFETY: 1. one of the part's pages, which live as long as the heap's memory.
            unsafe { page.as_ref() }.descriptors()
        })
    }

    /// What the part is known by.
    pub(super) fn number(&self) -> *mut u8 {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// The part's pages. Each is looked at before the next is asked for, and not after.
    pub(super) fn pages(&self) -> impl Iterator<Item = NonNull<Page>> + use<> {
        memory::pages(self.pages.get())
    }
}

/// The sub-slab at an address, of whatever heap, and how far inside that is.
pub(super) fn slab_at<'a>(address: usize) -> Option<(&'a SubSlab, usize)> {
    let slab = arena::tenant(address).cast::<SubSlab>();
    // SAFETY: 1. what a live block lies in is a descriptor of its heap. Of what is none, the tenant is null, or of a heap
    // that is there.
    let slab = unsafe { slab.as_ref() }?;
    Some((slab, slab.inside(address)?))
}

/// A block that something is wrong with.
pub(super) type Wrong = (Misuse, NonNull<u8>);

/// Whether what a sub-slab says of itself holds while nobody is in a call: in a child of a fork its owner may have
/// vanished in the midst of a step, and nobody has repaired that yet.
pub(super) fn is_settled(slab: &SubSlab) -> bool {
    part_of(slab).is_none_or(|part| part.owner.is_of_this_process())
}

/// The part of a sub-slab.
fn part_of(slab: &SubSlab) -> Option<&Part> {
    // SAFETY: 1. what `set_part` was told is a part of this heap, which lives as long as its sub-slabs.
    unsafe { slab.part().cast::<Part>().as_ref() }
}

/// The counts of the heap that a sub-slab belongs to.
pub(super) fn memory_of(slab: &SubSlab) -> Option<&Memory> {
    part_of(slab).map(Part::memory)
}

/// Gives a block back to the part that its sub-slab belongs to, by a thread that does not own it.
pub(super) fn give_back(slab: &SubSlab, distance: usize) -> Result<(), Misuse> {
    slab.give_back(distance)?;
    // Not before: see `returned`.
    if let Some(part) = part_of(slab) {
        part.returned.push(slab);
    }
    Ok(())
}

/// Adds blocks and bytes, which the caller alone writes.
pub(super) fn note(more: [usize; 2], sums: &[GuardedUsize; 2]) {
    for (sum, more) in sums.iter().zip(more) {
        // OVERFLOW: modulo 2^64, of which what lives is a small part.
        sum.set(sum.get().wrapping_add(more));
    }
}

/// Why nothing of a heap's begins at `block`.
#[cold]
pub(super) fn why_not(block: NonNull<u8>) -> Misuse {
    let address = block.addr().get();
    if arena::tenant(address).is_null() {
        Misuse::Foreign
    } else {
        Misuse::OtherHeap
    }
}
