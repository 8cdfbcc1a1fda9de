//! Whether there is a background thread, which sleeps in the kernel while nothing is freed, and how a thread that frees
//! memory wakes it, or learns that it is to start one.

mod word;

use self::word::Wakeup;
use crate::os;
use crate::sync::OwnLines;

static WAKEUP: OwnLines<Wakeup> = OwnLines(Wakeup::new());

/// The program has two threads at least. The registry is locked.
pub(crate) fn more() {
    WAKEUP.more();
}

/// It has fewer: a background thread that was not asked for ends. The registry is locked.
pub(crate) fn fewer() {
    if WAKEUP.fewer() {
        os::wake(WAKEUP.word());
    }
}

/// Who next may is to start a background thread that stays.
pub(crate) fn want() {
    WAKEUP.want();
}

/// Whether that is so.
#[inline(always)]
pub(crate) fn is_wanted() -> bool {
    WAKEUP.is_wanted()
}

/// A background thread that stays is wanted now; whether the caller is the one to start it.
pub(crate) fn ask() -> bool {
    WAKEUP.ask()
}

/// Whether the caller is the one to start the background thread.
pub(crate) fn begin() -> bool {
    WAKEUP.begin()
}

/// It could not be started, and is wanted as before.
pub(crate) fn fail() {
    WAKEUP.fail();
}

/// It could not be started, which is the error of the call that asked for it.
pub(crate) fn give_up() {
    WAKEUP.give_up();
}

/// In a child of `fork`: there is no background thread.
pub(crate) fn forget() {
    WAKEUP.forget();
}

/// From here on who frees memory wakes the background thread, unless it is to end.
pub(crate) fn lie_down() -> bool {
    WAKEUP.lie_down()
}

/// Whether there is no background thread any more; it was to end.
pub(crate) fn end() -> bool {
    WAKEUP.end()
}

/// Whether the background thread is to end.
pub(crate) fn is_ending() -> bool {
    WAKEUP.is_ending()
}

/// Sleeps until it is woken, or is to end.
pub(crate) fn sleep() {
    WAKEUP.sleep(os::wait);
}

/// Sleeps for about so long, unless it is to end.
pub(crate) fn nap(milliseconds: u64) {
    if WAKEUP.stays() {
        return os::sleep_ms(milliseconds);
    }
    let end = os::now_ms().saturating_add(milliseconds);
    loop {
        // A thread of the program that begins changes the word, which is no end.
        let now = os::now_ms();
        if now >= end || WAKEUP.is_ending() {
            return;
        }
        WAKEUP.nap(|word, value| os::wait_ms(word, value, end - now));
        if os::now_ms() == 0 {
            // Nobody tells the time.
            return;
        }
    }
}

/// Whether it looks by itself at what is due.
pub(crate) fn is_awake() -> bool {
    WAKEUP.is_awake()
}

/// Whether who frees memory has something to do: [`wake`], or to start the background thread.
#[inline(always)]
pub(crate) fn is_set() -> bool {
    WAKEUP.is_set()
}

/// After memory went from a thread to where all can have it. No lock is held but perhaps the thread's own gate.
#[inline(always)]
pub(crate) fn notice() {
    if is_set() {
        wake();
    }
}

/// Wakes the background thread if there is one that sleeps; whether the caller did.
#[cold]
pub(crate) fn wake() -> bool {
    let wakes = WAKEUP.wake();
    if wakes {
        os::wake(WAKEUP.word());
    }
    wakes
}
