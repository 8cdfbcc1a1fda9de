//! From a magazine back to the bitmaps: each block to the slab it came from, whichever heap owns it.

use super::{ClassHeap, home};
use crate::arena;
use crate::error::Misuse;
use crate::os::{self, failpoints};
use crate::size_class::{Row, SizeClass};
use crate::slab::{Slab, address_in};
use crate::sync::Slot;

/// Returns blocks of `class`. A block that is none, or is free already, ends the process.
///
/// # Safety
/// 1. Nobody uses the blocks any more, and no magazine holds them.
pub(crate) unsafe fn flush(class: SizeClass, blocks: &[Slot]) {
    let row = class.row();
    let mut rest = blocks;
    while let Some(first) = rest.first() {
        let flushed = locate(first, class)
            .and_then(|(slab, _)| flush_to(home(slab), slab.heap(), class, row, rest));
        // Here, where the class is not locked any more.
        rest = flushed.unwrap_or_else(|(misuse, address)| die(misuse, address, class));
    }
}

/// What is wrong with a block, and its address.
type Wrong = (Misuse, usize);

/// The slab and index of the block in `slot`.
fn locate(slot: &Slot, class: SizeClass) -> Result<(&'static Slab, usize), Wrong> {
    let address = address_in(slot);
    Slab::locate(address, class).map_err(|misuse| (misuse, address))
}

/// The class of the slab that holds `address`, if one does.
pub(crate) fn class_at(address: usize) -> Option<SizeClass> {
    Slab::holding(address).map(Slab::class)
}

/// Why what is at `address` is no live block of `class`.
#[cold]
pub(crate) fn why_not(address: usize, class: SizeClass) -> Misuse {
    Slab::locate(address, class).map_or_else(|misuse| misuse, |_| Misuse::DoubleFree)
}

#[cold]
pub(crate) fn die(misuse: Misuse, address: usize, class: SizeClass) -> ! {
    let (bytes, thread) = (class.size(), os::thread_id());
    os::die(format_args!(
        "{misuse}: {address:#x}, class of {bytes} bytes, thread {thread}"
    ))
}

/// Returns the leading blocks that belong to one heap under one hold of its lock; the rest.
fn flush_to<'a>(
    state: &ClassHeap,
    heap: usize,
    class: SizeClass,
    row: &Row,
    blocks: &'a [Slot],
) -> Result<&'a [Slot], Wrong> {
    // Slabs that nothing uses any more, linked by `next`: their spans go back once it is unlocked.
    let mut unused: Option<&'static Slab> = None;
    let held = state.lock.lock();
    let mut rest = blocks;
    while let Some(first) = rest.first() {
        let (slab, block) = locate(first, class)?;
        if slab.heap() != heap {
            break;
        }
        let run = slab.put_run(block, rest, row)?;
        state.free.set(state.free.get() + run);
        failpoints::at(failpoints::Point::Flush);
        if slab.has_outgrown_its_bin()
            && let Some(empty) = state.settle(slab, row)
        {
            empty.next.set(unused);
            unused = Some(empty);
        }
        rest = &rest[run..];
    }
    drop(held);
    release(unused);
    Ok(rest)
}

/// Gives the spans of slabs that no list leads to back to their chunks.
pub(super) fn release(mut unused: Option<&'static Slab>) {
    while let Some(slab) = unused {
        unused = slab.next.get();
        // SAFETY: 1. `unused` is a list of slabs that their classes gave up.
        arena::release(unsafe { slab.leave() });
    }
}
