//! Spans: runs of units with one owner, and what their users have of them.

use core::ptr::NonNull;

use super::ARENA;
use super::chunk::{Chunk, UnitKind};
use super::span_use::SpanUse;
use crate::size_map::MagazineOffset;
use crate::units::{UnitCount, UnitIndex};

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

    /// Hands it out to a user, as [`SpanUse::hand_out`] says.
    pub(crate) fn hand_out(&self, size: usize, align: usize) -> NonNull<u8> {
        let held = self.chunk.span_use(self.first);
        held.hand_out(self.base(), self.units, size, align)
    }

    /// The span that leaves a stock for the arena, whose lock is held.
    ///
    /// # Safety
    /// 1. The caller owns it; no other `Span` for it is used.
    pub(crate) unsafe fn out_of_stock(held: &SpanUse) -> Option<Self> {
        let chunk = super::owner(held.address())?;
        let unit = UnitIndex::of(held.address());
        held.forget();
        // SAFETY: 1. our own.
        Some(unsafe { chunk.span(unit) })
    }

    /// What [`set_fronts`](Self::set_fronts) left for a span that begins where this one does.
    pub(crate) fn fronts(&self) -> u8 {
        self.chunk.fronts[self.first.get()].get()
    }

    /// Leaves a note about the contents of the span for whoever has one next that begins at the
    /// same unit.
    ///
    /// Such a note, when it is found, is about the last span that lay there, as
    /// 1. notes about spans that began inside this one are taken back here;
    /// 2. a span that is claimed in the midst of where this one was finds this one's first unit
    ///    taken: by one that began there and left a note of its own, or at a lower unit and took
    ///    this note back. For [`first_run`](super::runs::first_run) finds the lowest units first,
    ///    and the units of a span stay together until they are claimed anew, as they become dirty
    ///    together (`Masks::release`) and, after a purge, are all clean or all dirty
    ///    (`Masks::end_purge`);
    /// 3. one that is aligned need not be the lowest: its claim takes back all notes of the chunk
    ///    (`Locked::claim_in`).
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
    #[inline]
    pub(crate) fn become_kind(&self, kind: UnitKind) {
        if kind == UnitKind::Claimed {
            ARENA.under_way.begin_leaving(self.chunk, self.first);
        }
        self.chunk.mark(self.first, self.units, kind);
        if kind == UnitKind::Claimed {
            self.note_magazine(MagazineOffset::NONE);
        } else {
            ARENA.under_way.end_claim(self.chunk, self.first);
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
}
