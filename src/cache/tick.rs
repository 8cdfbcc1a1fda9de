//! What a slow path in a class begins with, once it has the gate.

use crate::heap::Wrong;
use crate::reclaim;
use crate::size_class::SizeClass;
use crate::thread_cache::{NO_CLASS, ThreadCache};
use crate::wakeup;

/// Slow paths of a thread between two looks at what is unused.
const TICK: u64 = 256;

/// While it lives, a child of `fork` knows which magazine may be half changed.
pub(super) struct Working(&'static ThreadCache);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.busy.set(NO_CLASS);
    }
}

impl ThreadCache {
    /// Begins a slow path: the gate is held. Every so often, looks at what is unused.
    pub(super) fn working_on(&'static self, class: SizeClass) -> Result<Working, Wrong> {
        let ticks = self.ticks.get().wrapping_add(1);
        self.ticks.set(ticks);
        if ticks.is_multiple_of(TICK) {
            let working = Working(self);
            self.shrink_unused()?;
            reclaim::maintain()?;
            drop(working);
            // Not only a free gives blocks back to slabs.
            wakeup::notice();
        }
        self.work_on(class);
        Ok(Working(self))
    }
}
