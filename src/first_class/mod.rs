//! First-class heaps: memory that a program counts, limits and drops as one.
//!
//! A heap takes blocks of the engine and cuts them into its own: *sub-slabs* of 2 to 32 KiB. What a thread keeps of a
//! heap, its *part*, lies in the heap, and so does everything else but a thread's words, which remember the parts of
//! some heaps by the heap's number. No two heaps have had the same number, so a heap is dropped without a look at any
//! thread: its memory goes back, and what threads remember leads nowhere.
//!
//! ```text
//! allocate: part = the thread's, by the heap's number           deallocate: the same
//!           entry = the part's of the class                                 the same
//!           a block of its magazine, else the lowest bit of a word          push it to the magazine
//! ```
//!
//! Each file names only those before it: `wanted`, `engine`, `carve` (memory with attributes), `store` (which of the two),
//! `class`, `returned` (what other threads freed), `sub_slab`, `memory` (the limit), `direct` (the table of long
//! blocks), `owner`, `entry` (what a part has of a class), `part`, `magazines` (how blocks leave them), `ownerless`,
//! `name`, `shared` (what the heap's threads share), `long` (long blocks), `whole` (its beginning and end), `purge`,
//! `options`; last `allocator` and `by_address`.

mod allocator;
mod by_address;
mod carve;
mod class;
mod direct;
mod engine;
mod entry;
mod long;
mod magazines;
mod memory;
mod name;
mod options;
mod owner;
mod ownerless;
mod part;
mod purge;
mod returned;
mod shared;
mod store;
mod sub_slab;
mod wanted;
mod whole;

use core::fmt;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::ptr::{self, NonNull};

use crate::arena::Zeroed;
use crate::error::Violation;
use crate::sync::{AtomicU64, Ordering};
use crate::thread_cache::tls;

#[cfg(all(feature = "mapped", not(any(miri, flagstone_portable))))]
pub(crate) use engine::CONFIG;
pub use options::{HeapError, HeapOptions, HeapStats};
#[cfg(all(feature = "mapped", not(any(miri, flagstone_portable))))]
pub(crate) use owner::Owner;

use class::Class;
use part::Part;
use shared::Shared;
use wanted::{Refused, Wanted};

/// What a heap holds from which on a thread has a part for its frees alone: some parts' worth.
const WORTH_A_PART: usize = 64 << 10;

/// What a heap may hold beyond its limit so that a block can become shorter: the longest sub-slab, and pages beside it.
const BEYOND: usize = 64 << 10;

/// The numbers that heaps had.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

fn next_number() -> u64 {
    // ORDERING: a number.
    NUMBERS.fetch_add(1, Ordering::Relaxed) + 1
}

/// Memory of one request, tenant, document or index: counted, limited and dropped as one.
///
/// `&Heap` is an allocator for the collections of `allocator-api2`, of `hashbrown`, and of whatever else takes its
/// [`Allocator`](allocator_api2::alloc::Allocator). They borrow the heap, so the compiler sees to it that no block
/// outlives it. Any thread may allocate and free.
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
/// What is free in a living thread's part is that thread's: for each class that it used up to 32 KiB, and the sub-slabs
/// that some blocks pin which it freed last. So is what others free of its blocks, until it allocates again. A limit
/// should leave room for that, for each thread at work in the heap.
///
/// A heap need not be the program's global allocator's: it works beside any. An empty one holds 4 KiB. Dropping it takes
/// time for each 2 to 32 KiB of blocks that are left in it, not for each block, and runs no destructor: what lies in a
/// forgotten collection is forgotten.
///
/// # When to take one
///
/// * For memory that ends together, with blocks that come and go meanwhile, by several threads, or that is to be
///   counted or limited: a heap.
/// * For memory that ends together and is only added to, by one thread: an arena crate, such as `bumpalo`, which is
///   faster and denser.
/// * For anything else: the global allocator. A heap of many short blocks of many sizes holds more memory, as blocks
///   of different heaps share no page.
///
/// # Blocks that outlive their heap
///
/// do not compile:
///
/// ```compile_fail,E0505
/// use flagstone::Heap;
/// use flagstone::allocator_api2::vec::Vec;
///
/// let heap = Heap::new().unwrap();
/// let numbers: Vec<u8, _> = Vec::with_capacity_in(1, &heap);
/// drop(heap);
/// drop(numbers);
/// ```
#[doc(alias("arena", "region", "zone", "pool", "bump", "mi_heap"))]
pub struct Heap {
    shared: NonNull<Shared>,
    /// A number that no other heap has, and this one not before its last reset. Here it is a load less for each call.
    number: u64,
}

// SAFETY: 1. what it leads to is `Sync`: a thread's part is reached by its own words, all else is atomic or locked.
unsafe impl Send for Heap {}
// SAFETY: 1. as above.
unsafe impl Sync for Heap {}

// A panic in the midst of a collection's call leaves the heap whole: it is raised when nothing is under way.
impl RefUnwindSafe for Heap {}
impl UnwindSafe for Heap {}

impl Heap {
    /// A heap without a name or a limit.
    ///
    /// # Errors
    ///
    /// [`HeapError::NoMemory`] if there is no memory for the 4 KiB that it begins with.
    pub fn new() -> Result<Self, HeapError> {
        HeapOptions::new().create()
    }

    /// Options for a heap that has a name or a limit.
    pub const fn options<'a>() -> HeapOptions<'a> {
        HeapOptions::new()
    }

    fn create(wanted: Wanted<'_>) -> Result<Self, Refused> {
        let shared = Shared::create(wanted)?;
        let number = next_number();
        Ok(Self { shared, number })
    }

    #[inline(always)]
    fn shared(&self) -> &Shared {
        // SAFETY: 1. it is there until the heap is dropped.
        unsafe { self.shared.as_ref() }
    }

    /// The heap's name; empty if it has none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared().name.as_str()
    }

    /// The most bytes that the heap may hold.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        Some(self.shared().memory.limit()).filter(|limit| *limit != usize::MAX)
    }

    /// Changes what the heap may hold, in bytes; `None` is no limit. Less than it holds already is no error: it is
    /// refused more until it holds less.
    pub fn set_limit(&self, bytes: Option<usize>) {
        self.shared().memory.set_limit(bytes.unwrap_or(usize::MAX));
    }

    /// What the heap holds. Takes time for each thread that has used it, not for blocks.
    #[must_use]
    pub fn stats(&self) -> HeapStats {
        let shared = self.shared();
        let [blocks, live] = shared.live();
        HeapStats {
            live,
            blocks,
            held: shared.memory.held(),
            peak: shared.memory.peak(),
            // ORDERING: a count.
            refused: shared.refused.load(Ordering::Relaxed),
        }
    }

    /// Gives all blocks back at once: the heap is as it was made, with the same name and limit. Nothing can be in use,
    /// as the heap is borrowed alone; what was forgotten in it is gone.
    ///
    /// ```
    /// use flagstone::Heap;
    /// use flagstone::allocator_api2::vec::Vec;
    ///
    /// let mut heap = Heap::new()?;
    /// for request in 0..100_u64 {
    ///     let mut numbers = Vec::new_in(&heap);
    ///     numbers.extend(0..request);
    ///     core::mem::forget(numbers); // no time for destructors
    ///     heap.reset();
    /// }
    /// assert_eq!(heap.stats().blocks, 0);
    /// # Ok::<(), flagstone::HeapError>(())
    /// ```
    pub fn reset(&mut self) {
        // SAFETY: 1. the heap is borrowed alone, and its blocks are used by who borrows it.
        unsafe { self.shared().reset() };
        self.number = next_number();
    }

    /// Gives back what is free, as far as the calling thread may: its own, and what threads left that ended. Sub-slabs
    /// without a block go to the allocator, which [`Flagstone::purge`](crate::Flagstone::purge) has give its own to the
    /// kernel; free pages in others go to the kernel at once. How many bytes that were, in all. Takes time for all
    /// sub-slabs that have free blocks.
    ///
    /// ```
    /// use flagstone::{Flagstone, Heap};
    /// use flagstone::allocator_api2::boxed::Box;
    ///
    /// let heap = Heap::new()?;
    /// let pages: Vec<_> = (0..1_000).map(|_| Box::new_in([0_u8; 4096], &heap)).collect();
    /// // One in four stays.
    /// let kept: Vec<_> = pages.into_iter().step_by(4).collect();
    /// assert!(heap.purge() > 1_000_000);
    /// Flagstone::purge();
    /// assert_eq!(kept.len(), 250);
    /// # Ok::<(), flagstone::HeapError>(())
    /// ```
    pub fn purge(&self) -> usize {
        let shared = self.shared();
        shared
            .part(self.number)
            .map_or(0, |part| shared.purge(part))
    }

    /// Checks the heap's bitmaps and counts: for tests, and for finding who corrupts memory.
    ///
    /// # Errors
    ///
    /// The first invariant that does not hold, which is a bug of the allocator or a stray write.
    pub fn verify(&mut self) -> Result<(), Violation> {
        self.shared().verify()
    }

    /// Runs `work`, in which refused allocations of this thread are errors, in heaps that [panic](HeapOptions::panics)
    /// too: for `try_reserve` and the like.
    ///
    /// ```
    /// use flagstone::Heap;
    /// use flagstone::allocator_api2::vec::Vec;
    ///
    /// let heap = Heap::options().limit(64 << 10).panics(true).create()?;
    /// let mut bytes: Vec<u8, _> = Vec::new_in(&heap);
    /// assert!(Heap::fallibly(|| bytes.try_reserve(1 << 20)).is_err());
    /// # Ok::<(), flagstone::HeapError>(())
    /// ```
    pub fn fallibly<R>(work: impl FnOnce() -> R) -> R {
        struct Depth;
        impl Drop for Depth {
            fn drop(&mut self) {
                let depth = &tls::words().heaps.wants_errors;
                depth.set(depth.get() - 1);
            }
        }
        let depth = &tls::words().heaps.wants_errors;
        depth.set(depth.get() + 1);
        let _depth = Depth;
        work()
    }

    /// A block in the place of one that is longer and about to be freed: if the limit forbids it, beyond that, by what a
    /// sub-slab may take. `None` if the longer one will do instead.
    fn alloc_shorter(&self, size: usize, align: usize) -> Result<Option<NonNull<[u8]>>, Refused> {
        struct Allowance;
        impl Drop for Allowance {
            fn drop(&mut self) {
                tls::words().heaps.may_exceed.set(0);
            }
        }
        let found = self.try_to_alloc(size, align, Zeroed::No).or_else(|_| {
            let _allowance = Allowance;
            tls::words().heaps.may_exceed.set(BEYOND);
            self.try_to_alloc(size, align, Zeroed::No)
        });
        match found {
            Ok(block) => Ok(Some(block)),
            // What is short is freed as the block of a sub-slab.
            Err(_) if Class::of(size, align).is_none() => Ok(None),
            Err(refused) => {
                self.refuse(refused, size);
                Err(refused)
            }
        }
    }

    /// A block of at least `size` bytes, and how many there are.
    #[inline(always)]
    fn alloc(&self, size: usize, align: usize) -> Result<NonNull<[u8]>, Refused> {
        if let Some(class) = Class::of(size, align)
            && let Some(part) = self.shared().part_at_hand(self.number)
        {
            let block = match part.take(class) {
                Some(block) => block,
                None => self.refill(part, class)?,
            };
            return Ok(NonNull::slice_from_raw_parts(block, class.size()));
        }
        self.alloc_slow(size, align, Zeroed::No)
    }

    #[cold]
    #[inline(never)]
    fn refill(&self, part: &Part, class: Class) -> Result<NonNull<u8>, Refused> {
        let found = self.shared().refill(part, class);
        found.inspect_err(|refused| self.refuse(*refused, class.size()))
    }

    /// The same, by another way than what is at hand; zeroed if so wanted.
    #[cold]
    #[inline(never)]
    fn alloc_slow(
        &self,
        size: usize,
        align: usize,
        wanted: Zeroed,
    ) -> Result<NonNull<[u8]>, Refused> {
        self.try_to_alloc(size, align, wanted)
            .inspect_err(|refused| self.refuse(*refused, size))
    }

    fn try_to_alloc(
        &self,
        size: usize,
        align: usize,
        wanted: Zeroed,
    ) -> Result<NonNull<[u8]>, Refused> {
        let shared = self.shared();
        if size == 0 {
            // No bytes are no block.
            let place = NonNull::new(ptr::without_provenance_mut(align));
            return Ok(NonNull::slice_from_raw_parts(
                place.unwrap_or(NonNull::dangling()),
                0,
            ));
        }
        if let Some(class) = Class::of(size, align)
            && let Some(part) = shared.part(self.number)
        {
            let block = match part.take(class) {
                Some(block) => block,
                None => shared.refill(part, class)?,
            };
            if wanted == Zeroed::Yes {
                // SAFETY: 1. a fresh block of at least `size` bytes.
                unsafe { block.write_bytes(0, size) };
            }
            return Ok(NonNull::slice_from_raw_parts(block, class.size()));
        }
        // Without a part: who frees a short block may keep it for its class, so it is as long as those are.
        // For any layout of the class: as aligned as its blocks.
        let short = Class::of(size, align).filter(|_| shared.memory.store.cuts());
        let (size, align) = short.map_or((size, align), |class| {
            let size = class.size();
            (size, 1 << size.trailing_zeros())
        });
        shared.alloc_direct(size, align, wanted).or_else(|refused| {
            // What is free but kept may make room.
            let part = shared.part(self.number).ok_or(refused)?;
            shared.tidy(part, None);
            shared.alloc_direct(size, align, wanted)
        })
    }

    /// Panics, if that is what the heap does and nobody wants errors.
    fn refuse(&self, refused: Refused, size: usize) {
        let shared = self.shared();
        // ORDERING: a count.
        shared.refused.fetch_add(1, Ordering::Relaxed);
        if shared.panics() && tls::words().heaps.wants_errors.get() == 0 {
            let (name, held) = (self.name(), shared.memory.held());
            let limit = shared.memory.limit();
            panic!("heap {name:?}: {refused}: {size} bytes wanted, {held} held, limit {limit}");
        }
    }

    /// # Safety
    /// 1. The block is live, and of this heap. If its layout is told, it is one that fits it.
    /// 2. Nobody uses it any more.
    #[inline(always)]
    unsafe fn free(&self, block: NonNull<u8>, size: usize, align: usize) {
        if let Some(class) = Class::of(size, align)
            && let Some(part) = self.shared().part_at_hand(self.number)
        {
            return self.free_with(part, class, block);
        }
        self.free_slow(block, size, align);
    }

    /// The thread's part. One that frees and never allocates has one, too, if that is little beside what the heap holds.
    fn part_to_free(&self) -> Option<&Part> {
        let shared = self.shared();
        if shared.memory.held() > WORTH_A_PART {
            shared.part(self.number)
        } else {
            shared.part_remembered(self.number)
        }
    }

    #[inline(always)]
    fn free_with(&self, part: &Part, class: Class, block: NonNull<u8>) {
        if !part.push(class, block) {
            self.make_room(part, class, block);
        }
    }

    #[inline(never)]
    fn make_room(&self, part: &Part, class: Class, block: NonNull<u8>) {
        self.shared().make_room(part, class, block);
    }

    #[cold]
    #[inline(never)]
    fn free_slow(&self, block: NonNull<u8>, size: usize, align: usize) {
        if size == 0 {
            return;
        }
        let shared = self.shared();
        if let Some(class) = Class::of(size, align)
            && let Some(part) = self.part_to_free()
        {
            return self.free_with(part, class, block);
        }
        shared.free(block, Some((size, align)));
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: 1. the heap's blocks are used by who borrows it, which nobody does.
        unsafe { Shared::end(self.shared) };
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
