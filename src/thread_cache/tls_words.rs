//! What a thread reaches its cache by, wherever the words stand: see `tls`.

use core::ptr;

use crate::config;
use crate::sync::{AtomicPtr, Ordering};

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
