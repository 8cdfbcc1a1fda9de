//! The word of a lock: who holds it, and how others wait.
//!
//! A holder is named by a [`Token`], not by its thread. A thread does not vanish while it holds a
//! lock; what it belongs to may: a `fork` leaves all threads but one behind, and a process that
//! shares memory with others can be killed. So the token is that of the process, in its present
//! generation: a lock whose token is another one's was left behind, and whoever repairs what it
//! guards may break it.
//!
//! | `holder` | means | who writes it |
//! |---|---|---|
//! | 0 | free | the holder; who breaks it |
//! | a token | held | who takes it, by compare-exchange from 0 |
//!
//! | `sleepers` | means | who writes it |
//! |---|---|---|
//! | 0 | nobody need be woken | the holder, just before it wakes one |
//! | 1 | someone may sleep | who is about to sleep; it stays so when that one gets the lock, as others may sleep |
//!
//! A release is a store and a load: no read-modify-write. So it may miss a waiter that has just
//! declared itself, whose store it does not see yet. That waiter then sleeps until the lock is
//! released again, or for as long as it said: all sleeps are timed. They have to be, as the dead
//! wake nobody.
#![cfg_attr(not(loom), forbid(unsafe_code))]

use core::num::NonZeroU32;

use crate::sync::{AtomicU32, Ordering};

/// Nobody holds it.
const FREE: u32 = 0;

/// Names a holder that may vanish as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) NonZeroU32);

impl Token {
    pub(crate) const fn number(self) -> u32 {
        self.0.get()
    }
}

/// Who holds a lock, and whether others sleep. All zero is free.
#[derive(Debug)]
pub(crate) struct LockWord {
    holder: AtomicU32,
    sleepers: AtomicU32,
}

impl LockWord {
    #[cfg(not(all(test, loom)))]
    pub(crate) const fn new() -> Self {
        Self {
            holder: AtomicU32::new(FREE),
            sleepers: AtomicU32::new(0),
        }
    }

    /// Takes it if it is free.
    #[inline(always)]
    pub(crate) fn try_take(&self, token: Token) -> bool {
        // ORDERING: pairs with the release in `release` and `break_unless`: what the last holder
        // did is visible.
        self.holder
            .compare_exchange(FREE, token.number(), Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    #[inline(always)]
    pub(crate) fn is_held(&self) -> bool {
        // ORDERING: a hint; who acts on it takes the lock.
        self.holder.load(Ordering::Relaxed) != FREE
    }

    /// Lets it go. The caller holds it, and wakes one that sleeps by what [`to_wake`](Self::to_wake) tells if this
    /// returns `true`.
    #[inline(always)]
    #[must_use]
    pub(crate) fn release(&self) -> bool {
        // ORDERING: publishes what was done under the lock to the next `try_take`.
        self.holder.store(FREE, Ordering::Release);
        // ORDERING: may miss a waiter, see above.
        self.sleepers.load(Ordering::Relaxed) != 0
    }

    /// The word that one is to be woken by.
    pub(crate) fn to_wake(&self) -> &AtomicU32 {
        // ORDERING: as in `release`. Who is woken declares itself, and with itself the others, anew.
        self.sleepers.store(0, Ordering::Relaxed);
        &self.holder
    }

    /// Waits until it is taken: by `sleep(word, value)`, which returns once the word is not `value`
    /// or the holder has woken someone, and after some time in any case.
    pub(crate) fn take_sleeping(&self, token: Token, sleep: impl Fn(&AtomicU32, u32)) {
        loop {
            // ORDERING: see `release`.
            self.sleepers.store(1, Ordering::Relaxed);
            // ORDERING: a value to sleep by.
            let holder = self.holder.load(Ordering::Relaxed);
            if holder != FREE {
                sleep(&self.holder, holder);
            }
            // ORDERING: as others may have been sleeping all the while, before the lock is taken, so
            // that this thread's release sees it.
            self.sleepers.store(1, Ordering::Relaxed);
            if self.try_take(token) {
                return;
            }
        }
    }

    /// Whether its holder is not `living`, so gone.
    #[cfg(all(feature = "heaps", not(all(test, loom))))]
    pub(crate) fn is_left_behind(&self, living: Token) -> bool {
        // ORDERING: a value; who is gone cannot change it.
        let holder = self.holder.load(Ordering::Relaxed);
        holder != FREE && holder != living.number()
    }

    /// Frees it if its holder is not `living`, so gone; whether it was.
    pub(crate) fn break_unless(&self, living: Token) -> bool {
        // ORDERING: a value; who is gone cannot change it.
        let holder = self.holder.load(Ordering::Relaxed);
        if holder == FREE || holder == living.number() {
            return false;
        }
        // ORDERING: release: publishes the repairs made before to the next `try_take`. Acquire: of
        // two that break it, the second sees what the first has repaired.
        self.holder
            .compare_exchange(holder, FREE, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_what_another_generation_holds_is_broken() {
        let [old, new] = [1, 2].map(|token| Token(NonZeroU32::new(token).expect("not 0")));
        let lock = LockWord::new();
        assert!(!lock.break_unless(new));
        assert!(lock.try_take(old));
        assert!(!lock.break_unless(old) && lock.is_held());
        assert!(lock.break_unless(new) && !lock.is_held());
        assert!(lock.try_take(new));
    }

    #[test]
    fn a_release_tells_to_wake_once_for_each_sleeper() {
        let token = Token(NonZeroU32::MIN);
        let lock = LockWord::new();
        assert!(lock.try_take(token));
        assert!(!lock.release());
        assert!(lock.try_take(token));
        lock.take_sleeping(token, |_, _| {
            assert!(lock.release(), "a sleeper has declared itself");
            lock.to_wake();
        });
        assert!(lock.release(), "there may be more");
        lock.to_wake();
        assert!(lock.try_take(token));
        assert!(!lock.release());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use std::vec::Vec;

    const OWN: Token = Token(NonZeroU32::new(2).unwrap());
    const GONE: Token = Token(NonZeroU32::new(1).unwrap());

    fn word(holder: u32) -> LockWord {
        LockWord {
            holder: AtomicU32::new(holder),
            sleepers: AtomicU32::new(0),
        }
    }

    /// Adds 1 under the lock.
    fn add(lock: &LockWord, count: &UnsafeCell<usize>) {
        if !lock.try_take(OWN) {
            lock.take_sleeping(OWN, |_, _| loom::thread::yield_now());
        }
        // SAFETY: 1. the model checks the access.
        count.with_mut(|count| unsafe { *count += 1 });
        if lock.release() {
            lock.to_wake();
        }
    }

    /// Proves: one holder at a time, which sees all that was done under the lock before. Fails with
    /// `Relaxed` in `try_take` or for `holder` in `release`.
    #[test]
    fn loom_a_lock_has_one_holder_at_a_time() {
        loom::model(|| {
            let shared = Arc::new((word(FREE), UnsafeCell::new(0)));
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let shared = shared.clone();
                    loom::thread::spawn(move || add(&shared.0, &shared.1))
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
            assert!(shared.0.try_take(OWN));
            // SAFETY: 1. as in `add`.
            assert_eq!(shared.1.with(|count| unsafe { *count }), 2);
        });
    }

    /// Proves: who waits for a lock that was left behind gets it once it is broken, and sees the
    /// repair. Fails with `Relaxed` for `AcqRel` in `break_unless`.
    #[test]
    fn loom_who_takes_a_broken_lock_sees_the_repair() {
        loom::model(|| {
            let shared = Arc::new((word(GONE.number()), UnsafeCell::new(0)));
            let other = shared.clone();
            let waiter = loom::thread::spawn(move || add(&other.0, &other.1));
            // SAFETY: 1. as in `add`: the repair, before which nobody can take the lock.
            shared.1.with_mut(|count| unsafe { *count = 10 });
            assert!(shared.0.break_unless(OWN));
            waiter.join().unwrap();
            assert!(!shared.0.break_unless(OWN));
            assert!(shared.0.try_take(OWN));
            // SAFETY: 1. as in `add`.
            assert_eq!(shared.1.with(|count| unsafe { *count }), 11);
        });
    }
}
