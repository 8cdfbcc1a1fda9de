//! Blocks of a heap that the engine serves one by one: see `direct`, which remembers them.

use core::ptr::NonNull;

use super::class::Class;
use super::direct::Layout;
use super::memory::{self, Refused};
use super::part::why_not;
use super::shared::{Guarded, Shared, serves_itself};
use crate::arena::Zeroed;
use crate::config;
use crate::error::{Call, Misuse};
use crate::large;
use crate::os::{self, failpoints};
use crate::size_class::{Request, classify};
use crate::units::round_up;

impl Shared {
    /// A block that the engine serves, and how many bytes of it may be used.
    pub(super) fn alloc_direct(
        &self,
        size: usize,
        align: usize,
        wanted: Zeroed,
    ) -> Result<NonNull<[u8]>, Refused> {
        let counted = counted(size, align).ok_or(Refused::NoMemory)?;
        if self.memory.refuses(counted) {
            return Err(Refused::Limit);
        }
        // Counted once it is there, so that what the system refuses is nobody's peak.
        let block = memory::block(size, align, wanted)?;
        let found = (self.memory.charge(counted)).and_then(|()| {
            let layout = Layout::of(block, size, align);
            self.enter(block, layout)
                .inspect_err(|_| self.memory.uncharge(counted))
        });
        found.inspect_err(|_| {
            // SAFETY: 1. just served with this layout. 2. nobody has it.
            unsafe { memory::give_back(block, size, align) };
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
        self.memory.discharge(layout.counted());
        // SAFETY: 1. entered with the layout that the engine gave it for. 2. our own.
        unsafe { memory::give_back(block, layout.size, layout.align) };
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
        let becomes_short = serves_itself() && Class::of(size, align).is_some();
        if align > layout.align || old.0 > layout.length || becomes_short {
            return None;
        }
        if size <= layout.length && size > layout.length / 2 {
            return Some(NonNull::slice_from_raw_parts(block, layout.length));
        }
        // Only what the kernel moves without a copy: the lock is held, as another thread may be given the old address.
        let is_long = |size| classify(size, layout.align) == Request::Large;
        if !serves_itself() || !is_long(size) || !is_long(layout.size) {
            return None;
        }
        // A place is left by the block itself.
        let _ = direct.make_room(&self.memory);
        let counted = counted(size, layout.align)?;
        let more = counted.saturating_sub(layout.counted());
        self.memory.charge(more).ok()?;
        // First: a child of a fork in between has lost the block, not given it back twice.
        direct.remove(block);
        failpoints::at(failpoints::Point::Heap);
        // By all that its user may have written: as many pages.
        // SAFETY: 1. live, of this layout. 2. our own.
        let resized = unsafe { memory::resize(block, layout.length, layout.align, size) };
        let Some(resized) = resized else {
            direct.insert(block, layout);
            self.memory.uncharge(more);
            return None;
        };
        failpoints::at(failpoints::Point::Heap);
        self.memory.discharge(layout.counted() + more - counted);
        let layout = Layout::of(resized, size, layout.align);
        direct.insert(resized, layout);
        Some(NonNull::slice_from_raw_parts(resized, layout.length))
    }
}

/// Bytes that a block of the engine counts for: of a span only what its user may have, as the rest is not touched.
fn counted(size: usize, align: usize) -> Option<usize> {
    match classify(size, align) {
        Request::Block(class) => Some(class.size()),
        Request::Span(_) | Request::Large => round_up(size, os::page_size()),
    }
}

impl Layout {
    /// That of a block that the engine just gave. Safeguards keep what is behind its size.
    fn of(block: NonNull<u8>, size: usize, align: usize) -> Self {
        let counted = counted(size, align).unwrap_or(size);
        let length = match classify(size, align) {
            _ if !config::mode().is_plain() => size,
            Request::Block(_) => counted,
            // A span may begin some lines behind its first page.
            Request::Span(_) | Request::Large => large::length(block, Call::Alloc).min(counted),
        };
        Self {
            size,
            align,
            length,
        }
    }

    fn counted(self) -> usize {
        counted(self.size, self.align).unwrap_or(self.size)
    }
}
