//! Blocks on their way back: the leading ones of a list that lie in one slab.
#![forbid(unsafe_code)]

use core::ptr;

use super::age::TOUCHED;
use super::bitmap::WORD;
use super::{ClassLock, Slab};
use crate::arena::{self, UnitKind};
use crate::error::Misuse;
use crate::os;
use crate::size_class::ClassInfo;
use crate::sync::{Ordering, Slot};
use crate::units::{CHUNK, UNIT_SHIFT, UnitIndex};

/// A wrong block, behind so many that were put back.
pub(crate) struct Stopped {
    pub(crate) run: usize,
    pub(crate) misuse: Misuse,
    pub(crate) address: usize,
}

/// Where a block lies: what [`Slab::place_of`] tells.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) slab: &'static Slab,
    pub(crate) block: usize,
}

impl Slab {
    /// Puts back the block in the first slot, whose [number](Self::locate) is `first`, and those of
    /// the slots behind it that lie in the slab, too, up to the first that does not; how many they
    /// are, or what is wrong with one of them. Both ends [finish](Self::finish) the run. One end for
    /// both would cost a flush of few blocks a per cent.
    #[inline]
    pub(crate) fn put_run(
        &self,
        first: usize,
        slots: &[Slot],
        info: &ClassInfo,
        _: &ClassLock,
    ) -> Result<usize, Stopped> {
        let (base, bytes) = (self.start(), info.units.bytes());
        let (mut block, mut run) = (first, 0);
        loop {
            let count = if leads_a_word(block, &slots[run..], info) {
                self.bitmap.put_word(block).map(|()| WORD)
            } else {
                self.bitmap.put(block).map(|()| 1)
            };
            match count {
                Ok(count) => run += count,
                Err(block) => {
                    let address = base + block * info.size as usize;
                    return Err(self.stop(run, Misuse::Freed, address));
                }
            }
            let Some(slot) = slots.get(run) else { break };
            let address = address_in(slot);
            // OVERFLOW: wraps to a large number below the base, which ends the run.
            let offset = address.wrapping_sub(base);
            if offset >= bytes {
                break;
            }
            let (next, inside) = info.locate(offset);
            if inside != 0 || next >= info.blocks as usize {
                return Err(self.stop(run, Misuse::Interior, address));
            }
            block = next;
        }
        self.finish(run);
        Ok(run)
    }

    /// Where the block at `address` lies, by what is known before anything of its slab is read, and has the
    /// processor fetch that. `None` for what is no block of such a class.
    #[inline]
    pub(crate) fn place_of(address: usize, info: &ClassInfo) -> Option<Place> {
        let chunk = arena::owner(address)?;
        let unit = UnitIndex::of(address);
        if chunk.kind(unit) != UnitKind::Slab {
            return None;
        }
        let head = chunk.head(unit);
        let slab = Self::at(chunk, head);
        os::prefetch(ptr::from_ref(slab).cast());
        // OVERFLOW: a head lies at or before its units, in the same chunk.
        let offset = address.wrapping_sub(head.get() << UNIT_SHIFT) % CHUNK;
        let (block, inside) = info.locate(offset);
        slab.bitmap.prefetch(block);
        (inside == 0 && block < info.blocks as usize).then_some(Place { slab, block })
    }

    /// Puts back one block.
    #[inline]
    pub(crate) fn put_one(
        &self,
        block: usize,
        info: &ClassInfo,
        _: &ClassLock,
    ) -> Result<(), Stopped> {
        if self.bitmap.put(block).is_err() {
            let address = self.start() + block * info.size as usize;
            return Err(self.stop(0, Misuse::Freed, address));
        }
        self.finish(1);
        Ok(())
    }

    /// Ends a run: counts its blocks, whose bits are set.
    #[inline]
    fn finish(&self, run: usize) {
        self.touched.set(TOUCHED);
        #[expect(clippy::cast_possible_truncation, reason = "at most the slab's blocks")]
        self.free.set(self.free.get() + run as u16);
    }

    /// Ends a run in front of a wrong block: what was put back is, so that the slab is whole.
    #[cold]
    fn stop(&self, run: usize, misuse: Misuse, address: usize) -> Stopped {
        self.finish(run);
        Stopped {
            run,
            misuse,
            address,
        }
    }
}

/// The address in a slot of a magazine.
#[inline]
pub(crate) fn address_in(slot: &Slot) -> usize {
    // ORDERING: written by this thread, or before it was handed this slot.
    slot.load(Ordering::Relaxed).addr()
}

/// Whether the leading slots hold all blocks of one word of the bitmap, upwards or downwards from the first, which is
/// number `block`: so do those of a program that frees in the order of its allocations.
#[inline]
fn leads_a_word(block: usize, slots: &[Slot], info: &ClassInfo) -> bool {
    // The first or the last of a word, which few are by chance.
    (block + 1) % WORD <= 1 && is_a_word(block, slots, info)
}

#[inline(never)]
fn is_a_word(block: usize, slots: &[Slot], info: &ClassInfo) -> bool {
    let Some(slots) = slots.get(..WORD) else {
        return false;
    };
    let (size, first) = (info.size as usize, address_in(&slots[0]));
    let is_up = block.is_multiple_of(WORD);
    if is_up && block + WORD > usize::from(info.blocks) {
        return false;
    }
    // OVERFLOW: wraps below address 0, where no block is.
    let step = if is_up { size } else { size.wrapping_neg() };
    let is_in_place = |(slot, place): (&Slot, usize)| {
        address_in(slot) == first.wrapping_add(place.wrapping_mul(step))
    };
    slots.iter().zip(0..WORD).rev().all(is_in_place)
}
