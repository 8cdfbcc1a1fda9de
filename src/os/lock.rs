//! The lock that guards what threads share.

use core::hint;

use cfg_if::cfg_if;
use spin::RelaxStrategy;
use spin::mutex::{SpinMutex, SpinMutexGuard};

/// A spin lock whose waiters give up the processor between looks: holders get preempted.
#[derive(Debug)]
pub(crate) struct Lock<T>(SpinMutex<T, Yielding>);

/// Holds a [`Lock`] until it is dropped.
pub(crate) type Held<'a, T> = SpinMutexGuard<'a, T, Yielding>;

impl<T> Lock<T> {
    pub(crate) const fn new(guarded: T) -> Self {
        Self(SpinMutex::new(guarded))
    }

    #[inline]
    pub(crate) fn lock(&self) -> Held<'_, T> {
        cfg_if! {
            if #[cfg(feature = "counters")] {
                let free = self.0.try_lock();
                counters::count(free.is_none());
                free.unwrap_or_else(|| self.0.lock())
            } else {
                self.0.lock()
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

/// How a waiter of a [`Lock`] spends its time.
#[derive(Debug)]
pub(crate) struct Yielding;

const SPINS: u32 = 16;

impl RelaxStrategy for Yielding {
    fn relax() {
        // Most critical sections are about a microsecond: look a few times, then let the holder run.
        for _ in 0..SPINS {
            hint::spin_loop();
        }
        super::yield_now();
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
