//! Slabs on their way back to their chunks.

use crate::arena;
use crate::slab::Slab;

/// Slabs that their classes gave up, linked by `next`: their spans go back once no class is locked.
#[must_use]
pub(super) struct Unused(Option<&'static Slab>);

impl Unused {
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Adds what a class gave up, if it did.
    #[inline]
    pub(super) fn add(&mut self, slab: Option<&'static Slab>) {
        if let Some(slab) = slab {
            slab.next.set(self.0);
            self.0 = Some(slab);
        }
    }

    /// Gives the spans back. Most often there are none.
    #[inline]
    pub(super) fn release(self) {
        if let Some(first) = self.0 {
            release_from(first);
        }
    }
}

#[inline(never)]
fn release_from(first: &'static Slab) {
    let mut next = Some(first);
    while let Some(slab) = next {
        next = slab.next.get();
        // SAFETY: 1. its class gave it up, and this list, which ends here, was the last to lead to
        // it.
        arena::release(unsafe { slab.resigned_span() });
    }
}

impl From<Option<&'static Slab>> for Unused {
    #[inline]
    fn from(slab: Option<&'static Slab>) -> Self {
        let mut unused = Self::none();
        unused.add(slab);
        unused
    }
}
