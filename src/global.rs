//! `Flagstone`: the global allocator's face. Everything is decided below.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

use crate::cache;
use crate::config::Config;
use crate::error::Violation;
use crate::stats::Stats;

/// The allocator. Declare one as the program's:
///
/// ```
/// use flagstone::Flagstone;
///
/// #[global_allocator]
/// static ALLOCATOR: Flagstone = Flagstone::new();
///
/// let words: Vec<String> = vec!["slab".into(), "span".into()];
/// assert_eq!(words.len(), 2);
/// ```
///
/// Every value of this type is the same allocator: a block may be freed through any of them.
///
/// # Guarantees
///
/// Blocks are aligned as asked, as far as the address space holds out. Out of memory is a null
/// pointer, never an abort and never an unwinding. A wrong free that is noticed is one line on
/// standard error and `abort`.
#[derive(Debug)]
pub struct Flagstone {
    config: Config,
}

impl Flagstone {
    /// The allocator with default options.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            config: Config::new(),
        }
    }

    /// The allocator with these options. The first value that serves a call decides for the process.
    #[must_use]
    pub const fn with_config(config: Config) -> Self {
        Self { config }
    }

    /// Gives all memory back to the kernel that can be given back: free pages, also inside partly
    /// used slabs and under blocks that sleeping threads keep at hand, empty chunks, cached
    /// mappings. Returns the bytes given back.
    ///
    /// Any thread may call it. Other threads wait at their next call for a block until it ends. A
    /// thread that does not run pins the pages of at most one block of each size class to 32 KiB:
    /// together less than 1 MiB with pages of 4 KiB. Where the kernel lacks or forbids `membarrier`,
    /// a thread pins what lies in its magazines ([`Config::thread_cache`]).
    ///
    /// The bytes are those of the addresses that were given back; some may never have been touched.
    pub fn purge() -> usize {
        cache::purge()
    }

    /// What the allocator holds at the moment. Allocates nothing.
    #[must_use]
    pub fn stats() -> Stats {
        cache::stats()
    }

    /// Checks the allocator's own tables, every slab and span, under its locks: milliseconds for a
    /// small heap, seconds for a large one. For tests and for finding who corrupts memory.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold, which is a bug of the allocator or a stray write.
    pub fn verify() -> Result<(), Violation> {
        cache::verify()
    }
}

impl Default for Flagstone {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: 1. blocks do not overlap and are as long and aligned as asked (ALGORITHM.md, I1 and the
// proof in `size_class`). 2. nothing here unwinds: the fast paths cannot panic, the slow ones are
// `extern "C"`.
unsafe impl GlobalAlloc for Flagstone {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        cache::alloc(layout.size(), layout.align(), &self.config)
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: 1. `alloc` gave the block, so it is not null.
        let block = unsafe { NonNull::new_unchecked(block) };
        // SAFETY: 1. and 2. the caller's.
        unsafe { cache::free(block, layout.size(), layout.align(), &self.config) };
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        cache::alloc_zeroed(layout.size(), layout.align(), &self.config)
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: 1. `alloc` gave the block, so it is not null.
        let block = unsafe { NonNull::new_unchecked(block) };
        // SAFETY: 1. and 2. the caller's.
        unsafe { cache::realloc_rest(block, layout.size(), layout.align(), size, &self.config) }
    }
}
