//! A heap as a whole: what is in it, whether it is sound, and how all of it goes back.

use core::ptr::{self, NonNull};

use super::engine;
use super::memory::{PAGE, Page};
use super::part::{self, Part};
use super::shared::{BEFORE_PART, Shared};
use crate::error::Violation;
use crate::sync::Ordering;

impl Shared {
    /// Blocks in use, and their bytes.
    pub(super) fn live(&self) -> [usize; 2] {
        let guarded = self.lock();
        let mut all = guarded.direct.live();
        // ORDERING: counts.
        let freed = self
            .freed
            .each_ref()
            .map(|freed| freed.load(Ordering::Relaxed));
        for (sum, freed) in all.iter_mut().zip(freed) {
            *sum = sum.wrapping_sub(freed);
        }
        for part in self.parts(&guarded) {
            for (sum, used) in all.iter_mut().zip(part.used()) {
                // OVERFLOW: modulo 2^64; the sum of all is what lives.
                *sum = sum.wrapping_add(used);
            }
        }
        // While blocks are on their way from thread to thread, a sum may be less than none.
        all.map(|sum| if sum > isize::MAX as usize { 0 } else { sum })
    }

    /// Checks every sub-slab. By who has the heap alone.
    pub(super) fn verify(&self) -> Result<(), Violation> {
        let guarded = self.lock();
        let slabs = self.parts(&guarded).flat_map(Part::sub_slabs);
        for slab in slabs.filter(|slab| slab.is_used() && part::is_settled(slab)) {
            if let Some(invariant) = slab.fault() {
                let address = ptr::from_ref(slab).addr();
                return Err(Violation { invariant, address });
            }
        }
        Ok(())
    }

    /// Gives all back but the first page.
    ///
    /// # Safety
    /// 1. Nobody uses the heap's blocks any more, and no other thread is in a call.
    unsafe fn clear(&self) {
        let guarded = self.lock();
        // SAFETY: 1. our own.
        unsafe { guarded.direct.clear(self.memory.store) };
        for slab in self.parts(&guarded).flat_map(Part::sub_slabs) {
            self.memory.end_uncounted(slab);
        }
        self.parts(&guarded).for_each(Part::give_all_slots_back);
        let first = self.first_page();
        let mut next = guarded.parts.get();
        guarded.parts.set(None);
        while let Some(part) = next {
            // SAFETY: 1. it was in the list, and its page was not given back yet.
            let part = unsafe { part.as_ref() };
            next = part.next.get();
            for page in part.pages().filter(|page| *page != first) {
                // SAFETY: 1. as it was asked for. 2. nobody finds what lies there any more: a part lies in the last of
                // its own pages.
                unsafe { engine::give_back(page.cast(), PAGE, PAGE) };
            }
        }
    }

    /// Gives all back: the heap is as it was made. It has another number from here on.
    ///
    /// # Safety
    /// 1. Nobody uses the heap's blocks any more, and no other thread is in a call.
    pub(super) unsafe fn reset(&self) {
        // SAFETY: 1. our own.
        unsafe { self.clear() };
        self.parts.set(0);
        self.freed
            .iter()
            .for_each(|freed| freed.store(0, Ordering::Relaxed));
        self.memory.begin_anew(PAGE);
        self.add_part(self.first_page().cast(), BEFORE_PART);
    }

    fn first_page(&self) -> NonNull<Page> {
        let place = NonNull::from(self).cast::<u8>();
        // SAFETY: 1. it lies behind the head of its page.
        unsafe { place.sub(size_of::<Page>()) }.cast()
    }

    /// Gives all back, the heap itself too.
    ///
    /// # Safety
    /// 1. Nobody uses the heap or its blocks any more.
    pub(super) unsafe fn end(shared: NonNull<Self>) {
        // SAFETY: 1. it is there until the last line.
        let all = unsafe { shared.as_ref() };
        // SAFETY: 1. our own.
        unsafe { all.clear() };
        let page = all.first_page();
        // SAFETY: 1. as it was asked for. 2. nobody uses it.
        unsafe { engine::give_back(page.cast(), PAGE, PAGE) };
    }
}
