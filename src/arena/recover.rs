//! What a child of `fork` makes anew of the arena, from the unit tables.

use super::masks::Change;
use super::{ARENA, Chunk, Locked, NO_BIN, meta, owner};
use crate::demand::DEMAND;
use crate::os::failpoints;
use crate::sync::same;
use crate::units::UNIT;

/// In a forked child: spans can be claimed and released.
#[must_use]
pub(crate) struct Whole(());

/// Breaks the lock of a thread that is gone, and rebuilds lists, masks and counts if need be: of all
/// chunks if it had the lock, else of those that threads were at work on without it.
///
/// # Safety
/// 1. This is the only thread inside the allocator, and it does not hold the lock.
pub(crate) unsafe fn recover(_: meta::Whole) -> Whole {
    // SAFETY: 1. no other thread is inside, and this one does not hold the lock.
    let arena = unsafe { ARENA.break_lock() };
    let under_way = &ARENA.under_way;
    let is_all = ARENA.broken.get() != 0 || under_way.is_in_part_unknown();
    // A child of this child that is forked before the end makes all of it anew.
    ARENA.broken.set(1);
    if is_all {
        arena.rebuild();
    } else {
        under_way.purged(&arena).for_each(|chunk| arena.mend(chunk));
        under_way.chunks().for_each(|chunk| arena.mend(chunk));
    }
    under_way.forget(&arena);
    ARENA.broken.set(0);
    Whole(())
}

impl Locked {
    /// Follows the unit table of a chunk, in which spans that are nobody's are free from here on.
    fn follow_table(&self, chunk: &'static Chunk) -> Change {
        failpoints::count_step();
        chunk.free_claimed(self);
        chunk.listed(self).masks.rebuild(chunk.free_by_table())
    }

    /// Makes a chunk whole that threads were at work on without the lock: lists and counts are.
    fn mend(&self, chunk: &'static Chunk) {
        // One that lost its base is lost, as its addresses may be gone.
        let Some(base) = chunk.base() else { return };
        let masks = &chunk.listed(self).masks;
        let units = |free: u64| free.count_zeros() as usize;
        let before = units(masks.free() | masks.purging());
        self.change(chunk, |_| self.follow_table(chunk));
        let used = self.used_units.get() - before + units(masks.free());
        self.used_units.set(used);
        DEMAND.note_fewer_spans(used * UNIT);
        if !same(owner(base.addr().get()), chunk) {
            // It was about to leave.
            self.enter(chunk);
        }
    }

    /// Makes anew all that follows from the unit tables, each from what was made before it.
    fn rebuild(&self) {
        // Nobody walks the lists meanwhile: they may be empty, but must not lead anywhere.
        self.oldest.set(None);
        self.newest.set(None);
        let pools = self.pools().map(|pool| pool.bins(self));
        for list in self.bins.iter().chain(pools).flatten() {
            list.set(None);
        }
        let (mut count, mut dirty_units, mut used_units) = (0, 0, 0);
        for chunk in self.chunks() {
            let listed = chunk.listed(self);
            // The table is the truth, by it the masks, by those the places in lists.
            let dirty = self.follow_table(chunk).after;
            if dirty != 0 {
                self.append_by_age(chunk);
            }
            listed.bin.set(NO_BIN);
            self.rebin(chunk);
            // Last the chunk is known by its address, with all of it as it should be.
            if let Some(base) = chunk.base() {
                ARENA.owners.set(self, base.addr().get(), Some(chunk));
            }
            count += 1;
            dirty_units += dirty.count_ones() as usize;
            used_units += listed.masks.free().count_zeros() as usize;
        }
        ARENA.counts.set_chunks(self, count);
        self.dirty_units.set(dirty_units);
        self.used_units.set(used_units);
        DEMAND.note_fewer_spans(used_units * UNIT);
        DEMAND.note_more_dirty(self.dirty_bytes());
    }
}
