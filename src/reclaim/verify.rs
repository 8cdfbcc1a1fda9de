//! Checks every layer.

use crate::arena;
use crate::error::Violation;
use crate::heap;
use crate::large;
use crate::thread_cache::ThreadCache;
use crate::threads::{self, REGISTRY};

/// Checks every layer.
pub(crate) fn verify() -> Result<(), Violation> {
    if !threads::is_ready() {
        return Ok(());
    }
    threads::repair_child();
    arena::verify()?;
    large::verify()?;
    heap::verify()?;
    let registry = REGISTRY.lock();
    registry.registered().try_for_each(|cache| {
        let _held = cache.gate.lock();
        cache.verify()
    })?;
    // Nobody else gets at these while the registry is locked.
    registry.parked().try_for_each(ThreadCache::verify)
}

impl ThreadCache {
    /// Checks every magazine (ALGORITHM.md, I2).
    fn verify(&'static self) -> Result<(), Violation> {
        for class in self.countable() {
            let (slots, blocks) = self.contents(class);
            if blocks >= slots.len().max(1) {
                let address = core::ptr::from_ref(self).addr();
                let invariant = "I2: a magazine holds at most what its slots hold";
                return Err(Violation { invariant, address });
            }
        }
        Ok(())
    }
}
