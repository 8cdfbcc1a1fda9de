//! Checks of what the arena derives from the unit tables.
#![forbid(unsafe_code)]

use super::runs::longest_run;
use super::{ARENA, NO_BIN, owner};
use crate::error::Violation;
use crate::sync::same;
use crate::units::CHUNK;
#[cfg(feature = "failpoints")]
use {
    super::{Chunk, UnitKind},
    crate::units::UnitIndex,
};

/// Checks what the arena derives from the unit tables (docs/states.md, I7 and I8).
pub(crate) fn verify() -> Result<(), Violation> {
    let arena = ARENA.lock();
    let (mut count, mut dirty_units) = (0, 0);
    for chunk in arena.chunks() {
        let Some(base) = chunk.base() else { continue };
        let address = base.addr().get();
        let check = |holds: bool, invariant| {
            if holds {
                Ok(())
            } else {
                Err(Violation { invariant, address })
            }
        };
        check(
            address.is_multiple_of(CHUNK),
            "I7: chunks are aligned to their size",
        )?;
        if !same(owner(address), chunk) {
            // Between `new_chunk` and `insert`, or on its way out: not yet or no longer ours.
            continue;
        }
        let listed = chunk.listed(&arena);
        let masks = &listed.masks;
        check(
            masks.free() | masks.purging() == chunk.free_by_table(),
            "I7: the free mask agrees with the unit table",
        )?;
        check(
            masks.purging() == 0
                || ARENA
                    .under_way
                    .purged(&arena)
                    .any(|other| same(Some(other), chunk)),
            "I7: a chunk that is purged is known as one",
        )?;
        check(
            masks.dirty() & !masks.free() == 0,
            "I7: dirty units are free",
        )?;
        check(
            chunk.misplaced().is_none(),
            "I10: only units of slabs have a magazine",
        )?;
        let longest = longest_run(masks.free());
        let bin = longest.checked_ilog2().map_or(u32::from(NO_BIN), |log| log);
        check(
            u32::from(listed.bin.get()) == bin,
            "I8: a chunk is in the list of its longest run",
        )?;
        count += 1;
        dirty_units += masks.dirty().count_ones() as usize;
    }
    let address = 0;
    if count != ARENA.counts.chunks() {
        return Err(Violation {
            invariant: "I8: chunks are counted",
            address,
        });
    }
    if dirty_units != arena.dirty_units.get() {
        return Err(Violation {
            invariant: "I8: dirty units are counted",
            address,
        });
    }
    Ok(())
}

/// Spans that are nobody's at the moment: none, where no thread is inside the allocator.
#[cfg(feature = "failpoints")]
#[must_use]
pub fn spans_on_their_way() -> usize {
    let is_claimed = |chunk: &Chunk, unit: UnitIndex| {
        chunk.kind(unit) == UnitKind::Claimed && chunk.head(unit) == unit
    };
    let of_chunk =
        |chunk: &'static Chunk| UnitIndex::all().filter(move |unit| is_claimed(chunk, *unit));
    super::chunks().flat_map(of_chunk).count()
}
