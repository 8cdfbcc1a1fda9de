//! What a row is told.

use std::time::Duration;

/// Locks that the allocator took, and how many of them it had to wait for.
pub(crate) type Locks = fn() -> (usize, usize);

/// What rows of kind scale are told besides.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// What the row is to hold.
    pub(crate) bytes: usize,
    /// Time single calls, for the longest of them; no other figure is true then.
    pub(crate) calls: bool,
    /// End with a light life, for what stays resident.
    pub(crate) settle: bool,
}

impl Default for Extent {
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            calls: false,
            settle: false,
        }
    }
}

pub(crate) struct Setting {
    pub(crate) scale: f64,
    /// Run for minutes; rows without a long form ignore it.
    pub(crate) soak: bool,
    pub(crate) extent: Extent,
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
