//! The slabs of a class whose free pages may hold old bytes, by the time of the last look.
//!
//! A slab that is drawn from or flushed to does not move: its next look finds it touched, and
//! sends it to the end. So the list costs refills and flushes nothing while a slab is in it.
#![forbid(unsafe_code)]

use crate::slab::{ClassLock, Slab};
use crate::sync::Link;

/// Slabs of one class, the one not looked at for longest first. All zero is empty.
pub(super) struct ByAge {
    oldest: Link<Slab>,
    newest: Link<Slab>,
}

impl ByAge {
    /// The slab not looked at for longest. Without the lock, whether there is one is a guess.
    pub(super) fn oldest(&self) -> Option<&'static Slab> {
        self.oldest.get()
    }

    /// Adds a slab that is not in the list, at its end.
    pub(super) fn add(&self, slab: &'static Slab, locked: &ClassLock) {
        let last = self.newest.get();
        slab.by_age.previous.set(last);
        slab.by_age.next.set(None);
        last.map_or(&self.oldest, |last| &last.by_age.next)
            .set(Some(slab));
        self.newest.set(Some(slab));
        slab.note_by_age(true, locked);
    }

    /// Removes a slab, if it is in the list.
    pub(super) fn remove(&self, slab: &'static Slab, locked: &ClassLock) {
        if !slab.is_by_age() {
            return;
        }
        let (previous, next) = (slab.by_age.previous.get(), slab.by_age.next.get());
        previous
            .map_or(&self.oldest, |before| &before.by_age.next)
            .set(next);
        next.map_or(&self.newest, |after| &after.by_age.previous)
            .set(previous);
        slab.note_by_age(false, locked);
    }

    /// In a forked child: forgets all; who makes the list anew sees to it that no slab believes
    /// itself in it.
    pub(super) fn forget(&self) {
        self.oldest.set(None);
        self.newest.set(None);
    }

    /// The slabs in the list.
    pub(super) fn count(&self, _: &ClassLock) -> usize {
        core::iter::successors(self.oldest(), |slab| slab.by_age.next.get()).count()
    }
}
