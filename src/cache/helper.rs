//! The helper: a thread of the allocator's own, which gives back what the program's threads freed once they
//! have gone idle. While nothing is freed it sleeps in the kernel; nobody else notices it but by one load on
//! slow paths that free.
//!
//! It has no cache: nothing it does allocates.

use core::ffi::c_void;

use super::alarm::Alarm;
use super::hold_off::purge;
use super::thread;
use super::{Config, hold_off, slow};
use crate::arena;
use crate::config;
use crate::error::NoHelper;
use crate::large;
use crate::os;
use crate::valgrind;

static ALARM: Alarm = Alarm::new();

/// The least time between two looks, in milliseconds.
const LEAST: u64 = 10;

/// Starts the helper, if there is none and nobody else is starting one.
pub(crate) fn start(config: &Config) -> Result<(), NoHelper> {
    if !thread::prepare(config) {
        return Err(NoHelper);
    }
    if ALARM.begin() && !os::start_thread(work) {
        ALARM.end();
        return Err(NoHelper);
    }
    Ok(())
}

/// A child of a fork has no helper.
pub(super) fn forget() {
    ALARM.end();
}

/// Whether it looks by itself at what is due.
pub(super) fn is_awake() -> bool {
    ALARM.is_awake()
}

/// After memory went from a thread to where all can have it. No lock is held.
#[inline(always)]
pub(super) fn notice() {
    if ALARM.is_set() {
        wake();
    }
}

#[cold]
fn wake() {
    if ALARM.ring() {
        os::wake(ALARM.word());
    }
}

extern "C" fn work(_: *mut c_void) -> *mut c_void {
    os::name_thread(c"flagstone");
    valgrind::quietly(|| {
        loop {
            tend_until_idle();
            // Before the purge: what is freed behind its back rings.
            ALARM.set();
            purge();
            ALARM.sleep(os::wait);
        }
    })
}

/// Gives back what is due, every purge delay, until the program has done nothing for that long.
fn tend_until_idle() {
    let mut before = pulse();
    loop {
        os::sleep_ms(config::purge_delay_ms().max(LEAST));
        let now = pulse();
        if now == before {
            return;
        }
        slow::tend_all();
        // Which takes spans back, too.
        before = pulse();
    }
}

/// Another number whenever the program has called the allocator's slow paths.
fn pulse() -> u64 {
    // OVERFLOW: only equality counts.
    hold_off::ticks()
        .wrapping_add(arena::released())
        .wrapping_add(large::taken())
}
