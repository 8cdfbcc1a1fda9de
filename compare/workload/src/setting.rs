//! What a row is told.

use std::time::Duration;

/// Locks that the allocator took, and how many of them it had to wait for.
pub(crate) type Locks = fn() -> (usize, usize);

pub(crate) struct Setting {
    pub(crate) scale: f64,
    /// Run for minutes; rows without a long form ignore it.
    pub(crate) soak: bool,
    /// Slices of a time row, for counts of instructions: it prints their operations, and nothing that
    /// differs from run to run.
    pub(crate) slices: Option<usize>,
    /// Makes the allocator return what memory it can.
    pub(crate) purge: fn(),
    pub(crate) locks: Option<Locks>,
}

impl Setting {
    /// How long a row lives on quietly after its work.
    pub(crate) fn settling(&self) -> Duration {
        Duration::from_millis(if self.scale < 1.0 { 500 } else { 1000 })
    }
}
