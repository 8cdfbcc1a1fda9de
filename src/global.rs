//! `Flagstone`: the global allocator's face. Everything is decided below.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use crate::cache;
use crate::config::{self, Config};
use crate::error::{StartError, Violation};
use crate::hardening::{Hardening, MissingSafeguards};
use crate::reclaim;
use crate::stats::Stats;
use crate::threads;
use crate::valgrind;

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
    ///
    /// ```
    /// use flagstone::{Config, Flagstone};
    ///
    /// #[global_allocator]
    /// static ALLOCATOR: Flagstone =
    ///     Flagstone::with_config(Config::new().purge_delay_ms(100).thread_cache(1 << 20));
    ///
    /// let squares: Vec<u64> = (0..1000).map(|number| number * number).collect();
    /// assert_eq!(squares[999], 998_001);
    /// ```
    #[must_use]
    pub const fn with_config(config: Config) -> Self {
        Self { config }
    }

    /// Gives all memory back to the kernel that can be given back: free pages, also inside partly
    /// used slabs and under blocks that sleeping threads keep at hand, empty chunks, cached
    /// mappings. Returns the bytes given back.
    ///
    /// Any thread may call it. Other threads may wait at a call for a block, a fraction of a
    /// millisecond most often: they are held off in groups, and the heap is purged in slices. A
    /// thread that does not run pins the pages of at most one block of each size class to 32 KiB:
    /// together less than 1 MiB with pages of 4 KiB. Where the kernel lacks or forbids `membarrier`,
    /// a thread pins what lies in its magazines ([`Config::thread_cache`]).
    ///
    /// The bytes are those of the addresses that were given back; some may never have been touched.
    ///
    /// ```
    /// # use flagstone::Flagstone;
    /// # #[global_allocator]
    /// # static ALLOCATOR: Flagstone = Flagstone::new();
    /// let buffer = vec![1_u8; 4 << 20];
    /// drop(buffer);
    /// // The request was served, and the next may be long in coming.
    /// assert!(Flagstone::purge() >= 4 << 20);
    /// ```
    pub fn purge() -> usize {
        valgrind::quietly(reclaim::purge)
    }

    /// Starts the background thread for good, which gives memory back when the program has gone idle.
    ///
    /// The program is idle once no thread has freed or fetched a block for [`Config::purge_delay_ms`].
    /// The thread then [purges](Self::purge), about three times that delay after the last call, and
    /// sleeps until something is freed. While the program is busy, it looks once in a delay at what is
    /// due, and more seldom where that returns little. So a program that frees nothing pays nothing,
    /// and a busy one some wake-ups a second at most. A change of the delay counts from the next look on.
    ///
    /// Idempotent. Does not wait for a concurrent start, which may still fail.
    ///
    /// By default the thread starts by itself in programs of two threads or more that have memory worth
    /// returning, and ends when one of them is left ([`Config::background`],
    /// [`algorithm::purging`](crate::algorithm::purging)). One that was started by this function stays, so a
    /// program whose first thread calls `pthread_exit` does not end when its other threads have. It costs a
    /// stack of some pages and blocks all signals. A child of `fork` has none until it starts its own. A
    /// signal handler that forks does so beside another thread now
    /// ([`algorithm::fork`](crate::algorithm::fork)).
    ///
    /// ```
    /// use flagstone::Flagstone;
    ///
    /// #[global_allocator]
    /// static ALLOCATOR: Flagstone = Flagstone::new();
    ///
    /// fn main() -> Result<(), flagstone::StartError> {
    ///     ALLOCATOR.start_background()?;
    ///     // ...
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError`] if the system refuses the thread.
    pub fn start_background(&self) -> Result<(), StartError> {
        reclaim::start_background(&self.config)
    }

    /// Whether these safeguards are on. What the program set, the environment may have turned off; and where calls pass
    /// through to the system's allocator, there are none. If it is the first call of the process, it decides.
    ///
    /// ```
    /// use flagstone::{Config, Flagstone, Hardening, MissingSafeguards};
    ///
    /// const WANTED: Hardening = Hardening::CHECKS.union(Hardening::CANARIES);
    /// #[global_allocator]
    /// static ALLOCATOR: Flagstone = Flagstone::with_config(Config::new().hardening(WANTED));
    ///
    /// fn main() -> Result<(), MissingSafeguards> {
    ///     ALLOCATOR.require(WANTED)?;
    ///     // ...
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`MissingSafeguards`], with those that are not on.
    pub fn require(&self, safeguards: Hardening) -> Result<(), MissingSafeguards> {
        threads::begin(&self.config);
        MissingSafeguards::check(safeguards, config::mode().safeguards())
    }

    /// What the allocator holds at the moment; `None` where calls pass through to the system's allocator, which does not
    /// say, so never on Linux on x86-64 and aarch64. Allocates nothing. Walks all chunks and asks the
    /// kernel which of their pages are in memory; other threads wait meanwhile, at their next slow
    /// path for a block.
    ///
    /// ```
    /// # use flagstone::Flagstone;
    /// # #[global_allocator]
    /// # static ALLOCATOR: Flagstone = Flagstone::new();
    /// let buffer = vec![1_u8; 1 << 20];
    /// if let Some(stats) = Flagstone::stats() {
    ///     assert!(stats.live >= 1 << 20);
    /// }
    /// # drop(buffer);
    /// ```
    #[must_use]
    pub fn stats() -> Option<Stats> {
        Some(valgrind::quietly(reclaim::stats))
    }

    /// Checks the allocator's own tables, every slab and span, under its locks: milliseconds for a
    /// small heap, seconds for a large one. For tests and for finding who corrupts memory.
    ///
    /// ```
    /// # use flagstone::Flagstone;
    /// # #[global_allocator]
    /// # static ALLOCATOR: Flagstone = Flagstone::new();
    /// let words = vec![String::from("slab"); 100];
    /// if let Err(violation) = Flagstone::verify() {
    ///     panic!("the heap is corrupt: {violation}");
    /// }
    /// # drop(words);
    /// ```
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold, which is a bug of the allocator or a stray write.
    pub fn verify() -> Result<(), Violation> {
        valgrind::quietly(reclaim::verify)
    }
}

impl Flagstone {
    /// `realloc` by a new block in any case, as valgrind's own does: who keeps the old address is found.
    ///
    /// # Safety
    /// 1. The block is live and was allocated with this layout; the new size is not 0.
    /// 2. On success nobody uses the old block any more.
    #[cold]
    unsafe fn move_block(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(size, layout.align()) else {
            return ptr::null_mut();
        };
        // SAFETY: 1. the new layout's size is `size`, which is not 0.
        let target = unsafe { self.alloc(new) };
        if !target.is_null() {
            // SAFETY: 1. both are live and at least this long, and different.
            unsafe { target.copy_from_nonoverlapping(block, size.min(layout.size())) };
            // SAFETY: 1. the block is live and of this layout, our own first item. 2. the contents
            // were moved.
            unsafe { self.dealloc(block, layout) };
        }
        target
    }
}

impl Default for Flagstone {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: 1. blocks do not overlap and are as long and aligned as asked (docs/states.md, I1, and the
// proof in `size_class`). 2. nothing here unwinds: the fast paths cannot panic, the slow ones are
// `extern "C"`.
unsafe impl GlobalAlloc for Flagstone {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        valgrind::allocating(size, || cache::alloc::<true>(size, align, &self.config))
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: 1. `alloc` gave the block, so it is not null.
        let block = unsafe { NonNull::new_unchecked(block) };
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: 1. and 2. what `GlobalAlloc` asks of its caller: a live block of this layout, not
        // used again.
        valgrind::freeing(block, |block| unsafe {
            cache::free(block, size, align, &self.config);
        });
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        valgrind::allocating_zeroed(size, || {
            cache::alloc_zeroed::<true>(size, align, &self.config)
        })
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if valgrind::is_running() {
            // SAFETY: 1. and 2. what `GlobalAlloc` asks of its caller; the block moves in any case.
            return unsafe { self.move_block(block, layout, size) };
        }
        // SAFETY: 1. `alloc` gave the block, so it is not null.
        let block = unsafe { NonNull::new_unchecked(block) };
        // SAFETY: 1. and 2. what `GlobalAlloc` asks of its caller: a live block of this layout, and
        // no use of it after a success.
        unsafe { cache::realloc_slow(block, layout.size(), layout.align(), size, &self.config) }
    }
}
