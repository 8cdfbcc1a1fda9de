//! The lock that guards what threads share.

use core::cell::UnsafeCell;
use core::hint;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use super::lock_word::LockWord;
use super::{fork_generation, wait_at_most, wake};

/// A lock whose waiters look for some microseconds, then sleep until it is released.
#[derive(Debug)]
pub(crate) struct Lock<T> {
    word: LockWord,
    guarded: UnsafeCell<T>,
}

// SAFETY: 1. what is guarded is reached through `Held`, of which there is one at a time: it goes from
// thread to thread.
unsafe impl<T: Send> Sync for Lock<T> {}

/// Pauses of a waiter between two looks, at most; they double from one. All together take some
/// microseconds.
const MOST_PAUSES: u32 = 64;

/// A sleeping waiter looks again after so long, in case the release missed it ([`LockWord`]): so rare
/// that it may be long beside a hold, short beside what a person notices.
const SLEEP_NS: u32 = 1_000_000;

/// Holds a [`Lock`] until it is dropped, by the thread that took it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Held<'a, T> {
    lock: &'a Lock<T>,
    not_send: PhantomData<*const ()>,
}

impl<T> Lock<T> {
    pub(crate) const fn new(guarded: T) -> Self {
        Self {
            word: LockWord::new(),
            guarded: UnsafeCell::new(guarded),
        }
    }

    /// The proof of a lock just taken.
    #[inline(always)]
    fn held(&self) -> Held<'_, T> {
        Held {
            lock: self,
            not_send: PhantomData,
        }
    }

    #[inline]
    pub(crate) fn lock(&self) -> Held<'_, T> {
        let is_taken = self.word.try_take(fork_generation());
        #[cfg(feature = "counters")]
        counters::count(!is_taken);
        if !is_taken {
            lock_slow(&self.word);
        }
        self.held()
    }

    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Held<'_, T>> {
        let is_taken = self.word.try_take(fork_generation());
        is_taken.then(|| self.held())
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.word.is_held()
    }

    #[inline(always)]
    fn release(&self) {
        if self.word.release() {
            wake_one(&self.word);
        }
    }

    /// Unlocks it for a thread that let its [`Held`] go without a drop.
    ///
    /// # Safety
    /// 1. This thread holds the lock and does not use its [`Held`] any more.
    pub(crate) unsafe fn force_unlock(&self) {
        self.release();
    }

    /// In a child of `fork`: unlocks it if it was locked when the parent forked. What it guards is
    /// repaired before others may enter.
    pub(crate) fn break_inherited(&self) {
        self.word.break_unless(fork_generation());
    }

    /// In a child of `fork`: whether it was locked when the parent forked, and still is.
    #[cfg(feature = "heaps")]
    pub(crate) fn is_inherited(&self) -> bool {
        self.word.is_left_behind(fork_generation())
    }
}

/// Takes a lock that another thread holds.
#[cold]
#[inline(never)]
fn lock_slow(word: &LockWord) {
    let token = fork_generation();
    // Hidden from the compiler, which would unroll all pauses.
    let mut pauses = hint::black_box(1);
    while pauses <= MOST_PAUSES {
        for _ in 0..pauses {
            hint::spin_loop();
        }
        if !word.is_held() && word.try_take(token) {
            return;
        }
        pauses *= 2;
    }
    word.take_sleeping(token, |word, holder| wait_at_most(word, holder, SLEEP_NS));
}

/// Wakes one that sleeps until a lock is let go, which it was.
#[cold]
#[inline(never)]
fn wake_one(word: &LockWord) {
    wake(word.to_wake());
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: 1. the lock is held, so that nobody else reaches it.
        unsafe { &*self.lock.guarded.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: 1. as in `deref`; `self` is borrowed for as long.
        unsafe { &mut *self.lock.guarded.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.lock.release();
    }
}

/// How often locks were taken: for benchmarks on machines too small to show contention by time.
#[cfg(feature = "counters")]
pub mod counters {
    use crate::sync::{AtomicUsize, Ordering};

    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    static WAITED_FOR: AtomicUsize = AtomicUsize::new(0);

    pub(super) fn count(waited: bool) {
        // ORDERING: statistics, here and below.
        TAKEN.fetch_add(1, Ordering::Relaxed);
        WAITED_FOR.fetch_add(usize::from(waited), Ordering::Relaxed);
    }

    /// Locks of all kinds taken by this process, and how many of them were not free.
    #[must_use]
    pub fn locks() -> (usize, usize) {
        // ORDERING: as above.
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (read(&TAKEN), read(&WAITED_FOR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// Adds to a count by four threads, whose holders sleep now and then, so that waiters do, too.
    fn count_to(turns: usize) {
        static LOCK: Lock<usize> = Lock::new(0);
        *LOCK.lock() = 0;
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..turns {
                        let mut count = LOCK.lock();
                        let before = *count;
                        if turn % 64 == 0 {
                            super::super::pause();
                        }
                        *count = before + 1;
                    }
                });
            }
        });
        assert_eq!(*LOCK.lock(), 4 * turns);
        assert!(!LOCK.is_locked());
    }

    #[test]
    fn waiters_that_sleep_lose_no_turn() {
        let turns = if cfg!(miri) { 20 } else { 2000 };
        count_to(turns);
        #[cfg(feature = "failpoints")]
        {
            super::super::failpoints::forbid_waiting(true);
            count_to(turns);
            super::super::failpoints::forbid_waiting(false);
        }
    }
}
