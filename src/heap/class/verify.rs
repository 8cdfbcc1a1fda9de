//! Checks of what a class derives from its slabs.
#![forbid(unsafe_code)]

use super::{BINS, Locked};
use crate::arena;
use crate::error::Violation;
use crate::size_class::SizeClass;
use crate::slab::{Slab, SlabState};
use crate::sync::same;

impl Locked<'_> {
    /// Checks the slabs and lists of what is `class` of the heap of this index (docs/states.md, I3 to I6,
    /// I11).
    pub(in crate::heap) fn verify(self, class: SizeClass, heap: usize) -> Result<(), Violation> {
        let state = self.class;
        if state.slabs.get() == 0 {
            return Ok(());
        }
        let is_named = |bin: usize| state.mask.get() >> bin & 1 == 1;
        let (mut slabs, mut free, mut by_age) = (0, 0, 0);
        for slab in arena::chunks().flat_map(Slab::of_chunk) {
            if !slab.is_of(class, heap) {
                continue;
            }
            slab.verify(self.held)?;
            let (left, blocks) = (slab.free(), class.info().blocks as usize);
            let bin = slab.bin();
            let is_in_place = match slab.state() {
                SlabState::Full => left == 0,
                SlabState::Spare => left == blocks && same(state.spare.get(), slab),
                SlabState::Holes => state.purged.get() != 0,
                SlabState::Binned | SlabState::Clean => {
                    let before = slab
                        .previous
                        .get()
                        .map_or(&state.bins[bin], |slab| &slab.next);
                    left > 0
                        && left < blocks
                        && class.info().eighths(left) == bin
                        && same(before.get(), slab)
                        && is_named(bin)
                }
            };
            if !is_in_place {
                return Err(Violation {
                    invariant: "I5: a slab is in the list of its free count",
                    address: slab.base().addr().get(),
                });
            }
            let must_be_by_age = Self::is_worth(slab) && slab.is_touched();
            if !slab.is_by_age() && must_be_by_age
                || slab.state() == SlabState::Clean && slab.is_touched()
            {
                return Err(Violation {
                    invariant: "I11: a slab with something to purge is in the list by age",
                    address: slab.base().addr().get(),
                });
            }
            slabs += 1;
            free += left;
            by_age += usize::from(slab.is_by_age());
        }
        let address = core::ptr::from_ref(state).addr();
        if (0..BINS).any(|bin| is_named(bin) != state.bins[bin].get().is_some()) {
            let invariant = "I5: the mask names the lists that hold a slab";
            return Err(Violation { invariant, address });
        }
        if by_age != state.by_age.count(self.held) {
            let invariant = "I11: the list by age holds the slabs that say so";
            return Err(Violation { invariant, address });
        }
        if slabs != state.slabs.get() || free != state.free.get() {
            let invariant = "I6: a class counts its slabs and free blocks";
            return Err(Violation { invariant, address });
        }
        Ok(())
    }
}
