//! Tenants: what a first-class heap says of the blocks that it has cut into smaller ones, so that an address inside
//! leads to it. A table for each chunk that has such blocks; it stays with the chunk's descriptor.

use core::ptr;

use super::{meta, owner};
use crate::sync::{AtomicPtr, Link, Ordering};
use crate::units::CHUNK;

/// What may have a tenant is a multiple of so many bytes, at a multiple of them.
pub(crate) const GRANULE: usize = 2048;

/// Those of a chunk, by granule. All zero is none.
#[derive(Debug)]
pub(super) struct Tenants([AtomicPtr<u8>; CHUNK / GRANULE]);

/// The tenant at `address`; null if there is none. Lock-free.
#[inline]
pub(crate) fn tenant(address: usize) -> *mut u8 {
    let Some(tenants) = owner(address).and_then(|chunk| chunk.tenants.get()) else {
        return ptr::null_mut();
    };
    // ORDERING: of a live block the tenant is older than the block, which travels by its user; of what is none,
    // nothing is known.
    tenants.0[address % CHUNK / GRANULE].load(Ordering::Relaxed)
}

/// Sets the tenant of the `bytes` at `address`, which is the block of a slab; null for none. `false` without memory.
#[must_use]
pub(crate) fn set_tenant(address: usize, bytes: usize, tenant: *mut u8) -> bool {
    let Some(chunk) = owner(address) else {
        return false;
    };
    let Some(tenants) = chunk.tenants.get().or_else(|| begin(&chunk.tenants)) else {
        return false;
    };
    let first = address % CHUNK / GRANULE;
    for place in &tenants.0[first..first + bytes / GRANULE] {
        // ORDERING: before the first block leaves, or after the last came back; see `tenant`.
        place.store(tenant, Ordering::Relaxed);
    }
    true
}

/// Gives a chunk its table.
#[cold]
fn begin(place: &Link<Tenants>) -> Option<&'static Tenants> {
    let table = meta::alloc(size_of::<Tenants>())?;
    // SAFETY: 1. zeroed metadata of this size, aligned to a line, never freed; all zero is no tenant.
    let table: &'static Tenants = unsafe { table.cast().as_ref() };
    // Of two at once the second loses its table: addresses that were never touched.
    place.set_first(table);
    place.get()
}
