//! Whether a slab's free pages may hold old bytes, and for how long nobody has come by.
#![forbid(unsafe_code)]

use super::{ClassLock, Slab};
use crate::sync::Link;

/// Both links of a slab's membership in a list.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Links {
    pub(crate) next: Link<Slab>,
    pub(crate) previous: Link<Slab>,
}

/// [`Slab::touched`] of a slab just drawn from or flushed to.
pub(super) const TOUCHED: u8 = 2;

impl Slab {
    /// Whether free pages may have been written since the last [`clean`](Self::clean), and no block
    /// left or returned since the last call.
    pub(crate) fn age(&self, now: u64, _: &ClassLock) -> bool {
        let touched = self.touched.get();
        self.touched.set(touched.min(1));
        #[expect(clippy::cast_possible_truncation, reason = "modulo 2^32")]
        self.looked_at.set(now as u32);
        touched == 1
    }

    /// Whether `delay` milliseconds have passed since the last look.
    pub(crate) fn is_due(&self, now: u64, delay: u64, _: &ClassLock) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "modulo 2^32")]
        // OVERFLOW: as said. A slab not looked at for 49 days may have to wait for another delay.
        let since = (now as u32).wrapping_sub(self.looked_at.get());
        u64::from(since) >= delay
    }

    /// Whether the slab is in the list by age.
    #[inline]
    pub(crate) fn is_by_age(&self) -> bool {
        self.is_by_age.get() != 0
    }

    /// Notes whether it is.
    pub(crate) fn note_by_age(&self, is_in: bool, _: &ClassLock) {
        self.is_by_age.set(u8::from(is_in));
    }

    /// Whether free pages may have been written since the last [`clean`](Self::clean).
    pub(crate) fn is_touched(&self) -> bool {
        self.touched.get() != 0
    }

    /// Notes that free pages may have been written after all.
    pub(crate) fn touch(&self, _: &ClassLock) {
        self.touched.set(TOUCHED);
    }

    /// Notes that the free pages are about to be purged.
    pub(crate) fn clean(&self, _: &ClassLock) {
        self.touched.set(0);
    }
}
