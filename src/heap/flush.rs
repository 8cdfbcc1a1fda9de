//! From a magazine back to the bitmaps: each block to the slab it came from, whichever heap owns it.

use core::ptr;

use super::class::{ClassHeap, Locked};
use super::home;
use super::unused::Unused;
use crate::error::{Call, Misuse};
use crate::os::{self, failpoints};
use crate::size_class::{ClassInfo, SizeClass};
use crate::slab::{Slab, Stopped, address_in};
use crate::sync::Slot;

/// So many blocks before its turn, what a block needs is fetched: where each lies alone, it comes
/// from memory.
const AHEAD: usize = 8;
/// So many are located at once where each lies alone: as many fetches as a processor has under way.
const GROUP: usize = 16;

/// A wrong block among those that were to go back, to be [reported](Self::report) once no lock is held: a
/// handler of `SIGABRT` may allocate, start threads, and ask for statistics.
#[derive(Debug)]
#[must_use]
pub(crate) struct Wrong {
    misuse: Misuse,
    address: usize,
    class: SizeClass,
}

impl Wrong {
    pub(crate) fn new(misuse: Misuse, address: usize, class: SizeClass) -> Self {
        Self {
            misuse,
            address,
            class,
        }
    }

    /// Ends the process. No lock is held.
    #[cold]
    pub(crate) fn report(self) -> ! {
        die(self.misuse, Call::Free, self.address, self.class)
    }
}

/// Returns blocks of `class`, up to the first that is none, or is free already.
///
/// # Safety
/// 1. Nobody uses the blocks any more, and no magazine holds them.
pub(crate) unsafe fn flush(class: SizeClass, blocks: &[Slot]) -> Result<(), Wrong> {
    let info = class.info();
    // Until blocks of several heaps are seen.
    let mut in_groups = true;
    let mut rest = blocks;
    while let Some(first) = rest.first() {
        rest = locate(first, class)
            .and_then(|(slab, _)| {
                let state = home(slab);
                flush_to(state, slab.heap(), class, info, rest, &mut in_groups)
            })
            .map_err(|(misuse, address)| Wrong::new(misuse, address, class))?;
    }
    Ok(())
}

/// What is wrong with a block, and its address.
type Fault = (Misuse, usize);

/// The slab and index of the block in `slot`.
fn locate(slot: &Slot, class: SizeClass) -> Result<(&'static Slab, usize), Fault> {
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
    Slab::locate(address, class).map_or_else(|misuse| misuse, |_| Misuse::Freed)
}

#[cold]
pub(crate) fn die(misuse: Misuse, call: Call, address: usize, class: SizeClass) -> ! {
    let (fault, bytes, thread) = (misuse.by(call), class.size(), os::thread_id());
    os::die(format_args!(
        "{fault}: {address:#x}, class of {bytes} bytes, thread {thread}"
    ))
}

/// Returns the leading blocks that belong to one heap under one hold of its lock; the rest.
fn flush_to<'a>(
    state: &ClassHeap,
    heap: usize,
    class: SizeClass,
    info: &ClassInfo,
    blocks: &'a [Slot],
    in_groups: &mut bool,
) -> Result<&'a [Slot], Fault> {
    let mut unused = Unused::none();
    let guard = state.lock();
    let locked = guard.get();
    let mut rest = blocks;
    let flushed = loop {
        let Some(first) = rest.first() else {
            break Ok(rest);
        };
        if let Some(ahead) = rest.get(AHEAD) {
            // Has it fetched.
            let _ = Slab::place_of(address_in(ahead), info);
        }
        let (slab, block) = match locate(first, class) {
            Ok(found) => found,
            Err(fault) => break Err(fault),
        };
        if slab.heap() != heap {
            break Ok(rest);
        }
        let run = match locked.put_run(slab, block, rest, info) {
            Ok(run) => run,
            Err(stopped) => break Err((stopped.misuse, stopped.address)),
        };
        failpoints::at(failpoints::Point::Flush);
        if slab.has_outgrown_its_bin() {
            unused.add(locked.file(slab, info));
        }
        rest = &rest[run..];
        if run == 1 && *in_groups {
            match put_scattered(locked, heap, class, rest, &mut unused) {
                Ok(count) => {
                    rest = &rest[count..];
                    // Cut short: then most of a group would be located in vain.
                    *in_groups = count.is_multiple_of(GROUP);
                }
                Err(stopped) => break Err((stopped.misuse, stopped.address)),
            }
        }
    };
    drop(guard);
    unused.release();
    flushed
}

/// Puts back leading blocks while most lie in other slabs than those before them; how many. Locates
/// a group before it puts the first of them back, so that the processor fetches what they need at the same time.
/// A block of another heap, or a wrong one, cuts that short, and is left to the caller.
fn put_scattered(
    locked: Locked<'_>,
    heap: usize,
    class: SizeClass,
    blocks: &[Slot],
    unused: &mut Unused,
) -> Result<usize, Stopped> {
    let info = class.info();
    let mut count = 0;
    let (groups, _) = blocks.as_chunks::<GROUP>();
    for group in groups {
        let mut places = [None; GROUP];
        for (place, slot) in places.iter_mut().zip(group) {
            *place = Slab::place_of(address_in(slot), info);
        }
        let (mut neighbours, mut last) = (0, ptr::null());
        for place in &places {
            let Some(place) = place.filter(|place| place.slab.is_at(class, heap)) else {
                return Ok(count);
            };
            locked.put_one(place, info)?;
            failpoints::at(failpoints::Point::Flush);
            if place.slab.has_outgrown_its_bin() {
                unused.add(locked.file(place.slab, info));
            }
            count += 1;
            let slab = ptr::from_ref(place.slab);
            neighbours += usize::from(slab == last);
            last = slab;
        }
        if neighbours > GROUP / 2 {
            break;
        }
    }
    Ok(count)
}
