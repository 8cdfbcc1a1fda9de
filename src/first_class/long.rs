//! Blocks of a heap that the engine serves one by one: see `direct`, which remembers them.

use core::ptr::NonNull;

use super::class::Class;
use super::direct::Layout;
use super::engine;
use super::memory::Memory;
use super::part::why_not;
use super::shared::{Guarded, Shared};
use super::wanted::Refused;
use crate::arena::Zeroed;
use crate::error::Misuse;
use crate::os::failpoints;
use crate::size_class::{Request, classify};

impl Shared {
    /// A block that the engine serves, and how many bytes of it may be used.
    pub(super) fn alloc_direct(
        &self,
        size: usize,
        align: usize,
        wanted: Zeroed,
    ) -> Result<NonNull<[u8]>, Refused> {
        let store = self.memory.store;
        let counted = store.counted(size, align).ok_or(Refused::NoMemory)?;
        if self.memory.refuses(counted) {
            return Err(Refused::Limit);
        }
        // Counted once it is there, so that what the system refuses is nobody's peak.
        let block = store.block(size, align, wanted)?;
        let found = (self.memory.charge(counted)).and_then(|()| {
            let layout = self.memory.layout(block, size, align);
            self.enter(block, layout)
                .inspect_err(|_| self.memory.uncharge(counted))
        });
        found.inspect_err(|_| {
            // SAFETY: 1. just served with this layout. 2. nobody has it.
            unsafe { store.give_back(block, size, align) };
        })
    }

    fn enter(&self, block: NonNull<u8>, layout: Layout) -> Result<NonNull<[u8]>, Refused> {
        let guarded = self.lock();
        guarded.direct.make_room(&self.memory)?;
        failpoints::at(failpoints::Point::Heap);
        guarded.direct.insert(block, layout);
        failpoints::at(failpoints::Point::Heap);
        Ok(NonNull::slice_from_raw_parts(block, layout.length))
    }

    pub(super) fn free_direct(
        &self,
        block: NonNull<u8>,
        layout: Option<(usize, usize)>,
    ) -> Result<(), Misuse> {
        let found = self.take_direct(&self.lock(), block, layout)?;
        // Without the lock: with safeguards, something may be wrong with the block.
        // SAFETY: 1. and 2. just taken from the table.
        unsafe { self.give_back(block, found) };
        Ok(())
    }

    /// Takes a block out of the table, if a layout that is told fits it.
    pub(super) fn take_direct(
        &self,
        guarded: &Guarded,
        block: NonNull<u8>,
        layout: Option<(usize, usize)>,
    ) -> Result<Layout, Misuse> {
        let found = guarded.direct.get(block).ok_or_else(|| why_not(block))?;
        if let Some((size, align)) = layout
            && (align > found.align || size > found.length)
        {
            return Err(Misuse::WrongSize);
        }
        guarded.direct.remove(block);
        failpoints::at(failpoints::Point::Heap);
        Ok(found)
    }

    /// Gives a block back to the engine.
    ///
    /// # Safety
    /// 1. It was in the table with this layout, from which the caller took it.
    /// 2. Nobody uses it any more.
    pub(super) unsafe fn give_back(&self, block: NonNull<u8>, layout: Layout) {
        self.memory.discharge(self.memory.counted(layout));
        // SAFETY: 1. entered with the layout that the engine gave it for. 2. our own.
        unsafe {
            self.memory
                .store
                .give_back(block, layout.size, layout.align)
        };
    }

    /// Changes the layout of a block without a copy of it by the caller; `None` if that takes one.
    ///
    /// # Safety
    /// 1. The block is live, of this heap, and the layout `old` fits it. Neither layout is of no bytes.
    /// 2. Nobody uses it any more if another is returned.
    pub(super) unsafe fn resize(
        &self,
        block: NonNull<u8>,
        old: (usize, usize),
        new: (usize, usize),
    ) -> Option<NonNull<[u8]>> {
        let (size, align) = new;
        if let Some((slab, _)) = self.sub_slab(block) {
            let is_same = Class::of(size, align) == Some(slab.class());
            return is_same.then(|| NonNull::slice_from_raw_parts(block, slab.size()));
        }
        let guarded = self.lock();
        let direct = &guarded.direct;
        let layout = direct.get(block)?;
        // What is short is freed as the block of a sub-slab.
        let store = self.memory.store;
        let becomes_short = store.cuts() && Class::of(size, align).is_some();
        if align > layout.align || old.0 > layout.length || becomes_short {
            return None;
        }
        if size <= layout.length && size > layout.length / 2 {
            return Some(NonNull::slice_from_raw_parts(block, layout.length));
        }
        // Only what the kernel moves without a copy: the lock is held, as another thread may be given the old address.
        let is_long = |size| classify(size, layout.align) == Request::Large;
        if !store.cuts() || !store.resizes() || !is_long(size) || !is_long(layout.size) {
            return None;
        }
        // A place is left by the block itself.
        let _ = direct.make_room(&self.memory);
        let counted = store.counted(size, layout.align)?;
        let before = self.memory.counted(layout);
        let more = counted.saturating_sub(before);
        self.memory.charge(more).ok()?;
        // First: a child of a fork in between has lost the block, not given it back twice.
        direct.remove(block);
        failpoints::at(failpoints::Point::Heap);
        // By all that its user may have written: as many pages.
        // SAFETY: 1. live, of this layout. 2. our own.
        let resized = unsafe { engine::resize(block, layout.length, layout.align, size) };
        let Some(resized) = resized else {
            direct.insert(block, layout);
            self.memory.uncharge(more);
            return None;
        };
        failpoints::at(failpoints::Point::Heap);
        self.memory.discharge(before + more - counted);
        let layout = self.memory.layout(resized, size, layout.align);
        direct.insert(resized, layout);
        Some(NonNull::slice_from_raw_parts(resized, layout.length))
    }
}

impl Memory {
    /// That of a block that the store just gave.
    fn layout(&self, block: NonNull<u8>, size: usize, align: usize) -> Layout {
        let counted = self.store.counted(size, align).unwrap_or(size);
        Layout {
            size,
            align,
            length: self.store.length(block, (size, align), counted),
        }
    }

    fn counted(&self, layout: Layout) -> usize {
        let counted = self.store.counted(layout.size, layout.align);
        counted.unwrap_or(layout.size)
    }
}
