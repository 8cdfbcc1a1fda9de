//! The lock that guards what threads share.

use core::hint;

use spin::mutex::{SpinMutex, SpinMutexGuard};

/// A spin lock whose waiters give up the processor now and then, and sleep in the end: holders get preempted.
#[derive(Debug)]
pub(crate) struct Lock<T>(SpinMutex<T>);

/// Looks of a waiter before it yields: a few microseconds, of which most critical sections take one.
const LOOKS: u32 = 128;

/// Yields of a waiter before it sleeps: a holder of a lower priority gets the processor no other way.
const YIELDS: u32 = 64;

/// Holds a [`Lock`] until it is dropped.
pub(crate) type Held<'a, T> = SpinMutexGuard<'a, T>;

impl<T> Lock<T> {
    pub(crate) const fn new(guarded: T) -> Self {
        Self(SpinMutex::new(guarded))
    }

    #[inline]
    pub(crate) fn lock(&self) -> Held<'_, T> {
        let free = self.0.try_lock();
        #[cfg(feature = "counters")]
        counters::count(free.is_none());
        free.unwrap_or_else(|| self.lock_slow())
    }

    #[cold]
    #[inline(never)]
    fn lock_slow(&self) -> Held<'_, T> {
        let mut yields = 0;
        loop {
            for _ in 0..LOOKS {
                hint::spin_loop();
                if !self.0.is_locked()
                    && let Some(held) = self.0.try_lock()
                {
                    return held;
                }
            }
            if yields < YIELDS {
                yields += 1;
                super::yield_now();
            } else {
                super::pause();
            }
        }
    }

    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Held<'_, T>> {
        self.0.try_lock()
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    /// Unlocks, whoever holds it.
    ///
    /// # Safety
    /// 1. The holder is this thread, which let its [`Held`] go without a drop, or is gone.
    pub(crate) unsafe fn force_unlock(&self) {
        // SAFETY: 1. the caller's.
        unsafe { self.0.force_unlock() };
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
