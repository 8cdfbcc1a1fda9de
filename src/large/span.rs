//! Spans handed out whole, and the way out at the limit of mappings.

use core::ptr::NonNull;

use super::die;
use super::site::span_site;
use super::validate::why_not;
use crate::arena::{self, Chunk, Span, UnitKind, Zeroed};
use crate::config;
use crate::error::{Call, Misuse};
use crate::units::{LINE, UNIT, UnitCount, UnitIndex, colour};

/// Places in a page that blocks begin at, a cache line apart.
const COLOURS: u16 = 64;

static_assertions::const_assert!(COLOURS <= 1 << u8::BITS);

/// Bytes of spans that users hold. Not counted as they come and go: that took 3 % of `e_med`.
pub(super) fn live() -> usize {
    let held = |chunk: &Chunk| {
        let is_held = |unit: &UnitIndex| chunk.kind(*unit) == UnitKind::Span;
        UnitIndex::all().filter(is_held).count()
    };
    arena::chunks().map(held).sum::<usize>() * UNIT
}

/// The way out at the limit of mappings: chunks are few and long.
pub(super) fn in_chunk(length: usize, align: usize) -> Option<(NonNull<u8>, Zeroed)> {
    alloc_span(UnitCount::holding(length)?, length, align)
}

/// A block of `size` bytes in a span of `units`, which are enough. Where they are more than that, and no alignment
/// forbids it, the block begins at a place in its first page that goes with the span: programs go through long
/// blocks with long strides, and those that begin at equal places in pages evict each other from the caches.
pub(crate) fn alloc_span(
    units: UnitCount,
    size: usize,
    align: usize,
) -> Option<(NonNull<u8>, Zeroed)> {
    let (span, zeroed) = arena::claim_aligned(units, align)?;
    let room = ((units.bytes() - size) / LINE).min(COLOURS as usize - 1);
    let lines = if align > LINE {
        0
    } else {
        #[expect(clippy::cast_possible_truncation, reason = "below COLOURS")]
        let most = room as u16;
        colour(span.base().addr().get(), most + 1)
    };
    // Before the span is one: who looks a pointer up relies on it.
    #[expect(clippy::cast_possible_truncation, reason = "below COLOURS")]
    span.set_colour(lines as u8);
    if config::mode().is_hardened() {
        span.set_fronts(0);
    }
    span.become_kind(UnitKind::Span);
    // SAFETY: 1. the units hold the block behind it.
    let block = unsafe { crate::ptr::advance(span.base(), usize::from(lines) * LINE) };
    Some((block, zeroed))
}

/// Frees what [`alloc_span`] gave for `units`, or the mapping that what grew was given instead.
///
/// # Safety
/// 1. Nobody uses the block any more.
pub(crate) unsafe fn free_span(block: NonNull<u8>, units: UnitCount) {
    if span_site(block).is_none() {
        // SAFETY: 1. nobody uses the block, which is a mapping's.
        return unsafe { super::free(block, units.bytes()) };
    }
    // SAFETY: 1. nobody uses the block, which is a span's.
    unsafe { free_span_if(block, |span| span.units == units) };
}

/// Frees the span at `block`; what is none, or does not fit, ends the process.
///
/// # Safety
/// 1. Nobody uses the block any more.
pub(super) unsafe fn free_span_if(block: NonNull<u8>, fits: impl Fn(&Span) -> bool) {
    // SAFETY: 1. that holds from the call on, and `find` runs in it, once.
    let find = || match unsafe { span_at(block) } {
        Some(span) if fits(&span) => Ok(span),
        Some(_) => Err(Some(Misuse::WrongClass)),
        None => Err(None),
    };
    if let Err(misuse) = arena::release_found(find) {
        let misuse = misuse.unwrap_or_else(|| why_not(block));
        die(misuse, Call::Free, block.addr().get());
    }
}

/// Takes the span at `block` from its user.
///
/// # Safety
/// 1. Nobody uses the block any more.
unsafe fn span_at(block: NonNull<u8>) -> Option<Span> {
    let (chunk, unit) = span_site(block)?;
    // SAFETY: 1. the user owned the span and gives it up.
    Some(unsafe { chunk.span(unit) })
}
