//! A clock fine enough for single operations.

use std::time::{Duration, Instant};

/// Long enough to compare the two clocks to a thousandth.
const CALIBRATION: Duration = Duration::from_millis(10);

/// The time-stamp counter. It is read when all that comes before has been executed (writes may
/// still be on their way to memory), and before anything that follows.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: 1. reads a counter into the registers named. No `nomem`: the compiler must leave
    // memory accesses on their side.
    unsafe {
        std::arch::asm!(
            "rdtscp",
            "lfence",
            out("rax") low,
            out("rdx") high,
            out("rcx") _,
            options(nostack, preserves_flags)
        );
    }
    high << 32 | low
}

/// The virtual counter, read when all that comes before has been executed, and before anything
/// that follows. Its ticks are as long as 40 ns on older machines.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    let count: u64;
    // SAFETY: 1. reads a counter into the register named. No `nomem`: the compiler must leave
    // memory accesses on their side.
    unsafe {
        std::arch::asm!(
            "isb",
            "mrs {count}, cntvct_el0",
            "isb",
            count = out(reg) count,
            options(nostack, preserves_flags)
        );
    }
    count
}

/// Nanoseconds since the first call.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn ticks() -> u64 {
    use std::sync::OnceLock;
    static FIRST: OnceLock<Instant> = OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Finds out how long a tick is, from the start to the end of a row.
pub(crate) struct Calibration {
    ticks: u64,
    time: Instant,
}

impl Calibration {
    pub(crate) fn begin() -> Self {
        Self {
            ticks: ticks(),
            time: Instant::now(),
        }
    }

    /// Waits if the row was too short.
    pub(crate) fn ns_per_tick(self) -> f64 {
        while self.time.elapsed() < CALIBRATION {
            std::hint::spin_loop();
        }
        let ticks = ticks() - self.ticks;
        self.time.elapsed().as_nanos() as f64 / ticks as f64
    }
}
