//! Signals that come to the thread that asked for them, thousands of times in a second.

use core::ffi::c_int;
use core::mem::{self, MaybeUninit};
use core::ptr;

/// Has `signal` call `handler`; a system call that it interrupts ends early.
pub(crate) fn handle(signal: c_int, handler: extern "C" fn(c_int)) {
    // SAFETY: all zero is an action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    // SAFETY: the handler has the form of those without `SA_SIGINFO`.
    let result = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    assert_eq!(result, 0, "sigaction refused");
}

/// A timer that sends a signal to the thread that made it. A forked child does not inherit it.
pub(crate) struct Timer(libc::timer_t);

impl Timer {
    pub(crate) fn new(signal: c_int) -> Self {
        // SAFETY: all zero is an event.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        // SAFETY: `gettid` has no preconditions.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer = MaybeUninit::uninit();
        // SAFETY: the event is initialised and the timer writable.
        let result = unsafe {
            libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, timer.as_mut_ptr())
        };
        assert_eq!(result, 0, "timer_create refused");
        // SAFETY: written by `timer_create`.
        Self(unsafe { timer.assume_init() })
    }

    /// The signal comes after `first` nanoseconds, then every `interval`; after 0 it never comes.
    pub(crate) fn set(&self, first: i64, interval: i64) {
        let time = |nanoseconds| libc::timespec {
            tv_sec: 0,
            tv_nsec: nanoseconds,
        };
        let setting = libc::itimerspec {
            it_interval: time(interval),
            it_value: time(first),
        };
        // SAFETY: a timer from `timer_create`, and a valid setting.
        let result = unsafe { libc::timer_settime(self.0, 0, &raw const setting, ptr::null_mut()) };
        assert_eq!(result, 0, "timer_settime refused");
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: a timer from `timer_create`, not used any more.
        let result = unsafe { libc::timer_delete(self.0) };
        assert_eq!(result, 0, "timer_delete refused");
    }
}
