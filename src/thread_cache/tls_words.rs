//! What a thread reaches its cache by, wherever the words stand: see `tls`.

use core::ptr;
#[cfg(feature = "heaps")]
use core::ptr::NonNull;

use crate::config;
use crate::sync::{AtomicPtr, Ordering};
#[cfg(feature = "heaps")]
use crate::sync::{GuardedU64, GuardedUsize};

/// The words of one thread.
#[repr(C)]
pub(crate) struct Words {
    /// The cache whose magazines the fast path of an allocation uses: the thread's own, or [`EMPTY`];
    /// always that in a process that is hardened.
    pub(crate) alloc: AtomicPtr<u8>,
    /// The same for the fast path of a free. A word of its own, so that one of the two can be watched
    /// without the other.
    pub(crate) free: AtomicPtr<u8>,
    /// The thread's own cache; null before its first call, [`EXITED`] after its end.
    pub(crate) own: AtomicPtr<u8>,
    /// The cache whose magazines the hardened way uses: the thread's own, or [`EMPTY`]; always that in a
    /// process whose calls take the fast path.
    pub(crate) hardened: AtomicPtr<u8>,
    /// What the thread has of first-class heaps.
    #[cfg(feature = "heaps")]
    pub(crate) heaps: HeapWords,
}

/// Heaps whose parts a thread finds at once. A request has one, beside one or two that last.
#[cfg(feature = "heaps")]
const HEAPS_AT_HAND: usize = 8;

/// A thread's parts of first-class heaps, by the heap's number. All zero is none.
#[cfg(feature = "heaps")]
#[repr(C)]
pub(crate) struct HeapWords {
    parts: [(GuardedU64, AtomicPtr<u8>); HEAPS_AT_HAND],
    /// How many calls that asked for errors the thread is in.
    pub(crate) wants_errors: GuardedUsize,
    /// Bytes that a heap may hold beyond its limit, while the thread allocates in order to give back more.
    pub(crate) may_exceed: GuardedUsize,
}

#[cfg(feature = "heaps")]
impl HeapWords {
    #[cfg(any(miri, flagstone_portable))]
    pub(super) const fn new() -> Self {
        Self {
            parts: [const { (GuardedU64::new(0), AtomicPtr::new(ptr::null_mut())) }; HEAPS_AT_HAND],
            wants_errors: GuardedUsize::new(0),
            may_exceed: GuardedUsize::new(0),
        }
    }

    /// Where a heap's part is found at once, and where it is when another was wanted there since.
    fn at(&self, heap: u64, place: usize) -> &(GuardedU64, AtomicPtr<u8>) {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits alone")]
        &self.parts[(heap as usize % HEAPS_AT_HAND) ^ place]
    }

    /// The thread's part of the heap with this number, which is not 0, if it is at hand.
    #[inline(always)]
    pub(crate) fn part(&self, heap: u64) -> Option<NonNull<u8>> {
        self.part_at(heap, 0)
    }

    #[inline(always)]
    fn part_at(&self, heap: u64, place: usize) -> Option<NonNull<u8>> {
        let (number, part) = self.at(heap, place);
        if number.get() != heap {
            return None;
        }
        // ORDERING: this thread's own word, here and below.
        let part = part.load(Ordering::Relaxed);
        // SAFETY: 1. `keep` stored it before the number.
        Some(unsafe { NonNull::new_unchecked(part) })
    }

    /// Its part if it lies in the second place, from where it comes to the first.
    pub(crate) fn second(&self, heap: u64) -> Option<NonNull<u8>> {
        let part = self.part_at(heap, 1)?;
        self.keep(heap, part);
        Some(part)
    }

    /// Keeps the thread's part of a heap at hand; what was there goes to the second place.
    pub(crate) fn keep(&self, heap: u64, place: NonNull<u8>) {
        let (number, part) = self.at(heap, 0);
        let (other, second) = self.at(heap, 1);
        let (number_before, before) = (number.get(), part.load(Ordering::Relaxed));
        part.store(place.as_ptr(), Ordering::Relaxed);
        number.set(heap);
        second.store(before, Ordering::Relaxed);
        other.set(number_before);
    }

    /// Forgets all parts: others may have them from here on.
    pub(crate) fn forget(&self) {
        self.parts.iter().for_each(|(number, _)| number.set(0));
    }
}

impl Words {
    /// Has what this process reaches magazines by lead to a cache, or to [`EMPTY`].
    pub(crate) fn lead_to(&self, cache: *mut u8) {
        // ORDERING: the thread itself reads them; where another writes them, `os::process_barrier`
        // orders this before what that one reads next.
        if config::mode().is_hardened() {
            self.hardened.store(cache, Ordering::Relaxed);
        } else {
            self.alloc.store(cache, Ordering::Relaxed);
            self.free.store(cache, Ordering::Relaxed);
        }
    }
}

/// Magazines of capacity 0, in memory that nobody can write: what the words lead to when every call
/// is to take the slow path.
pub(crate) static EMPTY: Empty = Empty([0; EMPTY_WORDS]);

const EMPTY_WORDS: usize = size_of::<super::ThreadCache>() / size_of::<usize>();

/// Zeros, as many and as aligned as in a cache.
#[repr(C, align(64))]
pub(crate) struct Empty([usize; EMPTY_WORDS]);

/// What [`Words::own`] holds once a thread has ended: served without a cache from then on.
pub(crate) static EXITED: u8 = 0;

/// What [`Words::own`] holds while a thread registers or initialises the process, which may allocate.
pub(crate) static REGISTERING: u8 = 1;

/// Whether [`Words::own`] leads to no cache.
pub(crate) fn is_marker(own: *mut u8) -> bool {
    ptr::eq(own, &raw const EXITED) || ptr::eq(own, &raw const REGISTERING)
}
