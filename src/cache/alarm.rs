//! The word by which a thread that frees memory wakes the helper.
//!
//! | value | means | who writes it |
//! |---|---|---|
//! | `OFF` | there is no helper | a start that failed; a child of `fork` |
//! | `AWAKE` | the helper looks again by itself | who starts it; who rings |
//! | `ASLEEP` | the next thread that frees memory rings | the helper, before it looks for the last time |
#![cfg_attr(not(loom), forbid(unsafe_code))]

use crate::sync::{AtomicU32, Ordering};

const OFF: u32 = 0;
const AWAKE: u32 = 1;
const ASLEEP: u32 = 2;

/// The word.
#[derive(Debug)]
pub(super) struct Alarm(AtomicU32);

impl Alarm {
    #[cfg(not(all(test, loom)))]
    pub(super) const fn new() -> Self {
        Self(AtomicU32::new(OFF))
    }

    /// Whether the caller is the one to start the helper.
    pub(super) fn begin(&self) -> bool {
        // ORDERING: only this word; nothing is published through it.
        self.0
            .compare_exchange(OFF, AWAKE, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// There is no helper (any more).
    pub(super) fn end(&self) {
        // ORDERING: as in `begin`.
        self.0.store(OFF, Ordering::Relaxed);
    }

    /// From here on who frees memory rings. Everything freed before is found by whoever then takes the locks
    /// under which it was freed: who frees under such a lock later sees this store.
    pub(super) fn set(&self) {
        // ORDERING: the locks that the helper takes next, and `ring`'s caller took before, order it.
        self.0.store(ASLEEP, Ordering::Relaxed);
    }

    /// Whether there is a helper that looks by itself.
    pub(super) fn is_awake(&self) -> bool {
        // ORDERING: as in `begin`.
        self.0.load(Ordering::Relaxed) == AWAKE
    }

    /// Whether the helper sleeps.
    #[inline(always)]
    pub(super) fn is_set(&self) -> bool {
        // ORDERING: see `set`.
        self.0.load(Ordering::Relaxed) == ASLEEP
    }

    /// Whether the caller is the one to wake the helper. No lock under which it freed is held.
    pub(super) fn ring(&self) -> bool {
        // ORDERING: as in `begin`.
        self.0
            .compare_exchange(ASLEEP, AWAKE, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Waits with `wait`, which returns now and then or once the word is another, until somebody rings.
    pub(super) fn sleep(&self, wait: impl Fn(&AtomicU32, u32)) {
        while self.is_set() {
            wait(&self.0, ASLEEP);
        }
    }

    /// The word, for who wakes.
    pub(super) fn word(&self) -> &AtomicU32 {
        &self.0
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::{Arc, Mutex};

    /// Proves: what is freed beside a helper that lies down is given back, or somebody rings. Fails if the
    /// helper sets the alarm after its last look.
    #[test]
    fn loom_nothing_is_freed_unheard() {
        loom::model(|| {
            let alarm = Arc::new(Alarm(AtomicU32::new(AWAKE)));
            let dirty = Arc::new(Mutex::new(false));
            let threads: std::vec::Vec<_> = (0..2)
                .map(|_| {
                    let (alarm, dirty) = (alarm.clone(), dirty.clone());
                    loom::thread::spawn(move || {
                        *dirty.lock().unwrap() = true;
                        alarm.is_set() && alarm.ring()
                    })
                })
                .collect();
            alarm.set();
            *dirty.lock().unwrap() = false;
            let rung = threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .filter(|rang| *rang)
                .count();
            assert!(rung <= 1, "one wakes");
            let is_left = *dirty.lock().unwrap();
            assert!(!is_left || rung == 1, "left, and nobody rang");
            assert_eq!(alarm.is_set(), rung == 0);
        });
    }
}
