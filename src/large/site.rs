//! Where users hold spans.

use core::ptr::NonNull;

use crate::arena::{self, Chunk, SpanUse};
use crate::units::{UnitCount, UnitIndex};

/// The unit that `block` lies in, and what the user of a span that begins there has of it.
#[inline(always)]
pub(super) fn use_at(block: NonNull<u8>) -> Option<(&'static Chunk, UnitIndex, &'static SpanUse)> {
    let address = block.addr().get();
    let (chunk, unit) = (arena::owner(address)?, UnitIndex::of(address));
    Some((chunk, unit, chunk.span_use(unit)))
}

/// What the user of `block`, which is that of a span, has of it.
pub(super) fn held_at(block: NonNull<u8>) -> Option<&'static SpanUse> {
    let (_, _, held) = use_at(block)?;
    held.is_of(block).then_some(held)
}

/// Whether the span of what was a block lies in a stock.
pub(super) fn is_stocked(block: NonNull<u8>) -> bool {
    use_at(block).is_some_and(|(_, _, held)| held.was_of(block))
}

/// Units of the span that a user holds at `block`.
pub(crate) fn units_at(block: NonNull<u8>) -> Option<UnitCount> {
    held_at(block).map(|held| UnitCount::new(held.units()))
}

/// Bytes from `block` on in the span that a user holds there.
pub(super) fn length_at(block: NonNull<u8>) -> Option<usize> {
    held_at(block).map(SpanUse::length)
}

/// Whether the span at `block` would be asked for as it is for `size` bytes, too, and has room for them.
pub(crate) fn suits(block: NonNull<u8>, size: usize) -> bool {
    held_at(block).is_some_and(|held| {
        UnitCount::holding(size) == Some(UnitCount::new(held.units())) && size <= held.length()
    })
}
