//! What a child of `fork` makes anew of the arena, from the unit tables.

use super::{ARENA, Chunk, Locked, NO_BIN};
use crate::demand::DEMAND;
use crate::units::UNIT;

/// Breaks the lock of a thread that is gone, and rebuilds lists, masks and counts if need be.
///
/// # Safety
/// 1. This is the only thread inside the allocator, and it does not hold the lock.
pub(crate) unsafe fn recover() {
    // SAFETY: 1. no other thread is inside, and this one does not hold the lock.
    let arena = unsafe { ARENA.break_lock() };
    if ARENA.broken.get() != 0 || arena.chunks().any(|chunk| arena.is_torn(chunk)) {
        ARENA.broken.set(1);
        arena.rebuild();
        ARENA.broken.set(0);
    }
}

impl Locked {
    /// Whether a thread that is gone was at work on a chunk without the lock.
    fn is_torn(&self, chunk: &Chunk) -> bool {
        chunk.listed(self).masks.purging() != 0 || chunk.has_claimed()
    }

    /// Makes anew all that follows from the unit tables, each from what was made before it.
    fn rebuild(&self) {
        // Nobody walks the lists meanwhile: they may be empty, but must not lead anywhere.
        self.oldest.set(None);
        self.newest.set(None);
        self.bins.iter().flatten().for_each(|list| list.set(None));
        let (mut count, mut dirty_units, mut used_units) = (0, 0, 0);
        for chunk in self.chunks() {
            let listed = chunk.listed(self);
            // The table is the truth, once spans that are nobody's are free.
            chunk.free_claimed(self);
            // By it the masks.
            listed.masks.rebuild(chunk.free_by_table());
            // By those the places in lists.
            let dirty = listed.masks.dirty();
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
