//! What the allocator holds, in bytes.
#![forbid(unsafe_code)]

/// A snapshot by [`crate::Flagstone::stats`], in bytes.
///
/// Exact while no other thread calls the allocator. Otherwise off by what other threads allocate and
/// free during the call. They wait meanwhile if they need a block that their caches do not hold.
///
/// ```
/// use flagstone::Flagstone;
///
/// if let Some(stats) = Flagstone::stats() {
///     println!("{} live, {} resident", stats.live, stats.resident);
///     assert!(stats.live <= stats.committed);
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Handed out and not freed, counted in whole blocks, spans and mappings, sampled ones in pages.
    pub live: usize,
    /// Free blocks in the magazines of threads.
    pub cached: usize,
    /// Readable and writable for blocks, free ones included.
    pub committed: usize,
    /// Of the committed bytes, those in memory.
    pub resident: usize,
    /// In memory for the allocator's own tables, without its statics: 560 KiB of zeros at most, of
    /// which a page or two is touched.
    pub metadata: usize,
}
