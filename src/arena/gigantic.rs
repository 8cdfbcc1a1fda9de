//! Pages of a GiB, which who runs the machine has set aside, in slots of a chunk each.
//!
//! The kernel gives and takes such pages whole. So chunks, and blocks that are longer than one, share them; the last
//! slot that goes takes the page along.

use core::ptr::NonNull;

use super::meta;
use crate::config::Attributes;
use crate::os::{self, Held, Lock, PageLen};
use crate::sync::{GuardedPtr, GuardedU64, GuardedUsize, Link};
use crate::units::{CHUNK, GIGANTIC};

/// Slots of a page.
const SLOTS: usize = GIGANTIC / CHUNK;
const WORD: usize = u64::BITS as usize;

/// The gigantic pages of a pool. One lock guards them; the system calls that bring and take them are made under it.
pub(super) struct Gigantic(Lock<Link<Page>>);

/// One page, or several in a row that one block has. Its descriptor is never unmapped.
struct Page {
    /// Null while the descriptor has no page.
    base: GuardedPtr<u8>,
    /// Pages in a row.
    count: GuardedUsize,
    /// Slots that somebody has, by bit, and those that somebody had, which hold old bytes.
    taken: [GuardedU64; SLOTS / WORD],
    touched: [GuardedU64; SLOTS / WORD],
    next: Link<Self>,
}

/// The bits of each word in a run of slots.
fn parts(first: usize, count: usize) -> impl Iterator<Item = (usize, u64)> {
    (0..SLOTS / WORD).filter_map(move |word| {
        let bit = |slot: usize| slot.clamp(word * WORD, (word + 1) * WORD) - word * WORD;
        let (from, to) = (bit(first), bit(first + count));
        (from < to).then(|| (word, (u64::MAX >> (WORD - (to - from))) << from))
    })
}

impl Page {
    fn is_free(&self, first: usize, count: usize) -> bool {
        parts(first, count).all(|(word, bits)| self.taken[word].get() & bits == 0)
    }

    fn find(&self, count: usize) -> Option<usize> {
        let mut starts = 0..=SLOTS.checked_sub(count)?;
        self.base.get()?;
        starts.find(|first| self.is_free(*first, count))
    }

    /// Gives slots to somebody, zero.
    fn take(&self, first: usize, count: usize) -> Option<NonNull<u8>> {
        let base = self.base.get()?;
        for (word, bits) in parts(first, count) {
            self.taken[word].set(self.taken[word].get() | bits);
        }
        for slot in first..first + count {
            // SAFETY: 1. a slot of the page.
            let start = unsafe { crate::ptr::advance::<u8>(base, slot * CHUNK) };
            let (touched, bit) = (&self.touched[slot / WORD], 1 << (slot % WORD));
            if touched.get() & bit != 0 {
                // SAFETY: 1. a slot, which nobody has.
                unsafe { start.write_bytes(0, CHUNK) };
            }
            touched.set(touched.get() | bit);
        }
        // SAFETY: 1. a slot of the page.
        Some(unsafe { crate::ptr::advance(base, first * CHUNK) })
    }

    fn holds(&self, address: usize) -> bool {
        let base = self.base.get().map_or(0, |base| base.addr().get());
        base != 0 && address.wrapping_sub(base) < self.count.get() * GIGANTIC
    }
}

impl Gigantic {
    pub(super) const fn new() -> Self {
        Self(Lock::new(Link::none()))
    }

    /// The lock. In a forked child it may have to be broken: what somebody was about to take or give is lost.
    fn lock(&self) -> Held<'_, Link<Page>> {
        if self.0.is_inherited() {
            self.0.break_inherited();
        }
        self.0.lock()
    }

    /// So many slots in a row, zero, in pages with these attributes.
    pub(super) fn take(&self, count: usize, attributes: Attributes) -> Option<NonNull<u8>> {
        let pages = self.lock();
        let mut next = pages.get();
        while let Some(page) = next.filter(|_| count <= SLOTS) {
            if let Some(first) = page.find(count) {
                return page.take(first, count);
            }
            next = page.next.get();
        }
        let page = unused(&pages)?;
        let (base, length) = os::map_gigantic(count.div_ceil(SLOTS))?;
        if attributes.give_to(base, length).is_err() {
            // SAFETY: 1. our own, just mapped, and in nobody's use. What the kernel refuses to take is lost.
            let _ = unsafe { os::unmap(base, length) };
            return None;
        }
        for word in page.taken.iter().chain(&page.touched) {
            word.set(0);
        }
        page.count.set(length.bytes() / GIGANTIC);
        page.base.set(Some(base));
        // Pages in a row are one block's.
        page.take(0, count.min(SLOTS))
    }

    /// Takes slots back, and gives the page back with the last one. If the kernel refuses, the page waits for others.
    pub(super) fn give(&self, base: NonNull<u8>, count: usize) {
        let pages = self.lock();
        let mut next = pages.get();
        while let Some(page) = next {
            if page.holds(base.addr().get()) {
                let first = base.addr().get() % GIGANTIC / CHUNK;
                for (word, bits) in parts(first, count.min(SLOTS)) {
                    page.taken[word].set(page.taken[word].get() & !bits);
                }
                return page.end_if_free();
            }
            next = page.next.get();
        }
    }
}

impl Page {
    fn end_if_free(&self) {
        if !self.is_free(0, SLOTS) {
            return;
        }
        let Some(base) = self.base.get() else { return };
        // First: a child of a fork loses what may be gone.
        self.base.set(None);
        // SAFETY: 1. whole gigantic pages of our own, of which nobody has anything.
        if !unsafe { os::unmap(base, PageLen::kept(self.count.get() * GIGANTIC)) } {
            self.base.set(Some(base));
        }
    }
}

/// A descriptor without a page.
fn unused(pages: &Link<Page>) -> Option<&'static Page> {
    let mut next = pages.get();
    while let Some(page) = next {
        if page.base.get().is_none() {
            return Some(page);
        }
        next = page.next.get();
    }
    let table = meta::alloc(size_of::<Page>())?;
    // SAFETY: 1. zeroed metadata of this size, aligned to a line, never freed; all zero is a descriptor without a page.
    let page: &'static Page = unsafe { table.cast().as_ref() };
    page.next.set(pages.get());
    pages.set(Some(page));
    Some(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_slots_are_parts_of_words() {
        let parts = |first, count| parts(first, count).collect::<std::vec::Vec<_>>();
        assert_eq!(parts(0, 1), [(0, 1)]);
        assert_eq!(parts(63, 2), [(0, 1 << 63), (1, 1)]);
        assert_eq!(parts(64, 128), [(1, u64::MAX), (2, u64::MAX)]);
        assert_eq!(parts(250, 6), [(3, 0b11_1111 << 58)]);
        assert_eq!(parts(0, SLOTS).len(), SLOTS / WORD);
    }

    #[test]
    fn a_page_gives_slots_that_nobody_has() {
        let page = Page {
            base: GuardedPtr::null(),
            count: GuardedUsize::new(1),
            taken: [u64::MAX, u64::MAX << 2, !0b1111, u64::MAX].map(GuardedU64::new),
            touched: [const { GuardedU64::new(0) }; SLOTS / WORD],
            next: Link::none(),
        };
        assert_eq!(page.find(1), None, "there is no page");
        page.base.set(Some(NonNull::dangling()));
        assert_eq!(page.find(1), Some(64));
        assert_eq!(page.find(3), Some(128));
        assert_eq!(page.find(5), None);
        assert_eq!(page.find(SLOTS + 1), None);
    }
}
