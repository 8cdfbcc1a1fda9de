//! Giving back what a heap has free: sub-slabs to the engine, and free pages inside others to the kernel.

use super::class::Class;
use super::part::Part;
use super::shared::{Guarded, Shared};
use super::sub_slab::SubSlab;
use crate::arena;
use crate::os::{self, PageLen};

impl SubSlab {
    /// Purges the pages in which no block is used; how many bytes. By the owner, who has none of them at hand.
    fn purge(&self) -> usize {
        if !self.is_to_be_purged() {
            return 0;
        }
        let page = os::page_size();
        let is_free = |number: &usize| {
            let (from, to) = (number * page, (number + 1) * page - 1);
            (from / self.size()..=to / self.size()).all(|block| self.is_free(block))
        };
        let pages = self.bytes() / page;
        let (mut next, mut bytes) = (0, 0);
        while let Some(first) = (next..pages).find(is_free) {
            next = (first..pages)
                .find(|number| !is_free(number))
                .unwrap_or(pages);
            bytes += self.purge_run(first * page, PageLen::pages(next - first));
        }
        bytes
    }

    fn purge_run(&self, distance: usize, length: PageLen) -> usize {
        let Some(base) = self.base() else { return 0 };
        match arena::owner(base.addr().get()) {
            // The kernel takes back no part of such a page, and says that it did.
            Some(chunk) if chunk.is_gigantic() => return 0,
            Some(chunk) => chunk.stay_small(),
            None => {}
        }
        // SAFETY: 1. inside the sub-slab.
        let first = unsafe { crate::ptr::advance::<u8>(base, distance) };
        // SAFETY: 1. whole pages of our own, of which no block is used, and nobody else gives one out.
        if unsafe { os::purge(first, length) } {
            length.bytes()
        } else {
            self.is_not_purged();
            0
        }
    }
}

impl Part {
    /// Purges the free pages of a [tidied](Self::tidy) part. By the owner, or under the heap's lock for a part without one.
    fn purge(&self) -> usize {
        let listed = |class| {
            let mut next = self.listed(class).get();
            core::iter::from_fn(move || {
                // SAFETY: 1. in a list, so a descriptor of this heap.
                let slab: &SubSlab = unsafe { next?.as_ref() };
                next = slab.next();
                Some(slab)
            })
        };
        Class::all().flat_map(listed).map(SubSlab::purge).sum()
    }
}

impl Shared {
    /// Gives back what is free in the thread's part and in those without an owner; how many bytes.
    pub(super) fn purge(&self, part: &Part) -> usize {
        let before = self.memory.held();
        self.tidy(part, None);
        let ended = before.saturating_sub(self.memory.held());
        let guarded = self.lock();
        ended + part.purge() + self.purge_ownerless(&guarded)
    }

    fn purge_ownerless(&self, guarded: &Guarded) -> usize {
        let parts = self.parts(guarded).filter(|part| part.owner.is_gone());
        // One whose owner vanished in a fork may be in the midst of a step.
        let whole = parts.filter(|part| !part.owner.has_vanished());
        whole.map(Part::purge).sum()
    }
}
