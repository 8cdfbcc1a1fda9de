//! A chunk: 4 MiB of units with a descriptor elsewhere.
//!
//! The table of units is the truth: what each unit is, and where its span begins. The masks, lists
//! and counts are derived from it, and rebuilt from it in a child whose parent was inside.

use core::ptr::NonNull;

use super::masks::Masks;
use super::pool::Pool;
use super::span_use::SpanUse;
use super::tags::Tags;
#[cfg(feature = "heaps")]
use super::tenants::Tenants;
use super::{ARENA, Locked};
use crate::os::{self, PageLen};
use crate::size_map::MagazineOffset;
use crate::sync::{AtomicPtr, GuardedU8, GuardedU64, Link, Ordering};
use crate::units::{CHUNK, UNIT_SHIFT, UNITS_PER_CHUNK, UnitCount, UnitIndex};

/// Bytes that a chunk sets aside, for each unit, for what a span that begins there wants to keep.
pub(crate) const UNIT_META: usize = 640;

/// What a unit is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum UnitKind {
    /// No span.
    Free = 0,
    /// A span whose taker has not said what it becomes.
    Claimed = 1,
    /// A slab.
    Slab = 2,
    /// A span handed out whole.
    Span = 3,
    /// A span that first-class heaps have, whole or cut into blocks of theirs.
    Carved = 4,
}

impl UnitKind {
    fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Free,
            2 => Self::Slab,
            3 => Self::Span,
            4 => Self::Carved,
            _ => Self::Claimed,
        }
    }
}

/// A list that chunks are members of: both links of one membership.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) next: Link<Chunk>,
    pub(super) previous: Link<Chunk>,
}

/// What is reached only under the arena's lock, by [`Chunk::listed`].
#[derive(Debug)]
#[repr(C)]
pub(super) struct Listed {
    /// Which units are free, dirty, old, or being purged.
    pub(super) masks: Masks,
    /// When there was first a dirty unit again, or they were looked at, in milliseconds.
    pub(super) looked_at: GuardedU64,
    /// Which list of free runs the chunk is in, or [`super::NO_BIN`].
    pub(super) bin: GuardedU8,
    /// Chunks by longest free run.
    pub(super) by_run: Links,
    /// Chunks with dirty units, the one not looked at for longest first.
    pub(super) by_age: Links,
    /// Descriptors without a chunk.
    pub(super) next_unused: Link<Chunk>,
    /// Chunks that are purged.
    pub(super) next_purged: Link<Chunk>,
}

/// One chunk's descriptor. Never unmapped: when the chunk's addresses go back to the kernel the
/// descriptor waits for another chunk. Who holds a span says what it is in the table of units,
/// which may be read without a lock.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Chunk {
    /// First byte; null while the descriptor has no chunk.
    base: AtomicPtr<u8>,
    listed: Listed,
    /// 1 where the chunk serves spans of one unit, 0 where it serves longer ones. Set before the
    /// chunk is in any list.
    dense: GuardedU8,
    /// 1 where the kernel was told to keep huge pages out, see [`Chunk::stay_small`].
    pub(super) small_pages: GuardedU8,
    /// 1 where huge pages were asked for, until the kernel is told to keep them out: units that nobody
    /// ever had may have come in with others. Changed before the chunk is in any list, then under the
    /// arena's lock.
    pub(super) huge_pages: GuardedU8,
    /// Every descriptor, newest first. Set before the descriptor is in this list, and never again.
    pub(super) next_of_all: Link<Self>,
    /// In the hardened mode, which blocks are live. Set before the chunk is entered in the owner map.
    pub(super) tags: Link<Tags>,
    /// The pool that the chunk belongs to, if it has attributes. Set before the chunk is in any list.
    pub(super) pool: Link<Pool>,
    /// What first-class heaps say of its blocks, once one has some. All null while none has.
    #[cfg(feature = "heaps")]
    pub(super) tenants: Link<Tenants>,
    kind: [GuardedU8; UNITS_PER_CHUNK],
    /// First unit of the span that a unit belongs to.
    head: [GuardedU8; UNITS_PER_CHUNK],
    /// Units of the span, kept at its first unit.
    length: [GuardedU8; UNITS_PER_CHUNK],
    /// In the hardened mode, for the unit where a span began: see [`Span::set_fronts`]. 0 says nothing.
    pub(super) fronts: [GuardedU8; UNITS_PER_CHUNK],
}

/// Bytes of a descriptor with what it sets aside for its units.
pub(super) const DESCRIPTOR: usize =
    size_of::<Chunk>() + UNITS_PER_CHUNK * (UNIT_META + size_of::<SpanUse>());

impl Chunk {
    /// First byte of the chunk, unless it was given back.
    pub(crate) fn base(&self) -> Option<NonNull<u8>> {
        // ORDERING: pairs with the release in `set_base`.
        NonNull::new(self.base.load(Ordering::Acquire))
    }

    pub(super) fn set_base(&self, base: *mut u8) {
        // ORDERING: publishes the emptied tables to readers of `base`.
        self.base.store(base, Ordering::Release);
    }

    /// What the arena's lock guards: whoever shows that they hold it may have it.
    pub(super) fn listed(&self, _: &Locked) -> &Listed {
        &self.listed
    }

    /// Whether the chunk serves spans of one unit.
    pub(super) fn is_dense(&self) -> bool {
        self.dense.get() != 0
    }

    /// Says what a chunk that is in no list yet is going to serve.
    pub(super) fn set_dense(&self, dense: bool) {
        self.dense.set(u8::from(dense));
    }

    /// Whether it is one of this pool's.
    #[cfg(feature = "heaps")]
    pub(crate) fn is_of(&self, pool: &'static Pool) -> bool {
        crate::sync::same(self.pool.get(), pool)
    }

    /// Whether the kernel gives and takes its memory in pages that are longer than a chunk.
    pub(crate) fn is_gigantic(&self) -> bool {
        self.pool.get().is_some_and(Pool::is_gigantic)
    }

    /// Gives the chunk's addresses back. `false` at the limit of mappings.
    ///
    /// # Safety
    /// 1. The chunk's base, and nothing in the chunk is in use.
    pub(super) unsafe fn unmap(&self, base: NonNull<u8>) -> bool {
        match self.pool.get() {
            // SAFETY: 1. our own.
            Some(pool) => unsafe { pool.unmap(base) },
            // SAFETY: 1. our own.
            None => unsafe { os::unmap(base, PageLen::CHUNK) },
        }
    }

    /// Before pages of the chunk are purged while others stay: keeps huge pages out from here on. The
    /// kernel would fill the holes again to make one (`khugepaged`). What came in with huge pages
    /// and was never used is dirty now.
    ///
    /// The caller holds units of the chunk, and no lock of the arena or below.
    pub(crate) fn stay_small(&'static self) {
        if self.pool.get().is_some_and(Pool::wants_huge) {
            // Units that nobody had stay dirty beside others.
            return;
        }
        // Two purgers at once may both ask, which does no harm.
        if let (Some(base), 0) = (self.base(), self.small_pages.get()) {
            self.small_pages.set(1);
            os::refuse_huge(base, PageLen::CHUNK);
            if self.huge_pages.get() != 0 {
                let arena = ARENA.lock();
                arena.note_huge(self);
                self.huge_pages.set(0);
            }
        }
    }

    /// First byte of a unit of a chunk that is there.
    pub(crate) fn unit(&self, unit: UnitIndex) -> NonNull<u8> {
        let base = self.base().expect("a span's chunk has a base");
        // SAFETY: 1. a unit index is below the units of a chunk.
        unsafe { crate::ptr::advance(base, unit.get() << UNIT_SHIFT) }
    }

    pub(crate) fn kind(&self, unit: UnitIndex) -> UnitKind {
        UnitKind::from_bits(self.kind[unit.get()].get())
    }

    /// First unit of the span that `unit` belongs to.
    pub(crate) fn head(&self, unit: UnitIndex) -> UnitIndex {
        UnitIndex::new(u32::from(self.head[unit.get()].get()) % 64)
    }

    /// Units of the span that begins at `head`.
    pub(crate) fn span_length(&self, head: UnitIndex) -> u8 {
        self.length[head.get()].get()
    }

    /// What the span that begins at `unit` may keep, [`UNIT_META`] bytes, zero in a new descriptor.
    pub(crate) fn unit_meta(&'static self, unit: UnitIndex) -> NonNull<u8> {
        let after = NonNull::from(self).cast::<u8>();
        // SAFETY: 1. a descriptor is followed by `UNIT_META` bytes for each unit (`DESCRIPTOR`).
        unsafe { crate::ptr::advance(after, size_of::<Self>() + unit.get() * UNIT_META) }
    }

    /// What the user of a span that begins at `unit` has of it.
    pub(crate) fn span_use(&'static self, unit: UnitIndex) -> &'static SpanUse {
        let table = self.unit_meta(UnitIndex::new(0));
        let place = UNITS_PER_CHUNK * UNIT_META + unit.get() * size_of::<SpanUse>();
        // SAFETY: 1. behind what units keep a descriptor has one of these for each (`DESCRIPTOR`).
        let place = unsafe { crate::ptr::advance::<SpanUse>(table, place) };
        // SAFETY: 1. part of a descriptor, which is never unmapped; all zero is one that says
        // nothing.
        unsafe { place.as_ref() }
    }

    /// Touches some whole pages of what units keep, before a chunk has any; how many. They are in
    /// memory from then on.
    pub(super) fn touch_unit_meta(&'static self, pages: usize) -> u64 {
        let start = self.unit_meta(UnitIndex::new(0));
        let page = os::page_size();
        let fit = (UNITS_PER_CHUNK * UNIT_META / page).min(pages + 1);
        // Not the first: it may hold the end of the descriptor itself.
        for number in 1..fit {
            // SAFETY: 1. inside the table.
            let place = unsafe { crate::ptr::advance::<u8>(start, number * page) };
            // SAFETY: 1. our own metadata, which is never unmapped.
            unsafe { os::touch(place) };
        }
        fit.saturating_sub(1) as u64
    }

    /// Gives the memory of what units keep back, as far as it is whole pages: zero again, or, if the
    /// kernel refuses, as it is. No unit belongs to a span.
    pub(super) fn discard_unit_meta(&'static self) {
        let page = os::page_size();
        let start = self.unit_meta(UnitIndex::new(0));
        let end = start.addr().get() + UNITS_PER_CHUNK * (UNIT_META + size_of::<SpanUse>());
        let skipped = start.addr().get().next_multiple_of(page) - start.addr().get();
        let whole = PageLen::within((end - start.addr().get()).saturating_sub(skipped));
        if whole != PageLen::NONE {
            // SAFETY: 1. inside the table.
            let first = unsafe { crate::ptr::advance::<u8>(start, skipped) };
            // SAFETY: 1. our own metadata. Nothing in it is in use: no unit belongs to a span, and who
            // reads it with a stale link finds zeros, which are a slab without blocks.
            let _ = unsafe { os::discard(first, whole) };
        }
    }

    /// Writes the truth about a run of units. What a span is stands with its first unit: that becomes
    /// no one's first and someone's last, so that a half-written span is none.
    #[inline(never)]
    pub(super) fn mark(&self, first: UnitIndex, units: UnitCount, kind: UnitKind) {
        #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
        self.length[first.get()].set(units.get() as u8);
        let write = |unit: usize| {
            #[expect(clippy::cast_possible_truncation, reason = "below 64")]
            self.head[unit].set(first.get() as u8);
            self.kind[unit].set(kind as u8);
        };
        let all = first.get()..first.get() + units.get() as usize;
        if matches!(kind, UnitKind::Free | UnitKind::Claimed) {
            all.for_each(write)
        } else {
            all.rev().for_each(write)
        }
    }

    /// The first unit that belongs to no slab and has a magazine nevertheless (docs/states.md, I10). What
    /// is claimed may have one: of what it was, or is going to be.
    pub(super) fn misplaced(&self) -> Option<UnitIndex> {
        UnitIndex::all().find(|unit| {
            let address = self.unit(*unit).addr().get();
            matches!(self.kind(*unit), UnitKind::Free | UnitKind::Span)
                && ARENA
                    .owners
                    .magazine_offset(address)
                    .is_some_and(|offset| offset != MagazineOffset::NONE)
        })
    }

    /// Forgets what spans [left](Span::set_fronts): an aligned one was claimed, which may lie in the midst of
    /// where one was.
    pub(super) fn forget_fronts(&self) {
        self.fronts.iter().for_each(|kept| kept.set(0));
    }

    /// The free units according to the table.
    pub(super) fn free_by_table(&self) -> u64 {
        let mut free = 0;
        for (unit, kind) in self.kind.iter().enumerate() {
            free |= u64::from(kind.get() == UnitKind::Free as u8) << unit;
        }
        free
    }

    /// In a forked child: frees the spans that threads which are gone had claimed, or half freed.
    /// Each step leaves the table such that a child of this child, which begins anew, comes to the
    /// same.
    pub(super) fn free_claimed(&'static self, _: &Locked) {
        // A span that neither a user nor a stock has was on its way back.
        for unit in UnitIndex::all() {
            let is_span = self.kind(unit) == UnitKind::Span && self.head(unit) == unit;
            if is_span && self.span_use(unit).is_unused() {
                self.kind[unit.get()].set(UnitKind::Claimed as u8);
            }
        }
        // What a span is stands with its first unit (`mark`): as long as that one says that it is
        // free or claimed, the others, half-written or not, are free.
        for unit in 0..UNITS_PER_CHUNK {
            let head = self.head[unit].get() as usize % UNITS_PER_CHUNK;
            let kind = UnitKind::from_bits(self.kind[head].get());
            if matches!(kind, UnitKind::Free | UnitKind::Claimed) && unit != head {
                self.kind[unit].set(UnitKind::Free as u8);
            }
        }
        // Now the first units, each free last: until then it is known as one whose leavings are to
        // be cleared.
        for unit in
            (0..UNITS_PER_CHUNK).filter(|unit| self.kind[*unit].get() == UnitKind::Claimed as u8)
        {
            #[expect(clippy::cast_possible_truncation, reason = "below 64")]
            let left = self.unit_meta(UnitIndex::new(unit as u32));
            // What a slab on its way in or out left there.
            // SAFETY: 1. set aside for this unit, which nobody owns. The child has one thread.
            unsafe { left.write_bytes(0, UNIT_META) };
            self.fronts[unit].set(0);
            #[expect(clippy::cast_possible_truncation, reason = "below 64")]
            self.span_use(UnitIndex::new(unit as u32)).forget();
            self.kind[unit].set(UnitKind::Free as u8);
        }
        // Only when the kinds are right can be told which units have a magazine wrongly: those of a
        // slab on its way in or out, which had noted it, or had not yet taken it back.
        while let Some(unit) = self.misplaced() {
            let address = self.unit(unit).addr().get();
            ARENA
                .owners
                .set_magazine(address, UnitCount::new(1), MagazineOffset::NONE);
        }
    }

    /// The first byte's address divided by the chunk's size.
    pub(crate) fn number(address: usize) -> usize {
        address / CHUNK
    }
}
