//! The blocks of a heap: each with a head in front of it, by which it is in a list, and counted.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

use super::super::std::alloc::System;
use super::wanted::Refused;

/// Directly in front of a block.
struct Head {
    next: Option<NonNull<Self>>,
    before: Option<NonNull<Self>>,
    /// That of the block.
    layout: Layout,
}

/// What the system's allocator is asked for, and how far into it the block begins. `None` past the end of memory.
fn whole(layout: Layout) -> Option<(Layout, usize)> {
    Layout::new::<Head>().extend(layout).ok()
}

/// Whether the first bytes of a block are to be zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Zeroed {
    Yes,
    No,
}

/// All blocks of a heap, in bytes where nothing else is said.
pub(super) struct Blocks {
    first: Option<NonNull<Head>>,
    /// How many.
    pub(super) count: usize,
    /// As they were asked for.
    pub(super) live: usize,
    /// With their heads, as the system's allocator was asked.
    pub(super) held: usize,
    /// The most of these.
    pub(super) peak: usize,
    /// What `held` may be.
    pub(super) limit: usize,
    /// How many requests were refused.
    pub(super) refused: usize,
}

// SAFETY: 1. the list is reached through this value alone, from whatever thread has it.
unsafe impl Send for Blocks {}

impl Blocks {
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            first: None,
            count: 0,
            live: 0,
            held: 0,
            peak: 0,
            limit,
            refused: 0,
        }
    }

    /// A block of this layout.
    pub(super) fn alloc(&mut self, layout: Layout, wanted: Zeroed) -> Result<NonNull<u8>, Refused> {
        let (whole, offset) = whole(layout).ok_or(Refused::NoMemory)?;
        let held = self.held_after(0, whole.size())?;
        let base = if wanted == Zeroed::Yes {
            // SAFETY: 1. of a head at least.
            unsafe { System.alloc_zeroed(whole) }
        } else {
            // SAFETY: 1. of a head at least.
            unsafe { System.alloc(whole) }
        };
        let base = NonNull::new(base).ok_or(Refused::NoMemory)?;
        // SAFETY: 1. inside what was just allocated.
        let block = unsafe { base.add(offset) };
        let head = head_of(block);
        let fresh = Head {
            next: self.first,
            before: None,
            layout,
        };
        // SAFETY: 1. in front of the block, where there is room for it, and nobody else has it.
        unsafe { head.write(fresh) };
        self.link(head);
        self.count += 1;
        self.live += layout.size();
        self.set_held(held);
        Ok(block)
    }

    /// Bytes of a block.
    ///
    /// # Safety
    /// 1. It is live and one of these.
    pub(super) unsafe fn layout(&self, block: NonNull<u8>) -> Layout {
        // SAFETY: 1. its head, which is there as long as the block is.
        unsafe { head_of(block).as_ref() }.layout
    }

    /// Frees a block.
    ///
    /// # Safety
    /// 1. It is live and one of these.
    /// 2. Nobody uses it any more.
    pub(super) unsafe fn free(&mut self, block: NonNull<u8>) {
        let head = head_of(block);
        // SAFETY: 1. our own first item.
        let Head { next, before, .. } = *unsafe { head.as_ref() };
        self.set_next_of(before, next);
        set_before_of(next, before);
        // SAFETY: 1. and 2. our own; it is not in the list any more.
        let (bytes, layout) = unsafe { give_back(head) };
        self.count -= 1;
        self.live -= layout.size();
        self.held -= bytes;
    }

    /// Changes the size of a block, which keeps its alignment, in place or by moving it. An error leaves it as it was.
    ///
    /// # Safety
    /// 1. It is live and one of these.
    /// 2. On success nobody uses the old block any more.
    pub(super) unsafe fn resize(
        &mut self,
        block: NonNull<u8>,
        size: usize,
    ) -> Result<NonNull<u8>, Refused> {
        // SAFETY: 1. our own.
        let old = unsafe { self.layout(block) };
        let new = Layout::from_size_align(size, old.align()).map_err(|_| Refused::NoMemory)?;
        let (before, offset) = whole(old).ok_or(Refused::NoMemory)?;
        let (after, _) = whole(new).ok_or(Refused::NoMemory)?;
        let held = self.held_after(before.size(), after.size())?;
        // SAFETY: 1. so far in front of it begins what it lies in.
        let base = unsafe { block.sub(offset) };
        // SAFETY: 1. the system's, of this layout; of a head at least.
        let base = unsafe { System.realloc(base.as_ptr(), before, after.size()) };
        let base = NonNull::new(base).ok_or(Refused::NoMemory)?;
        // SAFETY: 1. the alignment, and so the offset, is as it was.
        let block = unsafe { base.add(offset) };
        let mut head = head_of(block);
        // SAFETY: 1. moved with the block, and in nobody's hands but ours.
        unsafe { head.as_mut() }.layout = new;
        self.link(head);
        self.live = self.live - old.size() + new.size();
        self.set_held(held);
        Ok(block)
    }

    /// Frees all, and begins to count anew.
    ///
    /// # Safety
    /// 1. Nobody uses any of them any more.
    pub(super) unsafe fn clear(&mut self) {
        let mut next = self.first.take();
        while let Some(head) = next {
            // SAFETY: 1. in the list.
            next = unsafe { head.as_ref() }.next;
            // SAFETY: 1. in what was the list, and its successor was read. 2. our own.
            unsafe { give_back(head) };
        }
        (self.count, self.live) = (0, 0);
        (self.held, self.peak) = (0, 0);
    }

    /// What does not hold of the list and the counts, and where.
    pub(super) fn wrong(&self) -> Option<(&'static str, usize)> {
        let (mut count, mut live, mut held) = (0, 0, 0);
        let (mut before, mut next) = (None, self.first);
        while let Some(head) = next {
            let place = head.addr().get();
            // SAFETY: 1. in the list.
            let found = unsafe { head.as_ref() };
            if found.before != before {
                return Some(("a heap's blocks name each other", place));
            }
            count += 1;
            if count > self.count {
                return Some(("a heap has as many blocks as it counts", place));
            }
            live += found.layout.size();
            held += whole(found.layout).map_or(0, |(whole, _)| whole.size());
            (before, next) = (Some(head), found.next);
        }
        let is_counted = (count, live, held) == (self.count, self.live, self.held);
        (!is_counted).then_some(("a heap counts its blocks and bytes", 0))
    }

    /// What is held once so many bytes have come in the place of others, unless the limit forbids it.
    fn held_after(&self, before: usize, after: usize) -> Result<usize, Refused> {
        let held = (self.held - before).checked_add(after);
        let held = held.ok_or(Refused::Limit)?;
        if after > before && held > self.limit {
            return Err(Refused::Limit);
        }
        Ok(held)
    }

    fn set_held(&mut self, held: usize) {
        self.held = held;
        self.peak = self.peak.max(held);
    }

    /// Has those beside a head name it, by what it says itself.
    fn link(&mut self, head: NonNull<Head>) {
        // SAFETY: 1. a head that was written.
        let Head { next, before, .. } = *unsafe { head.as_ref() };
        self.set_next_of(before, Some(head));
        set_before_of(next, Some(head));
    }

    fn set_next_of(&mut self, head: Option<NonNull<Head>>, next: Option<NonNull<Head>>) {
        match head {
            None => self.first = next,
            // SAFETY: 1. in the list, which is borrowed alone.
            Some(mut head) => unsafe { head.as_mut() }.next = next,
        }
    }
}

fn set_before_of(head: Option<NonNull<Head>>, before: Option<NonNull<Head>>) {
    if let Some(mut head) = head {
        // SAFETY: 1. in a list, which the caller has borrowed alone.
        unsafe { head.as_mut() }.before = before;
    }
}

/// Where the head of a block lies.
fn head_of(block: NonNull<u8>) -> NonNull<Head> {
    // Aligned, as the block is to a head's alignment at least, and a head's size is a multiple of it. Whoever reads it says
    // why there is one.
    let place = block.as_ptr().wrapping_sub(size_of::<Head>());
    NonNull::new(place.cast()).unwrap_or(NonNull::dangling())
}

/// Gives a block back to the system; the bytes that were held for it, and its layout.
///
/// # Safety
/// 1. A head of a live block, which no list names any more.
/// 2. Nobody uses the block any more.
unsafe fn give_back(head: NonNull<Head>) -> (usize, Layout) {
    // SAFETY: 1. our own.
    let layout = unsafe { head.as_ref() }.layout;
    let Some((whole, offset)) = whole(layout) else {
        return (0, layout);
    };
    let base = head
        .as_ptr()
        .wrapping_add(1)
        .cast::<u8>()
        .wrapping_sub(offset);
    // SAFETY: 1. the system's, with this layout, and nobody uses it.
    unsafe { System.dealloc(base, whole) };
    (whole.size(), layout)
}
