//! Tenants: what a first-class heap says of the blocks that it has cut into smaller ones, so that an address inside
//! leads to it. A table for each chunk, behind what units keep; pages of it that nobody writes cost nothing.
#![forbid(unsafe_code)]

use core::ptr;

use super::owner;
use crate::sync::{AtomicPtr, Ordering};
use crate::units::{UNIT, UnitIndex};

/// What may have a tenant is a multiple of so many bytes, at a multiple of them.
pub(crate) const GRANULE: usize = 2048;

/// Those of a unit, by granule. All zero is none.
pub(super) type Tenants = [AtomicPtr<u8>; UNIT / GRANULE];

/// The tenant at `address`; null if there is none. Lock-free.
#[inline]
pub(crate) fn tenant(address: usize) -> *mut u8 {
    let Some(chunk) = owner(address) else {
        return ptr::null_mut();
    };
    let tenants = chunk.tenants(UnitIndex::of(address));
    // ORDERING: of a live block the tenant is older than the block, which travels by its user; of what is none,
    // nothing is known.
    tenants[address % UNIT / GRANULE].load(Ordering::Relaxed)
}

/// Sets the tenant of the `bytes` at `address`, which is the block of a slab and lies in one unit; null for none.
pub(crate) fn set_tenant(address: usize, bytes: usize, tenant: *mut u8) {
    let first = address % UNIT / GRANULE;
    if let Some(chunk) = owner(address) {
        for place in &chunk.tenants(UnitIndex::of(address))[first..first + bytes / GRANULE] {
            // ORDERING: before the first block leaves, or after the last came back; see `tenant`.
            place.store(tenant, Ordering::Relaxed);
        }
    }
}
