//! The background thread: a thread of the allocator's own, which gives back what the program's threads freed once they
//! have gone idle. While nothing is freed it sleeps in the kernel; nobody else notices it but by one load on
//! slow paths that free.
//!
//! It has no cache: nothing it does allocates.

use core::ffi::c_void;

use super::maintenance::maintain_all;
use super::purge::purge;
use super::quiesce::ticks;
use crate::arena;
use crate::config::{self, Config};
use crate::error::StartError;
use crate::large;
use crate::os;
use crate::threads;
use crate::valgrind;
use crate::wakeup;

/// The least time between two looks, in milliseconds.
const LEAST: u64 = 10;

/// Starts the background thread, if there is none and nobody else is starting one.
pub(crate) fn start(config: &Config) -> Result<(), StartError> {
    if !threads::prepare(config) {
        return Err(StartError);
    }
    if wakeup::begin() && !os::start_thread(work) {
        wakeup::end();
        return Err(StartError);
    }
    Ok(())
}

extern "C" fn work(_: *mut c_void) -> *mut c_void {
    os::name_thread(c"flagstone");
    valgrind::quietly(|| {
        loop {
            maintain_until_idle();
            // Before the purge: what is freed behind its back rings.
            wakeup::set();
            purge();
            wakeup::sleep();
        }
    })
}

/// Gives back what is due, every purge delay, until the program has done nothing for that long.
fn maintain_until_idle() {
    let mut before = pulse();
    loop {
        os::sleep_ms(config::purge_delay_ms().max(LEAST));
        let now = pulse();
        if now == before {
            return;
        }
        maintain_all();
        // Which takes spans back, too.
        before = pulse();
    }
}

/// Another number whenever the program has called the allocator's slow paths.
fn pulse() -> u64 {
    // OVERFLOW: only equality counts.
    ticks()
        .wrapping_add(arena::released())
        .wrapping_add(large::removed())
}
