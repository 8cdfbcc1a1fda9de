//! A chunk: 4 MiB of units with a descriptor elsewhere.
//!
//! The table of units is the truth: what each unit is, and where its span begins. The masks, lists
//! and counts are derived from it, and rebuilt from it in a child whose parent was inside.

use core::ptr::NonNull;

use super::ARENA;
use super::tags::Tags;
use crate::os;
use crate::size_map::MagazineOffset;
use crate::sync::{AtomicPtr, GuardedU8, GuardedU64, Link, Ordering};
use crate::units::{CHUNK, LINE, UNIT_SHIFT, UNITS_PER_CHUNK, UnitCount, UnitIndex};

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
}

impl UnitKind {
    fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Free,
            2 => Self::Slab,
            3 => Self::Span,
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

/// One chunk's descriptor. Never unmapped: when the chunk's addresses go back to the kernel the
/// descriptor waits for another chunk. All fields are guarded by the arena's lock, except that who
/// holds a span says what it is; the table of units may be read without a lock.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Chunk {
    /// First byte; null while the descriptor has no chunk.
    base: AtomicPtr<u8>,
    /// Units in no span.
    pub(super) free: GuardedU64,
    /// Free units whose pages may hold old bytes.
    pub(super) dirty: GuardedU64,
    /// Free units taken out of `free` while their pages are purged.
    pub(super) purging: GuardedU64,
    /// Dirty units that were dirty at the last look too, and have not been used since.
    pub(super) old: GuardedU64,
    /// When `dirty` last ceased to be 0, or was looked at, in milliseconds.
    pub(super) looked_at: GuardedU64,
    /// Which list of free runs the chunk is in, or [`super::NO_BIN`].
    pub(super) bin: GuardedU8,
    /// 1 where the chunk serves spans of one unit, 0 where it serves longer ones.
    pub(super) dense: GuardedU8,
    /// 1 where the kernel was told to keep huge pages out, see [`Chunk::stay_small`].
    pub(super) small_pages: GuardedU8,
    /// Chunks by longest free run.
    pub(super) by_run: Links,
    /// Chunks with dirty units, the one not looked at for longest first.
    pub(super) by_age: Links,
    /// Every descriptor, newest first.
    pub(super) next_of_all: Link<Chunk>,
    /// Descriptors without a chunk.
    pub(super) next_unused: Link<Chunk>,
    /// In the hardened mode, which blocks are live. Set before the chunk is entered in the owner map.
    pub(super) tags: Link<Tags>,
    kind: [GuardedU8; UNITS_PER_CHUNK],
    /// First unit of the span that a unit belongs to.
    head: [GuardedU8; UNITS_PER_CHUNK],
    /// Units of the span, kept at its first unit.
    length: [GuardedU8; UNITS_PER_CHUNK],
    /// How far into its first unit the user's block of a span begins, in lines, kept there.
    colour: [GuardedU8; UNITS_PER_CHUNK],
    /// In the hardened mode, for the unit where a span began: see [`Span::set_fronts`]. 0 says nothing.
    fronts: [GuardedU8; UNITS_PER_CHUNK],
}

/// Bytes of a descriptor with what it sets aside for its units.
pub(super) const DESCRIPTOR: usize = size_of::<Chunk>() + UNITS_PER_CHUNK * UNIT_META;

/// A run of units with one owner. Holding it proves that
/// * no other span holds these units, and
/// * their pages are committed.
///
/// Losing it leaks the units.
#[derive(Debug)]
#[must_use]
pub(crate) struct Span {
    pub(crate) chunk: &'static Chunk,
    pub(crate) first: UnitIndex,
    pub(crate) units: UnitCount,
}

impl Span {
    /// First byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.chunk.unit(self.first)
    }

    /// Has the user's block begin `lines` cache lines behind the first byte.
    pub(crate) fn set_colour(&self, lines: u8) {
        self.chunk.colour[self.first.get()].set(lines);
    }

    /// What [`set_fronts`](Self::set_fronts) left for a span that begins where this one does.
    pub(crate) fn fronts(&self) -> u8 {
        self.chunk.fronts[self.first.get()].get()
    }

    /// Leaves a note about the contents of the span for whoever has it next; those about spans that begin
    /// inside do not hold any more. One about a span that began before and reached in here cannot be met
    /// again before this one's end: [`first_run`] finds the lowest units first, and a span that begins there
    /// with such a note was the last to be there. (One that is aligned may lie higher, and forgets all notes.)
    pub(crate) fn set_fronts(&self, note: u8) {
        let first = self.first.get();
        for kept in self.chunk.fronts[first..]
            .iter()
            .take(self.units.get() as usize)
        {
            kept.set(0);
        }
        self.chunk.fronts[first].set(note);
    }

    /// Says what the span is now; readers of the unit table see it from then on. When a slab ceases to be one,
    /// its magazine is taken back after that: so a child of a fork in between knows it for half done.
    pub(crate) fn become_kind(&self, kind: UnitKind) {
        self.chunk.mark(self.first, self.units, kind);
        if kind == UnitKind::Claimed {
            self.note_magazine(MagazineOffset::NONE);
        }
    }

    /// Notes the magazine of the blocks that the span is going to have.
    pub(crate) fn note_magazine(&self, offset: MagazineOffset) {
        ARENA
            .owners
            .set_magazine(self.base().addr().get(), self.units, offset);
    }
}

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

    /// Before pages of the chunk are purged while others stay: keeps huge pages out from here on. The
    /// kernel would fill the holes again to make one (`khugepaged`).
    pub(crate) fn stay_small(&self) {
        // Two purgers at once may both ask, which does no harm.
        if let (Some(base), 0) = (self.base(), self.small_pages.get()) {
            self.small_pages.set(1);
            os::refuse_huge(base, CHUNK);
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

    /// How many bytes behind the first one the user's block of the span that begins at `head` does.
    pub(crate) fn colour(&self, head: UnitIndex) -> usize {
        usize::from(self.colour[head.get()].get()) * LINE
    }

    /// Units of the span that begins at `head`.
    pub(crate) fn span_length(&self, head: UnitIndex) -> u8 {
        self.length[head.get()].get()
    }

    /// The span that begins at `head`, of a kind that the caller owns.
    ///
    /// # Safety
    /// 1. The caller owns the span that begins at `head`; no other `Span` for it is used.
    pub(crate) unsafe fn span(&'static self, head: UnitIndex) -> Span {
        Span {
            chunk: self,
            first: head,
            units: UnitCount::new(self.span_length(head)),
        }
    }

    /// What the span that begins at `unit` may keep, [`UNIT_META`] bytes, zero in a new descriptor.
    pub(crate) fn unit_meta(&'static self, unit: UnitIndex) -> NonNull<u8> {
        let after = NonNull::from(self).cast::<u8>();
        // SAFETY: 1. a descriptor is followed by `UNIT_META` bytes for each unit (`DESCRIPTOR`).
        unsafe { crate::ptr::advance(after, size_of::<Self>() + unit.get() * UNIT_META) }
    }

    /// Gives the memory of what units keep back, as far as it is whole pages: zero again, or, if the
    /// kernel refuses, as it is. No unit belongs to a span.
    pub(super) fn discard_unit_meta(&'static self) {
        let page = os::page_size();
        let start = self.unit_meta(UnitIndex::new(0));
        let end = start.addr().get() + UNITS_PER_CHUNK * UNIT_META;
        let skipped = start.addr().get().next_multiple_of(page) - start.addr().get();
        let whole = (end - start.addr().get()).saturating_sub(skipped) / page * page;
        if whole > 0 {
            // SAFETY: 1. inside the table.
            let first = unsafe { crate::ptr::advance::<u8>(start, skipped) };
            // SAFETY: 1. our own metadata. Nothing in it is in use: no unit belongs to a span, and who
            // reads it with a stale link finds zeros, which are a slab without blocks.
            let _ = unsafe { os::purge(first, whole) };
        }
    }

    /// Writes the truth about a run of units. What a span is stands with its first unit: that becomes
    /// no one's first and someone's last, so that a half-written span is none.
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

    /// The first unit that belongs to no slab and has a magazine nevertheless (ALGORITHM.md, I10). What
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

    /// Whether a span of the chunk has no purpose yet.
    pub(super) fn has_claimed(&self) -> bool {
        self.kind
            .iter()
            .any(|kind| kind.get() == UnitKind::Claimed as u8)
    }

    /// In a forked child: frees the spans that threads which are gone had claimed, or half freed.
    pub(super) fn free_claimed(&'static self) {
        for unit in 0..UNITS_PER_CHUNK {
            let head = self.head[unit].get() as usize % UNITS_PER_CHUNK;
            let kind = UnitKind::from_bits(self.kind[head].get());
            if matches!(kind, UnitKind::Free | UnitKind::Claimed) && unit != head {
                self.kind[unit].set(UnitKind::Free as u8);
            }
        }
        for unit in
            (0..UNITS_PER_CHUNK).filter(|unit| self.kind[*unit].get() == UnitKind::Claimed as u8)
        {
            #[expect(clippy::cast_possible_truncation, reason = "below 64")]
            let left = self.unit_meta(UnitIndex::new(unit as u32));
            // What a slab on its way in or out left there.
            // SAFETY: 1. set aside for this unit, which nobody owns. The child has one thread.
            unsafe { left.write_bytes(0, UNIT_META) };
            self.fronts[unit].set(0);
            self.kind[unit].set(UnitKind::Free as u8);
        }
        // A slab on its way in or out had noted a magazine, or not yet taken it back.
        while let Some(unit) = self.misplaced() {
            let address = self.unit(unit).addr().get();
            ARENA
                .owners
                .set_magazine(address, UnitCount::new(1), MagazineOffset::NONE);
        }
    }

    /// Whether no unit belongs to a span.
    pub(super) fn is_empty(&self) -> bool {
        self.free.get() == u64::MAX
    }

    /// The first byte's address divided by the chunk's size.
    pub(crate) fn number(address: usize) -> usize {
        address / CHUNK
    }
}
