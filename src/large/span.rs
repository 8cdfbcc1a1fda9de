//! Spans handed out whole, and the way out at the limit of mappings.

use core::ptr::NonNull;

use super::die;
use super::site::{held_at, use_at};
use super::validate::why_not;
use crate::arena::{self, Chunk, UnitKind, Zeroed};
use crate::config;
use crate::error::{Call, Misuse};
use crate::units::{UNIT, UnitCount, UnitIndex};

/// Bytes of spans that users hold. Not counted as they come and go: that took 3 % of `e_med`.
pub(super) fn live() -> usize {
    let held = |chunk: &'static Chunk, unit: UnitIndex| {
        let is_span = chunk.kind(unit) == UnitKind::Span && chunk.head(unit) == unit;
        let held = is_span.then(|| chunk.span_use(unit))?;
        held.is_live().then(|| usize::from(held.units()) * UNIT)
    };
    let all = |chunk| UnitIndex::all().filter_map(move |unit| held(chunk, unit));
    arena::chunks().flat_map(all).sum()
}

/// The way out at the limit of mappings: chunks are few and long.
pub(super) fn in_chunk(length: usize, align: usize) -> Option<(NonNull<u8>, Zeroed)> {
    alloc_span(UnitCount::holding(length)?, length, align)
}

/// A block of `size` bytes in a span of `units`, which are enough.
pub(crate) fn alloc_span(
    units: UnitCount,
    size: usize,
    align: usize,
) -> Option<(NonNull<u8>, Zeroed)> {
    let (span, zeroed) = arena::claim_aligned(units, align)?;
    // Before the span is one: who looks a pointer up relies on it.
    let block = span.hand_out(size, align);
    if config::mode().is_hardened() {
        span.set_fronts(0);
    }
    span.become_kind(UnitKind::Span);
    Some((block, zeroed))
}

/// What became of a span that was to be freed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freed {
    /// It lies in a stock.
    Yes,
    /// Nothing was done: the stock is full, or there is none.
    Full,
    /// Nothing was done: it is no span of such a length that a user has.
    No,
}

/// Frees what [`alloc_span`] gave for `units`, or the mapping that what grew was given instead.
///
/// # Safety
/// 1. Nobody uses the block any more.
pub(crate) unsafe fn free_span(block: NonNull<u8>, units: UnitCount) {
    if held_at(block).is_none() {
        // SAFETY: 1. nobody uses the block, which is a mapping's.
        return unsafe { super::free(block, units.bytes()) };
    }
    // SAFETY: 1. nobody uses the block, which is a span's.
    unsafe { free_span_if(block, |held| held == units) };
}

/// Frees the span at `block`; what is none, or does not fit, ends the process.
///
/// # Safety
/// 1. Nobody uses the block any more.
pub(super) unsafe fn free_span_if(block: NonNull<u8>, fits: impl Fn(UnitCount) -> bool) {
    let find = || {
        let (chunk, unit, held) = use_at(block).ok_or(None)?;
        if !held.is_of(block) {
            return Err(None);
        }
        // SAFETY: 1. its user gives it up, and it is used only if it is taken from him, once.
        let span = unsafe { chunk.span(unit) };
        if !fits(span.units) {
            return Err(Some(Misuse::WrongClass));
        }
        if held.give_back(block) {
            Ok(span)
        } else {
            Err(None)
        }
    };
    if let Err(misuse) = arena::release_found(find) {
        let misuse = misuse.unwrap_or_else(|| why_not(block));
        die(misuse, Call::Free, block.addr().get());
    }
}
