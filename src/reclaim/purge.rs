//! Giving back all that can be given back, also under the magazines of threads that sleep.

use super::resting::Resting;
use crate::arena::{self, Age};
use crate::heap::{self, Wrong};
use crate::large;
use crate::os;
use crate::thread_cache::ThreadCache;
use crate::threads::{self, PURGES, Part, REGISTRY, parked};

/// Gives back all memory that can be given back; bytes returned to the kernel.
pub(crate) fn purge() -> usize {
    purge_while(|| true)
}

/// The same, as long as `goes_on` says so.
pub(super) fn purge_while(goes_on: impl Fn() -> bool) -> usize {
    if !threads::is_ready() {
        return 0;
    }
    threads::repair_child(Part::All);
    if !os::is_at_home() {
        // In a child of `vfork` all threads but its own look dead, and nothing may be taken from them.
        return 0;
    }
    purge_all(goes_on).unwrap_or_else(|wrong| wrong.report())
}

fn purge_all(goes_on: impl Fn() -> bool) -> Result<usize, Wrong> {
    let before = arena::given_back();
    if let Some(own) = ThreadCache::own() {
        own.lock().cache().empty_all()?;
    }
    // One at a time: threads are met once. No gate is held while it is waited for.
    let _purges = PURGES.lock();
    {
        let registry = REGISTRY.lock();
        parked::empty(&registry, Age::Any, usize::MAX)?;
    }
    heap::spares();
    let mut resting = Resting::meet_all()?;
    let mut bytes = resting.purge(&goes_on);
    drop(resting);
    if goes_on() {
        bytes += large::decay(Age::Any);
        arena::decay(Age::Any);
        arena::unreserve();
    }
    // What became due on the way went without being asked for.
    Ok(bytes + arena::given_back().wrapping_sub(before))
}
