//! What there is on this system: here all.
#![forbid(unsafe_code)]

/// Whether calls are served by the allocator of this crate.
pub(crate) const ENGINE: bool = true;
