//! Pools: chunks with the same attributes, for first-class heaps that ask for these. Each has free-run lists and a
//! reservation of its own; in all else its chunks are as any.

use core::fmt;
use core::ptr::NonNull;

use super::gigantic::Gigantic;
use super::reservation::{Reservation, leaf_for};
use super::{ARENA, Bins, Locked, meta};
use crate::config::Attributes;
use crate::config::HugePages;
use crate::os::{self, PageLen};
use crate::sync::{AtomicUsize, Link, Ordering};
use crate::units::CHUNK;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static LONG: AtomicUsize = AtomicUsize::new(0);

/// A pool. Never unmapped: there are as many as there are different attributes.
pub(crate) struct Pool {
    attributes: Attributes,
    bins: Bins,
    reservation: Reservation,
    gigantic: Gigantic,
    next: Link<Self>,
}

/// The pool with these attributes, made on first use; `None` without memory.
pub(crate) fn pool(attributes: Attributes) -> Option<&'static Pool> {
    let find = |arena: &Locked| arena.pools().find(|pool| pool.attributes == attributes);
    // A statement of its own: the lock is not held while metadata is allocated.
    let found = find(&ARENA.lock());
    if found.is_some() {
        return found;
    }
    let place = meta::alloc(size_of::<Pool>())?.cast::<Pool>();
    let fresh = Pool {
        attributes,
        bins: [const { Link::none() }; super::BINS],
        reservation: Reservation::new(),
        gigantic: Gigantic::new(),
        next: Link::none(),
    };
    // SAFETY: 1. metadata of this size, aligned to a line, that nobody else has.
    unsafe { place.write(fresh) };
    // SAFETY: 1. just written, and never freed.
    let fresh: &'static Pool = unsafe { place.as_ref() };
    let arena = ARENA.lock();
    // Of two at once the second loses its place.
    if let Some(found) = find(&arena) {
        return Some(found);
    }
    fresh.next.set(arena.first_pool.get());
    arena.first_pool.set(Some(fresh));
    Some(fresh)
}

impl Locked {
    pub(super) fn pools(&self) -> impl Iterator<Item = &'static Pool> {
        let mut next = self.first_pool.get();
        core::iter::from_fn(move || {
            let pool = next?;
            next = pool.next.get();
            Some(pool)
        })
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.attributes.fmt(out)
    }
}

impl Pool {
    pub(crate) fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// Its chunks by longest free run.
    pub(super) fn bins(&self, _: &Locked) -> &Bins {
        &self.bins
    }

    /// Whether the kernel gives and takes its memory in pages that are longer than a chunk.
    pub(super) fn is_gigantic(&self) -> bool {
        self.attributes.is_gigantic
    }

    /// Whether its chunks have huge pages, even in part.
    pub(super) fn wants_huge(&self) -> bool {
        self.attributes.huge_pages == HugePages::Advise
    }

    /// Whether the kernel was told to keep huge pages out of its chunks.
    pub(super) fn is_small(&self) -> bool {
        self.attributes.huge_pages == HugePages::Off
    }

    /// The next of all pools.
    pub(super) fn next(&self) -> Option<&'static Self> {
        self.next.get()
    }

    pub(super) fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// 4 MiB of committed zero memory with its attributes, and with a leaf in the owner map.
    pub(super) fn new_addresses(&self) -> Option<NonNull<u8>> {
        let base = if self.is_gigantic() {
            self.gigantic.take(1, self.attributes)?
        } else {
            self.reservation.new_addresses()?
        };
        let is_told = self.is_gigantic() || self.attributes.give_to(base, PageLen::CHUNK).is_ok();
        if is_told && leaf_for(base) {
            return Some(base);
        }
        // SAFETY: 1. just made, for nobody else. What the kernel refuses to take is lost.
        let _ = unsafe { self.unmap(base) };
        None
    }

    /// Gives a chunk's addresses back; `false` at the limit of mappings.
    ///
    /// # Safety
    /// 1. A chunk of this pool, in which nothing is in use.
    pub(super) unsafe fn unmap(&self, base: NonNull<u8>) -> bool {
        if self.is_gigantic() {
            self.gigantic.give(base, 1);
            return true;
        }
        // SAFETY: 1. our own.
        unsafe { os::unmap(base, PageLen::CHUNK) }
    }

    /// A block of at least `bytes`, zero, aligned to a chunk, in gigantic pages, which chunks and others like it share.
    pub(crate) fn take_long(&self, bytes: usize) -> Option<NonNull<u8>> {
        let slots = bytes.div_ceil(CHUNK);
        let found = self.gigantic.take(slots, self.attributes)?;
        // ORDERING: a count, here and below.
        LONG.fetch_add(slots * CHUNK, Ordering::Relaxed);
        Some(found)
    }

    /// Takes back what [`take_long`](Self::take_long) gave for so many bytes, of which nobody uses any.
    pub(crate) fn give_long(&self, block: NonNull<u8>, bytes: usize) {
        let slots = bytes.div_ceil(CHUNK);
        self.gigantic.give(block, slots);
        LONG.fetch_sub(slots * CHUNK, Ordering::Relaxed);
    }

    /// Takes note of what a heap has of its chunks.
    pub(crate) fn note_taken(&self, bytes: usize) {
        // ORDERING: a count, here and below.
        TAKEN.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn note_given_back(&self, bytes: usize) {
        TAKEN.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes that heaps have of all pools' chunks, and of gigantic pages beside.
pub(crate) fn taken() -> [usize; 2] {
    // ORDERING: statistics.
    [&TAKEN, &LONG].map(|count| count.load(Ordering::Relaxed))
}
