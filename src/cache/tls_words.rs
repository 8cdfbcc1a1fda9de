//! What a thread reaches its cache by, wherever the words stand: see `tls`.

use crate::config;
use crate::sync::AtomicPtr;

/// The words of one thread.
#[repr(C)]
pub(super) struct Words {
    /// The cache whose magazines the fast path uses: the thread's own, or [`EMPTY`]; always that in a
    /// process whose calls take the careful way.
    pub(super) hot: AtomicPtr<u8>,
    /// The thread's own cache; null before its first call, [`super::thread::EXITED`] after its end.
    pub(super) own: AtomicPtr<u8>,
    /// The cache whose magazines the careful way uses: the thread's own, or [`EMPTY`]; always that in a
    /// process whose calls take the fast path.
    pub(super) careful: AtomicPtr<u8>,
}

impl Words {
    /// The word that leads to the magazines in this process.
    pub(super) fn active(&self) -> &AtomicPtr<u8> {
        if config::mode().is_careful() {
            &self.careful
        } else {
            &self.hot
        }
    }
}

/// Magazines of capacity 0, in memory that nobody can write: what `hot` leads to when every call is
/// to take the slow path.
pub(super) static EMPTY: Empty = Empty([0; EMPTY_WORDS]);

const EMPTY_WORDS: usize = size_of::<super::ThreadCache>() / size_of::<usize>();

/// Zeros, as many and as aligned as in a cache.
#[repr(C, align(64))]
pub(super) struct Empty([usize; EMPTY_WORDS]);
