//! What there is on this system: nothing but its own allocator.
#![forbid(unsafe_code)]

/// Whether calls are served by the allocator of this crate.
pub(crate) const ENGINE: bool = false;
