//! The background thread: a thread of the allocator's own, which gives back what the program's threads freed once they
//! have gone idle. While nothing is freed it sleeps in the kernel; nobody else notices it but by one load on
//! slow paths that free.
//!
//! It has no cache: nothing it does allocates. Its states, and who may start and end it, are in `wakeup/word.rs`; where
//! slow paths may start it, and why nowhere else, is in `docs/purging.md`.

use core::ffi::c_void;
use core::ptr;

use super::maintenance::maintain_all;
use super::pace::Pace;
use super::purge::purge_while;
use super::quiesce::{divert_all, ticks};
use crate::arena;
use crate::config::{self, Config};
use crate::demand::DEMAND;
use crate::error::StartError;
use crate::heap;
use crate::large;
use crate::os;
use crate::sync::GuardedU64;
use crate::thread_cache::ThreadCache;
use crate::threads;
use crate::valgrind;
use crate::wakeup;

/// The least time between two looks, in milliseconds.
const LEAST: u64 = 10;

/// Purge delays until a start that failed is tried again, at most; the pause doubles.
const PAUSE_MAX: u64 = 128;

/// How long the next pause is, in purge delays, 0 standing for one, and when it is over. Written by who
/// [begins](wakeup::begin) to start the thread.
static PAUSE: GuardedU64 = GuardedU64::new(0);
static NOT_BEFORE: GuardedU64 = GuardedU64::new(0);

/// Starts that may follow each other; from then on one for each purge delay. Where a second thread comes and goes all
/// the time, that is not a start for each.
const BURST: u64 = 32;

/// When the starts so far would have been made, each a purge delay after the one before.
static STARTED: GuardedU64 = GuardedU64::new(0);

/// Starts a background thread that stays, if there is none and nobody else is starting one.
pub(crate) fn start(config: &Config) -> Result<(), StartError> {
    if !threads::prepare(config) {
        return Err(StartError);
    }
    if wakeup::ask() && !os::start_thread(work) {
        wakeup::give_up();
        return Err(StartError);
    }
    Ok(())
}

/// After memory went from a thread to where all can have it: wakes the background thread, or starts it. No lock is held.
#[inline(always)]
pub(crate) fn notice(config: &Config) {
    if wakeup::is_set() {
        hear(config);
    }
}

/// At the end of a slow path that frees nothing: starts the background thread if the options ask for one that stays.
#[inline(always)]
pub(crate) fn start_if_wanted(config: &Config) {
    if wakeup::is_wanted() {
        hear(config);
    }
}

#[cold]
fn hear(config: &Config) {
    if !wakeup::wake() && config.may_start_threads() {
        consider(config);
    }
}

/// Slow paths of a thread for blocks between two looks into slabs, while there is no background thread. Such a path
/// may free 448 KiB; a look reads a word of each class of each heap. An odd number: pairs of a refill and a flush do not
/// pass it by.
const LOOK: u64 = 17;

/// Whether so much is free that a thread to give it back is worth what it costs: free units and cached mappings, and now
/// and then blocks in slabs.
fn is_much_free(own: &ThreadCache) -> bool {
    /// The slow path of the last look.
    static LOOKED: GuardedU64 = GuardedU64::new(0);
    if DEMAND.is_worth_a_thread(0) {
        return true;
    }
    let ticks = own.ticks.get();
    if !ticks.is_multiple_of(LOOK) || ticks == LOOKED.get() {
        return false;
    }
    LOOKED.set(ticks);
    DEMAND.is_worth_a_thread(heap::free_bytes_about())
}

/// Starts the background thread, if it is worth it.
fn consider(config: &Config) {
    // A thread that registers or has ended leaves it to others.
    let Some(own) = ThreadCache::own() else {
        return;
    };
    if !wakeup::is_wanted() && !is_much_free(own) {
        return;
    }
    // So does a child of `vfork`. One of `fork` is repaired first.
    if !threads::prepare(config) || !os::is_at_home() {
        return;
    }
    let (now, delay) = (os::now_ms(), config::purge_delay_ms().max(LEAST));
    let is_soon = now < NOT_BEFORE.get() || STARTED.get() > now + BURST * delay;
    if is_soon || !wakeup::begin() {
        return;
    }
    if os::start_thread(work) {
        STARTED.set(STARTED.get().max(now) + delay);
        PAUSE.set(0);
        return;
    }
    let pause = PAUSE.get().max(1);
    NOT_BEFORE.set(now + pause * delay);
    PAUSE.set((2 * pause).min(PAUSE_MAX));
    wakeup::fail();
}

extern "C" fn work(_: *mut c_void) -> *mut c_void {
    os::name_thread(c"flagstone");
    valgrind::quietly(|| {
        let mut patience = Pace::new();
        while !wakeup::end() {
            maintain_until_idle(&patience);
            // Before the purge: what is freed behind its back rings.
            if wakeup::lie_down() {
                patience.gained(purge_while(|| !wakeup::is_ending()));
                wakeup::sleep();
            }
        }
    });
    ptr::null_mut()
}

/// Gives back what is due, until the program has been idle as long as `patience` says, or the thread is to end.
fn maintain_until_idle(patience: &Pace) {
    let mut pace = Pace::new();
    let mut before = pulse();
    // Looks in a row that found no slow path; from the first of them on, any call takes one.
    let mut idle = 0;
    loop {
        let delays = if idle == 0 { pace.delays() } else { 1 };
        wakeup::nap(u64::from(delays) * config::purge_delay_ms().max(LEAST));
        if wakeup::is_ending() {
            return;
        }
        let now = pulse();
        if now == before {
            // Units and mappings that wait to go back are known.
            if idle >= patience.delays() || idle > 0 && !Pace::is_little(DEMAND.free()) {
                return;
            }
            if idle == 0 {
                divert_all().unwrap_or_else(|wrong| wrong.report());
                before = pulse();
            }
            idle += 1;
            continue;
        }
        idle = 0;
        let is_freed = now.freed != before.freed;
        let bytes = maintain_all();
        pace.gained(if is_freed { usize::MAX } else { bytes });
        // Which takes spans back, too.
        before = pulse();
    }
}

/// What changes whenever the program has called the allocator's slow paths; only equality counts.
#[derive(PartialEq, Eq)]
struct Pulse {
    ticks: u64,
    /// Spans and mappings that came back, or changed.
    freed: u64,
}

fn pulse() -> Pulse {
    Pulse {
        ticks: ticks(),
        // OVERFLOW: as said.
        freed: arena::released().wrapping_add(large::removed()),
    }
}
