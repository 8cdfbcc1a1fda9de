//! The key whose destructor ends a thread's cache, which also says whether the process is initialised.

use crate::os::ThreadKey;
use crate::sync::{AtomicUsize, Ordering};

/// 0 until the process is initialised, then [`NO_KEY`], or the key whose destructor ends a thread's
/// cache plus [`FIRST_KEY`].
static KEY: AtomicUsize = AtomicUsize::new(0);

/// There is no key yet, or the program has used up all: threads are served without caches.
const NO_KEY: usize = 1;
const FIRST_KEY: usize = 2;

/// Whether the process is initialised.
pub(crate) fn is_ready() -> bool {
    // ORDERING: pairs with the release in `make_ready`.
    KEY.load(Ordering::Acquire) != 0
}

pub(crate) fn key() -> Option<ThreadKey> {
    // ORDERING: pairs with the release in `make_ready`.
    let bits = KEY.load(Ordering::Acquire).checked_sub(FIRST_KEY)?;
    Some(ThreadKey::from_bits(bits))
}

/// Says that the process is initialised, but for the key; whether nobody else has.
pub(super) fn set_ready() -> bool {
    // ORDERING: publishes what was done before to `is_ready`; who loses has published nothing.
    KEY.compare_exchange(0, NO_KEY, Ordering::Release, Ordering::Relaxed)
        .is_ok()
}

/// The process's key from here on.
pub(super) fn set(key: ThreadKey) {
    // ORDERING: publishes what was done before to `key`.
    KEY.store(key.to_bits() + FIRST_KEY, Ordering::Release);
}

/// Whether the process is initialised and has no key.
pub(super) fn is_missing() -> bool {
    // ORDERING: pairs with nothing: asked in a child of one thread.
    KEY.load(Ordering::Relaxed) == NO_KEY
}
