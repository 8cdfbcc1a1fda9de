//! What becomes of a part whose owner is gone, or vanished in a fork.

use core::ptr::NonNull;

use super::class::Class;
use super::entry::Entry;
use super::magazines::Leaving;
use super::part::{Part, Wrong, give_back, note, slab_at};
use super::sub_slab::{Place, SubSlab};
use crate::error::Misuse;
use crate::os::failpoints;
use crate::sync::Ordering;

impl Part {
    /// Gives back the sub-slabs that have no used block. By the owner, or under the heap's lock for a part without one.
    /// What is at hand is not any more.
    pub(super) fn tidy(
        &self,
        mut lost: impl FnMut(NonNull<u8>) -> Result<(), Misuse>,
    ) -> Result<(), Wrong> {
        self.collect();
        for (class, entry) in Class::all().zip(&self.entries) {
            self.flush(class, Leaving::All, &mut lost)?;
            if entry.current().is_used() {
                self.retire(entry);
            }
        }
        Ok(())
    }

    /// Lists its sub-slabs anew, which are among `all` of the heap, by what their bitmaps say: the last owner may have
    /// gone in the midst of a step. Under the heap's lock, while it has no owner.
    pub(super) fn rebuild<'a>(&self, all: impl Iterator<Item = &'a SubSlab>) {
        self.has_stuck.set(1);
        self.returned.take_all(|_| {});
        for (class, entry) in Class::all().zip(&self.entries) {
            let (slots, blocks) = entry.contents();
            // The newest may be its user's already. Others may be in a bitmap already, too.
            let older = slots.get(2..=blocks).unwrap_or_default();
            for block in older {
                // ORDERING: the owner is gone.
                let block = NonNull::new(block.load(Ordering::Relaxed));
                let found = block.and_then(|block| slab_at(block.addr().get()));
                if let Some((slab, distance)) = found.filter(|(slab, _)| slab.class() == class)
                    && give_back(slab, distance).is_ok()
                {
                    note([1, slab.size()], &self.freed);
                }
            }
            entry.check_in();
            entry.forget();
            self.listed(class).set(None);
        }
        self.unused.set(None);
        for slab in all.filter(|slab| self.owns(slab)) {
            if slab.is_used() {
                let count = slab.recount();
                note([count, count * slab.size()], &self.collected);
                self.adopt(slab);
            } else {
                slab.link_unused(&self.unused);
            }
        }
    }

    /// Looks for what others freed in sub-slabs that they could not push.
    pub(super) fn look_for_stuck<'a>(&self, all: impl Iterator<Item = &'a SubSlab>) {
        for slab in all.filter(|slab| self.owns(slab)) {
            self.collect_from(slab);
        }
    }

    /// Whether there may be any, and as many sub-slabs were begun as are looked at.
    pub(super) fn is_time_for_stuck(&self) -> bool {
        if self.has_stuck.get() == 0 {
            return false;
        }
        let sub_slabs: usize = self.entries.iter().map(Entry::count).sum();
        let is_time = self.begun_since.get() >= sub_slabs;
        if is_time {
            self.begun_since.set(0);
        }
        is_time
    }

    /// Takes in a sub-slab that is in no list.
    fn adopt(&self, slab: &SubSlab) {
        let entry = self.entry_of(slab);
        entry.count_one_more();
        entry.add_used(slab.used());
        slab.set_place(Place::Full);
        if slab.free_word().is_some() {
            self.note_free(entry, slab);
        }
    }

    /// Takes over the sub-slabs of `class` that have free blocks from a [tidied](Self::tidy) part without an owner.
    /// Under the heap's lock, by the owner of this one.
    pub(super) fn take_over(&self, other: &Self, class: Class) {
        let (entry, first) = (other.entry(class), other.listed(class));
        while let Some(listed) = first.get() {
            // SAFETY: 1. in a list, so a descriptor of this heap.
            let listed = unsafe { listed.as_ref() };
            listed.unlink(first);
            entry.take_used(listed.used());
            entry.count_one_less();
            failpoints::at(failpoints::Point::Part);
            listed.set_part(self.number());
            self.adopt(listed);
        }
    }
}
