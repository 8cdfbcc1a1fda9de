//! Where users hold spans.

use core::ptr::NonNull;

use crate::arena::{self, Chunk, UnitKind};
use crate::units::{UNIT, UnitCount, UnitIndex};

/// The place of the span that a user holds at `block`.
pub(super) fn span_site(block: NonNull<u8>) -> Option<(&'static Chunk, UnitIndex)> {
    let address = block.addr().get();
    let chunk = arena::owner(address)?;
    let unit = UnitIndex::of(address);
    let begins = chunk.kind(unit) == UnitKind::Span && chunk.head(unit) == unit;
    (begins && address % UNIT == chunk.colour(unit)).then_some((chunk, unit))
}

/// Units of the span that a user holds at `block`.
pub(super) fn units_at(block: NonNull<u8>) -> Option<UnitCount> {
    span_site(block).map(|(chunk, unit)| UnitCount::new(chunk.span_length(unit)))
}

/// Bytes from `block` on in the span that a user holds there.
pub(super) fn length_at(block: NonNull<u8>) -> Option<usize> {
    let (chunk, unit) = span_site(block)?;
    Some(usize::from(chunk.span_length(unit)) * UNIT - chunk.colour(unit))
}

/// Whether the span at `block` would be asked for as it is for `size` bytes, too, and has room for them.
pub(crate) fn suits(block: NonNull<u8>, size: usize) -> bool {
    span_site(block).is_some_and(|(chunk, unit)| {
        let units = UnitCount::new(chunk.span_length(unit));
        UnitCount::holding(size) == Some(units) && chunk.colour(unit) + size <= units.bytes()
    })
}
