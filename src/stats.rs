//! What the allocator holds, in bytes.
#![forbid(unsafe_code)]

/// A snapshot by [`crate::Flagstone::stats`], in bytes.
///
/// Exact while no other thread is inside the allocator. Otherwise each thread that is may add an
/// error of one block for every operation it ends during the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Handed out and not freed, counted in whole blocks, spans and mappings.
    pub live: usize,
    /// Free blocks in the magazines of threads.
    pub cached: usize,
    /// Readable and writable for blocks, free ones included.
    pub committed: usize,
    /// Of the committed bytes, those in memory.
    pub resident: usize,
    /// In memory for the allocator's own tables.
    pub metadata: usize,
}
