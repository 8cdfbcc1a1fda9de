//! What a child of `fork` makes anew of the arena, from the unit tables.

use super::{ARENA, Chunk, NO_BIN, append_by_age, chunks, rebin};

/// Breaks the lock of a thread that is gone, and rebuilds lists, masks and counts if need be.
///
/// # Safety
/// 1. This is the only thread inside the allocator, and it does not hold the lock.
pub(crate) unsafe fn recover() {
    if ARENA.lock.is_locked() {
        ARENA.broken.set(1);
    }
    ARENA.lock.break_inherited();
    let is_torn = |chunk: &Chunk| chunk.purging.get() != 0 || chunk.has_claimed();
    if ARENA.broken.get() != 0 || chunks().any(is_torn) {
        ARENA.broken.set(1);
        rebuild();
        ARENA.broken.set(0);
    }
}

fn rebuild() {
    ARENA.oldest.set(None);
    ARENA.newest.set(None);
    ARENA.bins.iter().flatten().for_each(|list| list.set(None));
    let (mut count, mut dirty_units) = (0, 0);
    for chunk in chunks() {
        chunk.free_claimed();
        let free = chunk.free_by_table();
        // What was about to be taken or given back may hold old bytes.
        let dirty = free & (chunk.dirty.get() | chunk.purging.get() | !chunk.free.get());
        chunk.purging.set(0);
        chunk.free.set(free);
        chunk.dirty.set(dirty);
        chunk.old.set(0);
        if dirty != 0 {
            append_by_age(chunk);
        }
        chunk.bin.set(NO_BIN);
        rebin(chunk);
        if let Some(base) = chunk.base() {
            ARENA.owners.set(base.addr().get(), Some(chunk));
        }
        count += 1;
        dirty_units += dirty.count_ones() as usize;
    }
    ARENA.chunks.set(count);
    ARENA.dirty_units.set(dirty_units);
}
