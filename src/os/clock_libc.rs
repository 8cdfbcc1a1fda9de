//! The clock by the C library's name, which Miri and the thread sanitizer know. The same name as in `clock.rs`.

/// Reads the coarse clock that never goes back; zeros if the kernel refuses.
pub(super) fn read() -> libc::timespec {
    read_clock(libc::CLOCK_MONOTONIC_COARSE)
}

/// Reads the fine one.
pub(super) fn read_fine() -> libc::timespec {
    read_clock(libc::CLOCK_MONOTONIC)
}

fn read_clock(clock: libc::clockid_t) -> libc::timespec {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: 1. `now` is writable.
    let _ = unsafe { libc::clock_gettime(clock, &raw mut now) };
    now
}
