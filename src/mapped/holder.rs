//! A word that names the process which holds a lock, so that others can tell whether the holder lives.
//!
//! | from | to | by |
//! |---|---|---|
//! | 0, free | a process | who takes the lock, by compare-exchange |
//! | a process | 0 | that process, by compare-exchange: what somebody else wrote there stays |
//! | a process that is gone | another process | who finds that out, by compare-exchange of the very word that it saw |

use crate::sync::{AtomicU32, Ordering};

/// Bits of no process.
pub(super) const FREE: u32 = 0;

/// The word, and one that is 1 if somebody may sleep until the lock is let go.
#[derive(Clone, Copy)]
pub(super) struct Holder<'a> {
    pub(super) word: &'a AtomicU32,
    pub(super) sleepers: &'a AtomicU32,
}

impl Holder<'_> {
    /// Takes the lock from a process that is gone, or from nobody.
    pub(super) fn take(self, from: u32, own: u32) -> bool {
        // ORDERING: acquire: pairs with `release`. What a process that is gone left the kernel has ordered: its byte was locked
        // by who counted it out.
        let taken = self
            .word
            .compare_exchange(from, own, Ordering::Acquire, Ordering::Relaxed);
        taken.is_ok()
    }

    /// Who has the lock.
    pub(super) fn get(self) -> u32 {
        // ORDERING: a hint: `take` decides.
        self.word.load(Ordering::Relaxed)
    }

    /// Before a wait.
    pub(super) fn announce(self) {
        // ORDERING: a hint; a sleeper that is not woken wakes by itself.
        self.sleepers.store(1, Ordering::Relaxed);
    }

    /// Lets the lock go, if it is this process's, and has `wake` wake somebody, who says whether there was one.
    pub(super) fn release(self, own: u32, wake: impl FnOnce(&AtomicU32) -> bool) {
        // ORDERING: release: pairs with `take`.
        let _ = self
            .word
            .compare_exchange(own, FREE, Ordering::Release, Ordering::Relaxed);
        // ORDERING: hints, as in `announce`.
        if self.sleepers.load(Ordering::Relaxed) != 0 && !wake(self.word) {
            self.sleepers.store(0, Ordering::Relaxed);
        }
    }
}

/// Whether what a lock guards was left by a process that was gone. Written by who holds the lock.
pub(super) struct Left<'a>(pub(super) &'a AtomicU32);

impl Left<'_> {
    /// Before anything else, after the lock was taken from a process that is gone: whoever takes it from this one does the
    /// same.
    pub(super) fn mark(&self) {
        // ORDERING: the lock orders it, here and below.
        self.0.store(1, Ordering::Relaxed);
    }

    pub(super) fn is_marked(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use std::boxed::Box;

    struct Model {
        word: AtomicU32,
        sleepers: AtomicU32,
        left: AtomicU32,
        /// Set once process 1 is gone, as who counts it out does.
        gone: AtomicU32,
        value: UnsafeCell<u32>,
    }

    // SAFETY: 1. the model checks the accesses to the cell.
    unsafe impl Sync for Model {}

    fn model() -> &'static Model {
        Box::leak(Box::new(Model {
            word: AtomicU32::new(FREE),
            sleepers: AtomicU32::new(0),
            left: AtomicU32::new(0),
            gone: AtomicU32::new(0),
            value: UnsafeCell::new(0),
        }))
    }

    impl Model {
        fn holder(&self) -> Holder<'_> {
            Holder {
                word: &self.word,
                sleepers: &self.sleepers,
            }
        }

        fn add(&self) {
            // SAFETY: 1. the model checks the access.
            self.value.with_mut(|value| unsafe { *value += 1 });
        }

        /// Takes the lock, from process 1 once it is gone; whether that left the value.
        fn lock(&self, own: u32) -> bool {
            loop {
                if self.holder().take(FREE, own) {
                    break;
                }
                if self.gone.load(Ordering::Acquire) != 0 && self.holder().take(1, own) {
                    Left(&self.left).mark();
                    break;
                }
                loom::thread::yield_now();
            }
            Left(&self.left).is_marked()
        }

        fn unlock(&self, own: u32) {
            self.holder().release(own, |_| false);
        }
    }

    /// Proves: one at a time has the lock, and sees what the last one wrote. Fails with a relaxed exchange in `take` or in
    /// `release`.
    #[test]
    fn loom_one_at_a_time_has_the_lock() {
        loom::model(|| {
            let model = model();
            let other = loom::thread::spawn(move || {
                assert!(!model.lock(2));
                model.add();
                model.unlock(2);
            });
            assert!(!model.lock(3));
            model.add();
            model.unlock(3);
            other.join().unwrap();
            assert!(!model.lock(4));
            // SAFETY: 1. the model checks the access.
            assert_eq!(model.value.with(|value| unsafe { *value }), 2);
        });
    }

    /// Proves: of two that find the holder gone one takes the lock at a time; each is told that the value was left, until one
    /// says that it is fit. Fails when `take` takes whatever it finds, and when `mark` marks nothing.
    #[test]
    fn loom_what_the_dead_left_is_told() {
        loom::model(|| {
            let model = model();
            let dead = loom::thread::spawn(move || {
                assert!(model.holder().take(FREE, 1));
                model.add();
                model.gone.store(1, Ordering::Release);
            });
            dead.join().unwrap();
            let second = |own| {
                let was_left = model.lock(own);
                model.add();
                model.unlock(own);
                was_left
            };
            let other = loom::thread::spawn(move || second(2));
            assert!(second(3));
            assert!(other.join().unwrap());
            assert!(model.lock(4));
            Left(&model.left).clear();
            model.unlock(4);
            assert!(!model.lock(5));
            // SAFETY: 1. the model checks the access.
            assert_eq!(model.value.with(|value| unsafe { *value }), 3);
        });
    }
}
