//! Counts that anyone may read, and who holds the arena's lock changes.
#![forbid(unsafe_code)]

use super::Locked;
use crate::sync::{GuardedU64, GuardedUsize};

pub(super) struct Counts {
    chunks: GuardedUsize,
    released: GuardedU64,
}

impl Counts {
    pub(super) const fn new() -> Self {
        Self {
            chunks: GuardedUsize::new(0),
            released: GuardedU64::new(0),
        }
    }

    /// Chunks that are there.
    pub(super) fn chunks(&self) -> usize {
        self.chunks.get()
    }

    pub(super) fn set_chunks(&self, _: &Locked, chunks: usize) {
        self.chunks.set(chunks);
    }

    /// Spans released since the process began.
    pub(super) fn released(&self) -> u64 {
        self.released.get()
    }

    pub(super) fn add_released(&self, _: &Locked) {
        self.released.set(self.released.get() + 1);
    }
}
