//! A part's magazines: how large they are, and how blocks leave them for the bitmaps.

use core::ptr::{self, NonNull};

use super::class::Class;
use super::entry::{FIRST, MORE};
use super::part::{Part, Wrong, give_back, memory_of, note, slab_at};
use super::sub_slab::{Place, SubSlab};
use crate::error::Misuse;
use crate::os::failpoints;
use crate::sync::{Ordering, Slot};
use crate::units::LINE;

/// A magazine holds at most one of so many parts of what the heap holds.
const SHARE: usize = 32;

/// Which blocks leave a magazine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    /// The older half of all but the newest, or that if it is the only one.
    Half,
    All,
}

impl Part {
    /// Enlarges the magazine of a class as far as what the heap holds allows; whether it did.
    pub(super) fn enlarge(&self, class: Class) -> bool {
        let entry = self.entry(class);
        let (slots, blocks) = entry.contents();
        if slots.is_empty() {
            // SAFETY: 1. it stays as long as the part, which alone uses it.
            let nil: &'static [Slot; FIRST] = unsafe { NonNull::from(&self.nil).as_ref() };
            entry.install(nil, 0, ptr::null_mut());
            return true;
        }
        let most = self.memory().held() / SHARE / class.size();
        let Some(more) = MORE
            .into_iter()
            .find(|more| *more > slots.len() && *more - 1 <= most)
        else {
            return false;
        };
        let Ok(array) = self.memory().charged(more * size_of::<Slot>(), LINE) else {
            return false;
        };
        let array = array.cast::<Slot>();
        // SAFETY: 1. so many bytes, which nobody else has.
        unsafe { array.write_bytes(0, more) };
        // SAFETY: 1. as above. It stays as long as the magazine has it, which alone uses it.
        let larger: &'static [Slot] = unsafe { core::slice::from_raw_parts(array.as_ptr(), more) };
        for (to, from) in larger.iter().zip(slots).take(blocks + 1) {
            // ORDERING: the owner's own.
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        entry.install(larger, blocks, entry.newest());
        self.give_slots_back(slots);
        true
    }

    /// Takes blocks out of a magazine. What is no block of a sub-slab of this heap goes to `lost`, and what is wrong ends
    /// it.
    pub(super) fn flush(
        &self,
        class: Class,
        which: Leaving,
        mut lost: impl FnMut(NonNull<u8>) -> Result<(), Misuse>,
    ) -> Result<(), Wrong> {
        let entry = self.entry(class);
        let (slots, blocks) = entry.contents();
        let older = slots.get(2..=blocks).unwrap_or_default();
        let leaving = match which {
            Leaving::Half => older.len().div_ceil(2),
            Leaving::All => older.len(),
        };
        let newest = if which == Leaving::Half && leaving > 0 {
            ptr::null_mut()
        } else {
            entry.newest()
        };
        let (oldest, staying) = older.split_at(leaving);
        // ORDERING: the owner's own, here and below.
        let oldest = oldest.iter().map(|slot| {
            let block = slot.load(Ordering::Relaxed);
            // Before it is put back: a child of a fork does not do so again, when it may be another's.
            slot.store(ptr::null_mut(), Ordering::Relaxed);
            block
        });
        for block in oldest.chain([newest]).filter_map(NonNull::new) {
            match self.put(class, block) {
                Ok(true) => {}
                Ok(false) => lost(block).map_err(|misuse| (misuse, block))?,
                Err(misuse) => return Err((misuse, block)),
            }
            failpoints::at(failpoints::Point::Part);
        }
        if newest.is_null() {
            for (to, from) in older.iter().zip(staying) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            if !slots.is_empty() {
                entry.install(slots, blocks - leaving, entry.newest());
            }
        } else {
            entry.install(slots, 0, ptr::null_mut());
        }
        Ok(())
    }

    /// Marks a block free, or has its part do so; `false` if no sub-slab holds it.
    pub(super) fn put(&self, class: Class, block: NonNull<u8>) -> Result<bool, Misuse> {
        let address = block.addr().get();
        let entry = self.entry(class);
        let (slab, distance) = match entry.current().inside(address) {
            Some(distance) => (entry.current(), distance),
            None => match slab_at(address) {
                Some(found) => found,
                None => return Ok(false),
            },
        };
        if slab.class() != class {
            return Err(Misuse::WrongClass);
        }
        if self.owns(slab) {
            self.put_own(slab, distance)?;
        } else if memory_of(slab).is_some_and(|memory| ptr::eq(memory, self.memory())) {
            let size = slab.size();
            give_back(slab, distance)?;
            note([1, size], &self.freed);
        } else {
            return Err(Misuse::OtherHeap);
        }
        Ok(true)
    }

    fn put_own(&self, slab: &SubSlab, distance: usize) -> Result<(), Misuse> {
        let place = slab.live_at(distance)?;
        let entry = self.entry_of(slab);
        if slab.place() == Place::Current {
            if entry.is_checked_out(slab, slab.start() + distance) {
                return Err(Misuse::Freed);
            }
            slab.put(place);
        } else {
            slab.put(place);
            entry.take_used(1);
            self.note_free(entry, slab);
        }
        Ok(())
    }

    /// Gives the magazines' slots back: the part is not used any more.
    pub(super) fn give_all_slots_back(&self) {
        for entry in &self.entries {
            self.give_slots_back(entry.contents().0);
        }
    }

    /// Gives slots back that no magazine has any more, unless they are those that lie in the part.
    fn give_slots_back(&self, slots: &'static [Slot]) {
        if slots.len() > FIRST {
            let (array, bytes) = (NonNull::from(&slots[0]).cast(), size_of_val(slots));
            // SAFETY: 1. charged with this layout in `enlarge`. 2. as the caller says.
            unsafe { self.memory().give_back(array, bytes, LINE) };
        }
    }
}
