//! First-class heaps over the system's allocator: a list of blocks under a lock, counted, limited and dropped as one.
//!
//! Options, errors and statistics are those of `first_class`, and so is what the calls promise, but for speed: each call
//! takes the heap's lock, and the end of a heap takes time for each block.
//!
//! Each file names only those before it: `wanted`, `name`, `blocks` (the list), `options`; last `allocator` and
//! `by_address`.

mod allocator;
mod blocks;
mod by_address;
#[path = "../../first_class/name.rs"]
mod name;
#[path = "../../first_class/options.rs"]
mod options;
#[path = "../../first_class/wanted.rs"]
mod wanted;

use core::alloc::Layout;
use core::cell::Cell;
use core::fmt;
use core::ptr::NonNull;

use super::std::sync::{Mutex, MutexGuard, PoisonError};
use super::std::thread_local;
use crate::config::Attributes;
use crate::error::Violation;

pub use options::{HeapError, HeapOptions, HeapStats};

use blocks::{Blocks, Zeroed};
use name::Name;
use wanted::{Refused, Wanted};

/// The least limit, in bytes: where the engine is, an empty heap holds so much. What is refused there is refused here.
const LEAST_LIMIT: usize = 4096;

thread_local! {
    /// How many calls of [`Heap::fallibly`] the thread is in.
    static WANTS_ERRORS: Cell<usize> = const { Cell::new(0) };
}

/// Memory of one request, tenant, document or index: counted, limited and dropped as one. On this system its blocks are
/// the system's allocator's.
///
/// `&Heap` is an allocator for the collections of `allocator-api2`, of `hashbrown`, and of whatever else takes its
/// [`Allocator`](allocator_api2::alloc::Allocator). They borrow the heap, so the compiler sees to it that no block
/// outlives it. Any thread may allocate and free, one at a time.
///
/// ```
/// use flagstone::Heap;
/// use flagstone::allocator_api2::{boxed::Box, vec::Vec};
///
/// let heap = Heap::new()?;
/// let mut words = Vec::new_in(&heap);
/// words.push(Box::new_in("slab", &heap));
/// assert_eq!(*words[0], "slab");
/// drop(words);
/// // All that is left goes back at once.
/// drop(heap);
/// # Ok::<(), flagstone::HeapError>(())
/// ```
///
/// A block counts for as many bytes as were asked for ([`HeapStats::live`]), and for some words in front of it
/// ([`HeapStats::held`], which the limit bounds). An empty heap holds nothing. Dropping a heap takes time for each block
/// that is left, and runs no destructor.
#[doc(alias("arena", "region", "zone", "pool", "bump"))]
pub struct Heap {
    blocks: Mutex<Blocks>,
    name: Name,
    panics: bool,
}

impl Heap {
    /// A heap without a name or a limit.
    ///
    /// # Errors
    ///
    /// None on this system.
    pub fn new() -> Result<Self, HeapError> {
        HeapOptions::new().create()
    }

    /// Options for a heap that has a name or a limit. Huge pages are a wish that nobody hears here; memory of any other
    /// kind is [`HeapError::Unsupported`].
    pub const fn options<'a>() -> HeapOptions<'a> {
        HeapOptions::new()
    }

    fn create(wanted: Wanted<'_>) -> Result<Self, Refused> {
        let granted = Attributes {
            huge_pages: wanted.attributes.huge_pages,
            ..Attributes::NONE
        };
        if wanted.attributes != granted {
            return Err(Refused::Unsupported);
        }
        if wanted.limit < LEAST_LIMIT {
            return Err(Refused::Limit);
        }
        Ok(Self {
            blocks: Mutex::new(Blocks::new(wanted.limit)),
            name: Name::new(wanted.name),
            panics: wanted.panics,
        })
    }

    /// Nothing panics under the lock.
    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blocks_alone(&mut self) -> &mut Blocks {
        self.blocks
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The heap's name; empty if it has none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The most bytes that the heap may hold.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        Some(self.blocks().limit).filter(|limit| *limit != usize::MAX)
    }

    /// Changes what the heap may hold, in bytes; `None` is no limit. Less than it holds already is no error: it is
    /// refused more until it holds less.
    pub fn set_limit(&self, bytes: Option<usize>) {
        self.blocks().limit = bytes.unwrap_or(usize::MAX);
    }

    /// What the heap holds.
    #[must_use]
    pub fn stats(&self) -> HeapStats {
        let blocks = self.blocks();
        HeapStats {
            live: blocks.live,
            blocks: blocks.count,
            held: blocks.held,
            peak: blocks.peak,
            refused: blocks.refused,
        }
    }

    /// Gives all blocks back at once: the heap is as it was made, with the same name and limit. Nothing can be in use,
    /// as the heap is borrowed alone; what was forgotten in it is gone.
    pub fn reset(&mut self) {
        // SAFETY: 1. the heap is borrowed alone, and its blocks are used by who borrows it.
        unsafe { self.blocks_alone().clear() };
    }

    /// Gives nothing back, as what is free is the system's already: 0 bytes.
    pub fn purge(&self) -> usize {
        0
    }

    /// Checks the heap's list and counts: for tests, and for finding who corrupts memory.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold, which is a bug of the allocator or a stray write.
    pub fn verify(&mut self) -> Result<(), Violation> {
        match self.blocks_alone().wrong() {
            None => Ok(()),
            Some((invariant, address)) => Err(Violation { invariant, address }),
        }
    }

    /// Runs `work`, in which refused allocations of this thread are errors, in heaps that [panic](HeapOptions::panics)
    /// too: for `try_reserve` and the like.
    pub fn fallibly<R>(work: impl FnOnce() -> R) -> R {
        struct Depth;
        impl Drop for Depth {
            fn drop(&mut self) {
                WANTS_ERRORS.with(|depth| depth.set(depth.get() - 1));
            }
        }
        WANTS_ERRORS.with(|depth| depth.set(depth.get() + 1));
        let _depth = Depth;
        work()
    }

    /// A block of this layout.
    fn alloc(&self, layout: Layout, wanted: Zeroed) -> Result<NonNull<u8>, Refused> {
        let found = self.blocks().alloc(layout, wanted);
        found.inspect_err(|refused| self.refuse(*refused, layout.size()))
    }

    /// Changes the size of a block, which keeps its alignment, in place or by moving it. An error leaves it as it was.
    ///
    /// # Safety
    /// 1. The block is live and of this heap.
    /// 2. On success nobody uses the old block any more.
    unsafe fn resize(&self, block: NonNull<u8>, size: usize) -> Result<NonNull<u8>, Refused> {
        let mut blocks = self.blocks();
        // SAFETY: 1. our own.
        let is_longer = size > unsafe { blocks.layout(block) }.size();
        // SAFETY: 1. and 2. our own.
        let resized = unsafe { blocks.resize(block, size) };
        drop(blocks);
        // Who is refused a shorter block keeps the longer one.
        resized.inspect_err(|refused| {
            if is_longer {
                self.refuse(*refused, size);
            }
        })
    }

    /// Counts it, and panics, if that is what the heap does and nobody wants errors.
    fn refuse(&self, refused: Refused, size: usize) {
        let (held, limit) = {
            let mut blocks = self.blocks();
            blocks.refused += 1;
            (blocks.held, blocks.limit)
        };
        if self.panics && WANTS_ERRORS.with(Cell::get) == 0 {
            let name = self.name();
            panic!("heap {name:?}: {refused}: {size} bytes wanted, {held} held, limit {limit}");
        }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: 1. the heap's blocks are used by who borrows it, which nobody does.
        unsafe { self.blocks_alone().clear() };
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Heap")
            .field("name", &self.name())
            .field("limit", &self.limit())
            .field("stats", &self.stats())
            .finish()
    }
}
