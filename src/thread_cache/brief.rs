//! Brief work: what a thread does to its own cache without the gate, where a fast path would be too long
//! to inline.
//!
//! A thread that is held off is in no brief work, or is known to be:
//!
//! | | the owner | who holds it off |
//! |---|---|---|
//! | 1 | [`begin`](Brief::begin): notes that it is at work | writes `EMPTY` to the words, the gate held |
//! | 2 | looks at its word: `EMPTY` is the slow path, which waits at the gate | `os::process_barrier` |
//! | 3 | works | [`is_over`](Brief::is_over)? |
//! | 4 | [`end`](Brief::end) | if so, the cache is at rest until the gate is let go |
//!
//! The barrier meets the owner before its second step, which then finds `EMPTY`, or after it, and
//! then the first is seen. So the owner needs no barrier of its own, and nobody waits for it: one who
//! lost its processor at work costs what a purge would have taken from its cache. A child of a fork finds
//! the flag as it was: a thread that is gone may have been at work.
#![cfg_attr(not(loom), forbid(unsafe_code))]

use crate::sync::{AtomicU32, Ordering};

/// Whether a thread is at brief work. All zero is not.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Brief(AtomicU32);

impl Brief {
    /// Notes that the calling thread, whose flag it is, is at work from here on, if its word still
    /// leads to its cache.
    #[inline(always)]
    pub(super) fn begin(&self) {
        // ORDERING: before the look at the word, see above: to the processor by the other's barrier,
        // to the compiler by this fence.
        self.0.store(1, Ordering::Relaxed);
        fence_of_compiler();
    }

    /// What it did is done.
    #[inline(always)]
    pub(super) fn end(&self) {
        // ORDERING: pairs with the acquire in `is_over`: who sees it sees what was done.
        self.0.store(0, Ordering::Release);
    }

    /// Whether the thread is at no such work, and cannot be before its gate is let go. The caller holds
    /// that, has diverted the thread and run a barrier on every processor; or the thread is gone.
    pub(crate) fn is_over(&self) -> bool {
        // ORDERING: pairs with the release in `end`.
        self.0.load(Ordering::Acquire) == 0
    }

    /// The thread is gone, and the cache is going to be another's.
    pub(crate) fn forget(&self) {
        // ORDERING: who gets the cache does so under the registry's lock.
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(not(all(test, loom)))]
#[inline(always)]
fn fence_of_compiler() {
    core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
}

/// In the model, the barrier of `os::process_barrier` that meets the owner here.
#[cfg(all(test, loom))]
fn fence_of_compiler() {
    loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicBool, fence};
    use loom::sync::{Arc, Mutex};

    struct Thread {
        brief: Brief,
        is_hot: AtomicBool,
        gate: Mutex<()>,
        cache: UnsafeCell<u32>,
    }

    // SAFETY: 1. the model checks the accesses to the cell.
    unsafe impl Sync for Thread {}

    impl Thread {
        fn work(&self) {
            self.brief.begin();
            let is_hot = self.is_hot.load(Ordering::Relaxed);
            if is_hot {
                // SAFETY: 1. the model checks the access, here and below.
                self.cache.with_mut(|blocks| unsafe { *blocks += 1 });
            }
            self.brief.end();
            if !is_hot {
                let _held = self.gate.lock().unwrap();
                self.cache.with_mut(|blocks| unsafe { *blocks += 1 });
                self.is_hot.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Proves: who holds a thread off and finds no brief work under way has its cache alone, and sees what
    /// was done to it. Fails without the barrier on either side, when the owner looks at its word first, and with
    /// `Relaxed` in `end` or `is_over`.
    #[test]
    fn loom_a_cache_at_rest_is_nobodys() {
        loom::model(|| {
            let owner = Arc::new(Thread {
                brief: Brief(AtomicU32::new(0)),
                is_hot: AtomicBool::new(true),
                gate: Mutex::new(()),
                cache: UnsafeCell::new(0),
            });
            let other = owner.clone();
            let purger = loom::thread::spawn(move || {
                let _held = other.gate.lock().unwrap();
                other.is_hot.store(false, Ordering::Relaxed);
                fence(loom::sync::atomic::Ordering::SeqCst);
                if other.brief.is_over() {
                    // SAFETY: 1. as above.
                    other.cache.with_mut(|blocks| unsafe { *blocks = 0 });
                }
            });
            owner.work();
            owner.work();
            purger.join().unwrap();
        });
    }
}
