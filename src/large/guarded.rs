//! Mappings of a hardened process: an inaccessible page before and behind each, and none of the bytes
//! of a freed one accessible.

use core::ptr::NonNull;

use super::Mapping;
use crate::config;
use crate::hardening::Hardening;
use crate::os::{self, Access, PageLen};

/// Whether mappings are kept apart: not split, joined, or grown into each other.
pub(super) fn is_apart() -> bool {
    config::mode().has(Hardening::GUARDS) || is_shut()
}

/// Whether freed mappings are inaccessible.
fn is_shut() -> bool {
    config::mode().has(Hardening::QUARANTINE)
}

fn has_guards() -> bool {
    config::mode().has(Hardening::GUARDS)
}

/// A fresh mapping: `length` bytes aligned to `align`, and how many bytes lie before and behind. With
/// an alignment of more than a page nothing lies before.
pub(super) fn map(length: usize, align: usize) -> Option<(NonNull<u8>, [usize; 2])> {
    let page = os::page_size();
    if !has_guards() {
        let base = os::map(PageLen::kept(length), align, Access::Committed)?;
        return Some((base, [0, 0]));
    }
    let margins = if align > page {
        [0, page]
    } else {
        [page, page]
    };
    let whole = PageLen::kept(length).plus(PageLen::kept(margins[0] + margins[1]))?;
    let start = os::map(whole, align.max(page), Access::Committed)?;
    // SAFETY: 1. `whole` has room for it.
    let base = unsafe { crate::ptr::advance::<u8>(start, margins[0]) };
    if margins[0] > 0 {
        // SAFETY: 1. mapped above, not in use.
        let _ = unsafe { os::guard(start, PageLen::kept(page)) };
    }
    // SAFETY: 1. mapped above, not in use.
    unsafe { guard_end(base, length, page) };
    Some((base, margins))
}

/// Makes `bytes` behind the first `length` inaccessible. A mapping without a guard is better than none.
///
/// # Safety
/// 1. The range is the caller's own mapping, and nobody uses what is behind `length`.
unsafe fn guard_end(base: NonNull<u8>, length: usize, bytes: usize) {
    if bytes > 0 {
        // SAFETY: 1. both lie in the mapping, which the range is.
        let end = unsafe { crate::ptr::advance::<u8>(base, length) };
        // SAFETY: 1. the end of the mapping, behind `length`, where nobody uses it.
        let _ = unsafe { os::guard(end, PageLen::kept(bytes)) };
    }
}

impl Mapping {
    /// First byte and length, with what lies before and behind.
    pub(super) fn whole(&self) -> (NonNull<u8>, PageLen) {
        let [before, behind] = self.margins.each_ref().map(|bytes| bytes.get());
        // SAFETY: 1. `map` put that many bytes before.
        let start = unsafe { self.base().sub(before) };
        (start, PageLen::kept(before + self.length.get() + behind))
    }

    /// Takes back what [`open`](Self::open) left inaccessible behind a shorter block.
    pub(super) fn restore(&self) {
        let behind = &self.margins[1];
        let more = behind.get().saturating_sub(os::page_size());
        behind.set(behind.get() - more);
        self.length.set(self.length.get() + more);
    }

    /// Makes a freed mapping inaccessible; `false` if that is wanted and the kernel refuses.
    ///
    /// # Safety
    /// 1. The mapping is in no list, and nobody uses it.
    pub(super) unsafe fn shut(&self) -> bool {
        // SAFETY: 1. in no list, so in the hands of this thread, and not in use.
        !is_shut() || unsafe { os::protect(self.base(), self.pages()) }
    }

    /// Makes the first `length` bytes of a freed mapping accessible again, and no more where there are
    /// guards; `false` if the kernel refuses.
    ///
    /// # Safety
    /// 1. The mapping is in no list, and nobody uses it.
    pub(super) unsafe fn open(&self, length: usize) -> bool {
        let all = self.length.get();
        // SAFETY: 1. in no list, so in the hands of this thread.
        if !unsafe { os::expose(self.base(), self.pages()) } {
            return false;
        }
        if has_guards() {
            // SAFETY: 1. shorter than the mapping.
            let rest = unsafe { crate::ptr::advance::<u8>(self.base(), length) };
            // Where guards are protected pages, they would stay in memory.
            // SAFETY: 1. the end of a mapping that nobody uses yet.
            let _ = all == length || unsafe { os::purge(rest, PageLen::kept(all - length)) };
            // SAFETY: 1. as long as the mapping, which nobody uses yet.
            unsafe { guard_end(self.base(), length, all - length) };
            let behind = &self.margins[1];
            behind.set(behind.get() + all - length);
            self.length.set(length);
        }
        true
    }

    /// Changes the length with the guards; `None` leaves it as it was.
    ///
    /// # Safety
    /// 1. The mapping is in no list.
    /// 2. On success nobody uses the old addresses any more.
    pub(super) unsafe fn resize(&self, length: usize) -> Option<NonNull<u8>> {
        let [before, behind] = self.margins.each_ref().map(|bytes| bytes.get());
        let (start, old) = self.whole();
        let exposed = PageLen::kept(self.length.get() + behind);
        // What was inaccessible behind becomes part of the block.
        // SAFETY: 1. the mapping's own end.
        if behind > 0 && !unsafe { os::expose(self.base(), exposed) } {
            // SAFETY: 1. the mapping's own end.
            unsafe { guard_end(self.base(), self.length.get(), behind) };
            return None;
        }
        let new = PageLen::kept(before + length + behind);
        // SAFETY: 1. all of a mapping in no list. 2. the block's are among them, and its margins
        // nobody uses.
        let moved = unsafe { os::remap(start, old, new) };
        if let Some(start) = moved {
            // SAFETY: 1. as long as before, and as before.
            self.set(unsafe { crate::ptr::advance(start, before) }, length);
        }
        // SAFETY: 1. the mapping's own end.
        unsafe { guard_end(self.base(), self.length.get(), behind) };
        moved.map(|_| self.base())
    }
}
