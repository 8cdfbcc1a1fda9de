//! Fresh chunks: a descriptor, and 4 MiB of committed memory cut from a reservation that grows by a
//! factor. The system calls are made without the arena's lock.

use core::ptr::NonNull;

use super::chunk::{Chunk, DESCRIPTOR};
use super::runs::Want;
use super::tags::Tags;
use super::{ARENA, NO_BIN, meta};
use crate::config;
use crate::hardening::Hardening;
use crate::os::{self, Access, failpoints};
use crate::sync::Ordering;
use crate::units::CHUNK;
use crate::valgrind;

/// A reservation is a quarter of the chunks that are there, at least as many as there are, up to the first of these
/// bounds, and at most the second: a process that needs little asks for little, where addresses are limited or locked.
const RESERVATION_MIN: usize = 8;
const RESERVATION_MAX: usize = 256;
/// Huge pages are asked for from the chunk on that makes one 2 MiB page a 32nd of the heap.
const HUGE_FROM: usize = 16;

/// A fresh chunk, in no list yet, made for spans as wanted.
pub(super) fn new_chunk(want: Want) -> Option<&'static Chunk> {
    let chunk = new_descriptor()?;
    let Some(base) = has_tags(chunk).then(new_addresses).flatten() else {
        let _held = ARENA.lock.lock();
        chunk.next_unused.set(ARENA.unused.get());
        ARENA.unused.set(Some(chunk));
        return None;
    };
    let dense = want.is_dense();
    if dense && config::huge_pages() && ARENA.chunks.get() >= HUGE_FROM {
        os::advise_huge(base, CHUNK);
    }
    chunk.dense.set(u8::from(dense));
    chunk.small_pages.set(0);
    chunk.set_base(base.as_ptr());
    Some(chunk)
}

/// A descriptor whose tables are empty.
fn new_descriptor() -> Option<&'static Chunk> {
    {
        let _held = ARENA.lock.lock();
        if let Some(chunk) = ARENA.unused.get() {
            ARENA.unused.set(chunk.next_unused.get());
            return Some(chunk);
        }
    }
    let table = meta::alloc(DESCRIPTOR)?;
    // SAFETY: 1. zeroed metadata of a descriptor's size, aligned to a line, never freed; all zero
    // is a descriptor without a chunk.
    let chunk: &'static Chunk = unsafe { table.cast::<Chunk>().as_ref() };
    chunk.bin.set(NO_BIN);
    let _held = ARENA.lock.lock();
    chunk.next_of_all.set(ARENA.all.get());
    ARENA.all.set(Some(chunk));
    Some(chunk)
}

/// Whether the descriptor has the tags that the mode asks for, made on first use.
fn has_tags(chunk: &Chunk) -> bool {
    if !config::mode().has(Hardening::CHECKS) || chunk.tags.get().is_some() {
        return true;
    }
    let Some(table) = meta::alloc_pages(size_of::<Tags>()) else {
        return false;
    };
    // SAFETY: 1. zeroed metadata of this size, never freed; all zero is no live block.
    chunk
        .tags
        .set(Some(unsafe { table.cast::<Tags>().as_ref() }));
    true
}

/// 4 MiB of committed zero memory, with a leaf for it in the owner map.
fn new_addresses() -> Option<NonNull<u8>> {
    let base = loop {
        if let Some(base) = cut() {
            break base;
        }
        // Others may have used up what there is by the next look.
        reserve()?;
    };
    if leaf_for(base) {
        // SAFETY: 1. cut from our own reservation, for nobody else.
        if unsafe { os::commit(base, CHUNK) } {
            valgrind::fence_off(base, CHUNK);
            return Some(base);
        }
    }
    // SAFETY: 1. as above, never used. What stays reserved on failure costs no memory.
    let _ = unsafe { os::unmap(base, CHUNK) };
    None
}

/// The next chunk's worth of the reservation.
fn cut() -> Option<NonNull<u8>> {
    let _held = ARENA.lock.lock();
    let left = ARENA.fresh_left.get().checked_sub(CHUNK)?;
    // ORDERING: guarded by `ARENA.lock`.
    let base = NonNull::new(ARENA.fresh.load(Ordering::Relaxed))?;
    ARENA.fresh_left.set(left);
    // SAFETY: 1. `fresh_left` counted these bytes.
    let rest = unsafe { crate::ptr::advance::<u8>(base, CHUNK) };
    ARENA.fresh.store(rest.as_ptr(), Ordering::Relaxed);
    Some(base)
}

/// Reserves address space for more chunks: less where the process may not have so much.
fn reserve() -> Option<()> {
    // Read without the lock: about so many will do.
    let chunks = ARENA.chunks.get();
    let least = chunks.clamp(1, RESERVATION_MIN);
    let mut length = (chunks / 4).clamp(least, RESERVATION_MAX) * CHUNK;
    let base = loop {
        if let Some(base) = os::map(length, CHUNK, Access::Reserved) {
            break base;
        }
        length = (length / 2 / CHUNK * CHUNK).max(CHUNK);
        if length == CHUNK {
            break os::map(CHUNK, CHUNK, Access::Reserved)?;
        }
    };
    failpoints::at(failpoints::Point::Reserve);
    if !offer(base, length) {
        // Another thread reserved meanwhile, and there is room in its reservation.
        // SAFETY: 1. mapped above, never used.
        let _ = unsafe { os::unmap(base, length) };
        failpoints::at(failpoints::Point::Reserve);
    }
    Some(())
}

/// Makes a reservation the one that chunks are cut from, unless there is one with room.
fn offer(base: NonNull<u8>, length: usize) -> bool {
    let _held = ARENA.lock.lock();
    let is_used_up = ARENA.fresh_left.get() < CHUNK;
    if is_used_up {
        // ORDERING: guarded by `ARENA.lock`.
        ARENA.fresh.store(base.as_ptr(), Ordering::Relaxed);
        ARENA.fresh_left.set(length);
    }
    is_used_up
}

/// Gives back what no chunk was cut from yet. Where the kernel refuses, it waits on. Not for want of memory: at the limit
/// of mappings chunks can still be had from it.
pub(crate) fn unreserve() {
    let (base, length) = {
        let _held = ARENA.lock.lock();
        // ORDERING: guarded by `ARENA.lock`.
        let base = ARENA.fresh.load(Ordering::Relaxed);
        let length = ARENA.fresh_left.get();
        ARENA.fresh_left.set(0);
        (base, length)
    };
    if length > 0
        && let Some(base) = NonNull::new(base)
        // SAFETY: 1. the rest of our own reservation, which nobody can be given any more.
        && !unsafe { os::unmap(base, length) }
    {
        // Lost if somebody reserved meanwhile: addresses without memory.
        let _ = offer(base, length);
    }
}

fn leaf_for(base: NonNull<u8>) -> bool {
    let address = base.addr().get();
    if ARENA.owners.has_leaf(address) {
        return true;
    }
    let Some(leaf) = ARENA.owners.prepare(address) else {
        return false;
    };
    let _held = ARENA.lock.lock();
    if !ARENA.owners.has_leaf(address) {
        ARENA.owners.add_leaf(address, leaf);
    }
    true
}
