//! The memory of a heap: what the engine gave it, counted against its limit.

use core::ptr::NonNull;

use super::engine;
use super::store::Store;
use super::sub_slab::SubSlab;
use super::wanted::Refused;
use crate::arena::{self, Zeroed};
use crate::sync::{AtomicU32, AtomicUsize, GuardedPtr, GuardedU16, Ordering};
use crate::thread_cache::tls;
use crate::units::LINE;

/// What a heap holds, in bytes: all that the engine gave it, its own tables included.
pub(super) struct Memory {
    held: AtomicUsize,
    /// The most that was held when something went back: the most of all, but for what is held now.
    peak: AtomicUsize,
    limit: AtomicUsize,
    /// Where blocks come from; the heap's own tables are the engine's.
    pub(super) store: Store,
}

impl Memory {
    pub(super) const fn new(limit: usize, held: usize, store: Store) -> Self {
        Self {
            held: AtomicUsize::new(held),
            peak: AtomicUsize::new(held),
            limit: AtomicUsize::new(limit),
            store,
        }
    }

    // ORDERING: counts, here and below; nothing is published through them.

    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed).max(self.held())
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Counts what is about to be asked for, unless the limit forbids it.
    pub(super) fn charge(&self, bytes: usize) -> Result<(), Refused> {
        let most = self.most();
        let charged = |held: usize| held.checked_add(bytes).filter(|after| *after <= most);
        (self.held)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, charged)
            .map(|_| ())
            .map_err(|_| Refused::Limit)
    }

    /// The most that the calling thread may have the heap hold.
    fn most(&self) -> usize {
        self.limit()
            .saturating_add(tls::words().heaps.may_exceed.get())
    }

    /// Whether it would be in vain to ask for so much.
    pub(super) fn refuses(&self, bytes: usize) -> bool {
        let after = self.held().checked_add(bytes);
        after.is_none_or(|after| after > self.most())
    }

    /// Takes back a charge for what was not served.
    pub(super) fn uncharge(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Holds so much, and never more.
    pub(super) fn begin_anew(&self, held: usize) {
        self.held.store(held, Ordering::Relaxed);
        self.peak.store(held, Ordering::Relaxed);
    }

    pub(super) fn discharge(&self, bytes: usize) {
        let before = self.held.fetch_sub(bytes, Ordering::Relaxed);
        if before > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(before, Ordering::Relaxed);
        }
    }

    /// A block of the engine that counts.
    pub(super) fn charged(&self, size: usize, align: usize) -> Result<NonNull<u8>, Refused> {
        self.charged_from(Store::Engine, size, align)
    }

    fn charged_from(
        &self,
        store: Store,
        size: usize,
        align: usize,
    ) -> Result<NonNull<u8>, Refused> {
        self.charge(size)?;
        let block = store.block(size, align, Zeroed::No);
        block.inspect_err(|_| self.uncharge(size))
    }

    /// Gives back what [`charged`](Self::charged) gave.
    ///
    /// # Safety
    /// 1. It is live and of this layout.
    /// 2. Nobody uses it any more.
    pub(super) unsafe fn give_back(&self, block: NonNull<u8>, size: usize, align: usize) {
        // SAFETY: 1. and 2. our own.
        unsafe { engine::give_back(block, size, align) };
        self.discharge(size);
    }

    /// The block that a sub-slab of so many bytes is cut from.
    pub(super) fn carrier(&self, bytes: usize) -> Result<NonNull<u8>, Refused> {
        self.charged_from(self.store, bytes, bytes)
    }

    /// Takes back what [`carrier`](Self::carrier) gave.
    ///
    /// # Safety
    /// 1. It is live and of so many bytes.
    /// 2. Nobody uses it any more.
    pub(super) unsafe fn give_carrier_back(&self, base: NonNull<u8>, bytes: usize) {
        // SAFETY: 1. and 2. our own.
        unsafe { self.store.give_back(base, bytes, bytes) };
        self.discharge(bytes);
    }

    /// Gives the block of a sub-slab back, of which nobody uses anything.
    pub(super) fn end(&self, slab: &SubSlab) {
        self.discharge(self.end_uncounted(slab));
    }

    /// The same, for who counts anew; how many bytes went.
    pub(super) fn end_uncounted(&self, slab: &SubSlab) -> usize {
        let Some((base, bytes)) = slab.end() else {
            return 0;
        };
        // There is a table, as it has a tenant.
        let _ = arena::set_tenant(base.addr().get(), bytes, core::ptr::null_mut());
        // SAFETY: 1. from `carrier`, for as many bytes. 2. nobody uses it, as the caller says.
        unsafe { self.store.give_back(base, bytes, bytes) };
        bytes
    }

    /// A page, not yet begun.
    pub(super) fn page(&self) -> Result<NonNull<u8>, Refused> {
        self.charged(PAGE, PAGE)
    }
}

/// Bytes of a page with descriptors: an empty heap has one.
pub(super) const PAGE: usize = 4096;

/// The head of a page; what the heap or a part keeps there and descriptors follow.
#[repr(C, align(64))]
pub(super) struct Page {
    next: GuardedPtr<Self>,
    /// Where descriptors begin, how many were made, and how many there is room for.
    first: GuardedU16,
    made: AtomicU32,
    room: GuardedU16,
}

impl Page {
    /// Begins a page in front of others that keeps `reserved` bytes behind its head for other things.
    pub(super) fn begin(
        page: NonNull<u8>,
        next: Option<NonNull<Self>>,
        reserved: usize,
    ) -> NonNull<Self> {
        let first = (size_of::<Self>() + reserved).next_multiple_of(LINE);
        let page = page.cast::<Self>();
        #[expect(clippy::cast_possible_truncation, reason = "below `PAGE`")]
        let head = Self {
            next: GuardedPtr::null(),
            first: GuardedU16::new(first as u16),
            made: AtomicU32::new(0),
            room: GuardedU16::new(((PAGE - first) / size_of::<SubSlab>()) as u16),
        };
        head.next.set(next);
        // SAFETY: 1. `PAGE` bytes that nobody else has, aligned so.
        unsafe { page.write(head) };
        page
    }

    /// A descriptor that was not made yet, if there is room.
    pub(super) fn descriptor(&self) -> Option<&SubSlab> {
        // ORDERING: only the owner of the part writes.
        let made = self.made.load(Ordering::Relaxed);
        if made == u32::from(self.room.get()) {
            return None;
        }
        let place = self.place(made);
        // SAFETY: 1. inside the page, where nothing is yet. Zero is an unused one.
        unsafe { place.write_bytes(0, 1) };
        // ORDERING: publishes the descriptor to `descriptors`.
        self.made.store(made + 1, Ordering::Release);
        // SAFETY: 1. just written; it stays as long as the page, which is that of a part that is borrowed.
        Some(unsafe { place.as_ref() })
    }

    /// Those that were made.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = &SubSlab> {
        // ORDERING: pairs with the release in `descriptor`.
        let made = self.made.load(Ordering::Acquire);
        // SAFETY: 1. as in `descriptor`.
        (0..made).map(|index| unsafe { self.place(index).as_ref() })
    }

    fn place(&self, index: u32) -> NonNull<SubSlab> {
        let offset = usize::from(self.first.get()) + index as usize * size_of::<SubSlab>();
        let whole = NonNull::from(self).cast::<u8>();
        // SAFETY: 1. inside the page: `index` is below `room`.
        unsafe { crate::ptr::advance(whole, offset) }
    }
}

/// A page and those behind it. Each is read before it is shown, so that it may be given back then.
pub(super) fn pages(first: Option<NonNull<Page>>) -> impl Iterator<Item = NonNull<Page>> {
    let mut next = first;
    core::iter::from_fn(move || {
        let page = next?;
        // SAFETY: 1. in a list of pages, each of which was begun.
        next = unsafe { page.as_ref() }.next.get();
        Some(page)
    })
}
