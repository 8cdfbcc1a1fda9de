//! The word by which a thread that frees memory wakes the background thread.
//!
//! | value | means | who writes it |
//! |---|---|---|
//! | `OFF` | there is no background thread | a start that failed; a child of `fork` |
//! | `AWAKE` | the background thread looks again by itself | who starts it; who wakes it |
//! | `ASLEEP` | the next thread that frees memory wakes it | the background thread, before it looks for the last time |
#![cfg_attr(not(loom), forbid(unsafe_code))]

use crate::sync::{AtomicU32, Ordering};

const OFF: u32 = 0;
const AWAKE: u32 = 1;
const ASLEEP: u32 = 2;

/// The word.
#[derive(Debug)]
pub(crate) struct Wakeup(AtomicU32);

impl Wakeup {
    #[cfg(not(all(test, loom)))]
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(OFF))
    }

    /// Whether the caller is the one to start the background thread.
    pub(crate) fn begin(&self) -> bool {
        // ORDERING: only this word; nothing is published through it.
        self.0
            .compare_exchange(OFF, AWAKE, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// There is no background thread (any more).
    pub(crate) fn end(&self) {
        // ORDERING: as in `begin`.
        self.0.store(OFF, Ordering::Relaxed);
    }

    /// From here on who frees memory wakes it. Everything freed before is found by whoever then takes the locks
    /// under which it was freed: who frees under such a lock later sees this store.
    pub(crate) fn set(&self) {
        // ORDERING: the locks that the background thread takes next, and `wake`'s caller took before, order it.
        self.0.store(ASLEEP, Ordering::Relaxed);
    }

    /// Whether there is a background thread that looks by itself.
    pub(crate) fn is_awake(&self) -> bool {
        // ORDERING: as in `begin`.
        self.0.load(Ordering::Relaxed) == AWAKE
    }

    /// Whether the background thread sleeps.
    #[inline(always)]
    pub(crate) fn is_set(&self) -> bool {
        // ORDERING: see `set`.
        self.0.load(Ordering::Relaxed) == ASLEEP
    }

    /// Whether the caller is the one to wake the background thread. No lock under which it freed is held.
    pub(crate) fn wake(&self) -> bool {
        // ORDERING: as in `begin`.
        self.0
            .compare_exchange(ASLEEP, AWAKE, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Waits with `wait`, which returns now and then or once the word is another, until somebody wakes it.
    pub(crate) fn sleep(&self, wait: impl Fn(&AtomicU32, u32)) {
        while self.is_set() {
            wait(&self.0, ASLEEP);
        }
    }

    /// The word, for who wakes.
    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.0
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::{Arc, Mutex};

    /// Proves: what is freed beside a background thread that lies down is given back, or somebody wakes it. Fails if the
    /// background thread sets the word after its last look.
    #[test]
    fn loom_nothing_is_freed_unheard() {
        loom::model(|| {
            let wakeup = Arc::new(Wakeup(AtomicU32::new(AWAKE)));
            let dirty = Arc::new(Mutex::new(false));
            let threads: std::vec::Vec<_> = (0..2)
                .map(|_| {
                    let (wakeup, dirty) = (wakeup.clone(), dirty.clone());
                    loom::thread::spawn(move || {
                        *dirty.lock().unwrap() = true;
                        wakeup.is_set() && wakeup.wake()
                    })
                })
                .collect();
            wakeup.set();
            *dirty.lock().unwrap() = false;
            let rung = threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .filter(|rang| *rang)
                .count();
            assert!(rung <= 1, "one wakes");
            let is_left = *dirty.lock().unwrap();
            assert!(!is_left || rung == 1, "left, and nobody wakes it");
            assert_eq!(wakeup.is_set(), rung == 0);
        });
    }
}
