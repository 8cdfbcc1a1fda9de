//! How a thread that frees memory wakes the background thread, which sleeps in the kernel while nothing is freed.

mod word;

use self::word::Wakeup;
use crate::os;

static WAKEUP: Wakeup = Wakeup::new();

/// Whether the caller is the one to start the background thread.
pub(crate) fn begin() -> bool {
    WAKEUP.begin()
}

/// There is no background thread (any more).
pub(crate) fn end() {
    WAKEUP.end();
}

/// From here on who frees memory wakes it.
pub(crate) fn set() {
    WAKEUP.set();
}

/// Sleeps until it is woken.
pub(crate) fn sleep() {
    WAKEUP.sleep(os::wait);
}

/// Whether it looks by itself at what is due.
pub(crate) fn is_awake() -> bool {
    WAKEUP.is_awake()
}

/// After memory went from a thread to where all can have it. No lock is held.
#[inline(always)]
pub(crate) fn notice() {
    if WAKEUP.is_set() {
        wake();
    }
}

#[cold]
fn wake() {
    if WAKEUP.wake() {
        os::wake(WAKEUP.word());
    }
}
