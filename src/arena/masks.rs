//! Which units of a chunk are free, dirty, old, or being purged: four words, a bit for each unit.
//!
//! They change together, by the steps below and in their order: a fork may stop a thread between
//! any two stores, and its child must not take a unit that holds old bytes for a clean one.
#![forbid(unsafe_code)]

use crate::sync::GuardedU64;

/// The words. Whatever the moment, a unit that the table calls free and whose pages may hold old
/// bytes is dirty, or purging, or not free here: of that [`rebuild`](Self::rebuild) makes its dirty
/// units.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Masks {
    /// Units in no span, for anyone to claim.
    free: GuardedU64,
    /// Free units whose pages may hold old bytes.
    dirty: GuardedU64,
    /// Units taken out of `free` while their pages are purged.
    purging: GuardedU64,
    /// Dirty units that were dirty at the last look too, and have not been used since.
    old: GuardedU64,
}

/// How the dirty units were changed.
#[derive(Clone, Copy)]
#[must_use]
pub(super) struct Change {
    pub(super) before: u64,
    pub(super) after: u64,
}

impl Masks {
    pub(super) fn free(&self) -> u64 {
        self.free.get()
    }

    pub(super) fn dirty(&self) -> u64 {
        self.dirty.get()
    }

    pub(super) fn old(&self) -> u64 {
        self.old.get()
    }

    pub(super) fn purging(&self) -> u64 {
        self.purging.get()
    }

    /// Whether no unit belongs to a span or is being purged.
    pub(super) fn is_empty(&self) -> bool {
        self.free.get() == u64::MAX
    }

    fn set_dirty(&self, change: impl FnOnce(u64) -> u64) -> Change {
        let before = self.dirty.get();
        let after = change(before);
        if after != before {
            self.dirty.set(after);
            self.old.set(self.old.get() & after);
        }
        Change { before, after }
    }

    /// Those of a fresh chunk: all free and clean.
    pub(super) fn reset(&self) -> Change {
        self.free.set(u64::MAX);
        self.purging.set(0);
        self.set_dirty(|_| 0)
    }

    /// Units become a span.
    pub(super) fn claim(&self, units: u64) -> Change {
        self.free.set(self.free.get() & !units);
        self.set_dirty(|dirty| dirty & !units)
    }

    /// The units of a span become free.
    pub(super) fn release(&self, units: u64) -> Change {
        // Dirty before free: a child of a fork in between knows that old bytes are there.
        let change = self.set_dirty(|dirty| dirty | units);
        self.free.set(self.free.get() | units);
        change
    }

    /// The same for a chunk that the kernel takes whole or not at all: its units are dirty once all of them are free.
    pub(super) fn release_whole(&self, units: u64) -> Change {
        let free = self.free.get() | units;
        let change = self.set_dirty(|_| if free == u64::MAX { u64::MAX } else { 0 });
        self.free.set(free);
        change
    }

    /// The same for who claims some.
    pub(super) fn claim_whole(&self, units: u64) -> Change {
        self.free.set(self.free.get() & !units);
        self.set_dirty(|_| 0)
    }

    /// All free units become dirty.
    pub(super) fn soil(&self) -> Change {
        self.set_dirty(|dirty| dirty | self.free.get())
    }

    /// Dirty units were looked at: those that are still dirty at the next look are old then.
    pub(super) fn look(&self) {
        self.old.set(self.dirty.get());
    }

    /// What is `taken` is to be purged; of it some `units` are dirty.
    pub(super) fn begin_purge(&self, taken: u64, units: u64) -> Change {
        // First: a child of a fork from here on takes all of them for dirty. Another purger may be
        // at work on other units of the chunk.
        self.purging.set(self.purging.get() | taken);
        self.free.set(self.free.get() & !taken);
        self.set_dirty(|dirty| dirty & !units)
    }

    /// What [`begin_purge`](Self::begin_purge) took is free again, and of the dirty ones some are
    /// `clean`.
    pub(super) fn end_purge(&self, taken: u64, units: u64, clean: u64) -> Change {
        self.free.set(self.free.get() | taken);
        // An empty chunk is dirty, so that its addresses go, too: others emptied it meanwhile, or
        // the kernel refused to unmap it. All that was purged, not a unit of it: what was a span
        // stays together until it is claimed anew (`Span::set_fronts`, 2).
        let left = if self.is_empty() {
            units
        } else {
            units & !clean
        };
        let change = self.set_dirty(|dirty| dirty | left);
        // Last: until then a child of a fork takes all of them for dirty.
        self.purging.set(self.purging.get() & !taken);
        change
    }

    /// What [`begin_purge`](Self::begin_purge) took went with the chunk's addresses.
    pub(super) fn unmapped(&self) {
        self.purging.set(0);
    }

    /// In a forked child: follows the table, by which these units are `free`.
    pub(super) fn rebuild(&self, free: u64) -> Change {
        let before = self.dirty.get();
        // What was about to be taken or given back may hold old bytes.
        let after = free & (before | self.purging.get() | !self.free.get());
        // Dirty first, purging next, free last: a child of this child comes to no smaller sum.
        self.dirty.set(after);
        self.purging.set(0);
        self.free.set(free);
        self.old.set(0);
        Change { before, after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masks(free: u64, dirty: u64) -> Masks {
        Masks {
            free: GuardedU64::new(free),
            dirty: GuardedU64::new(dirty),
            purging: GuardedU64::new(0),
            old: GuardedU64::new(dirty),
        }
    }

    fn words(masks: &Masks) -> [u64; 4] {
        [masks.free(), masks.dirty(), masks.purging(), masks.old()]
    }

    #[test]
    fn a_purge_of_some_units_leaves_the_refused_ones_dirty() {
        let masks = masks(0b1111, 0b0111);
        let _ = masks.begin_purge(0b0011, 0b0011);
        assert_eq!(words(&masks), [0b1100, 0b0100, 0b0011, 0b0100]);
        let _ = masks.begin_purge(0b0100, 0b0100);
        assert_eq!(words(&masks), [0b1000, 0, 0b0111, 0]);
        let change = masks.end_purge(0b0011, 0b0011, 0b0001);
        assert_eq!((change.before, change.after), (0, 0b0010));
        assert_eq!(words(&masks), [0b1011, 0b0010, 0b0100, 0]);
    }

    #[test]
    fn a_chunk_emptied_during_a_purge_is_dirty() {
        let masks = masks(0b11, 0b11);
        let _ = masks.begin_purge(0b11, 0b11);
        let _ = masks.release(!0b11);
        assert!(!masks.is_empty());
        let _ = masks.end_purge(0b11, 0b11, 0b11);
        assert!(masks.is_empty());
        assert_eq!(masks.dirty(), u64::MAX);
    }

    #[test]
    fn in_a_child_what_was_on_its_way_is_dirty() {
        // The lowest is being purged, the next was about to be claimed or released.
        let masks = masks(0b1111, 0b1001);
        let _ = masks.begin_purge(0b0001, 0b0001);
        let _ = masks.claim(0b0010);
        for _ in 0..2 {
            let _ = masks.rebuild(0b1111);
            assert_eq!(words(&masks), [0b1111, 0b1011, 0, 0]);
        }
    }
}
