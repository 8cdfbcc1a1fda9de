//! Checks every layer.

use core::ptr;

use super::quiesce::countable;
use crate::arena;
use crate::error::Violation;
use crate::heap;
use crate::large::{self, Stock};
use crate::thread_cache::{LockedCache, ThreadCache};
use crate::threads::{self, Part, REGISTRY, lock_registered};

/// Checks every layer.
pub(crate) fn verify() -> Result<(), Violation> {
    if !threads::is_ready() {
        return Ok(());
    }
    threads::repair_child(Part::All);
    arena::verify()?;
    large::verify()?;
    heap::verify()?;
    if let Some(own) = ThreadCache::own() {
        // Those of others may be in use.
        let gate = own.lock();
        gate.cache().stock().map_or(Ok(()), Stock::verify)?;
    }
    let registry = REGISTRY.lock();
    registry
        .registered()
        .try_for_each(|cache| verify_magazines(lock_registered(cache, &registry).cache()))?;
    registry.parked().try_for_each(verify_magazines)
}

/// Checks every magazine (docs/states.md, I2).
fn verify_magazines(cache: LockedCache<'_>) -> Result<(), Violation> {
    for (_, contents) in countable(cache) {
        if contents.blocks() > contents.capacity() {
            let address = ptr::from_ref::<ThreadCache>(&cache).addr();
            let invariant = "I2: a magazine holds at most what its slots hold";
            return Err(Violation { invariant, address });
        }
    }
    Ok(())
}
