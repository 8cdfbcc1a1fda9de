//! The lock of a heap, which processes share: its word names the process that has it, so that others can tell whether
//! that lives.

use super::area::Area;
use super::error::MappedError;
use super::words::Process;
use crate::os::failpoints::{self, Point};
use crate::os::shared::{wait_shared, wake_shared};
use crate::sync::{AtomicU32, Ordering};

/// A waiter asks so often whether the holder lives: seldom beside a hold, often beside what a person notices.
const PATIENCE_NS: u32 = 2_000_000;
/// Looks before a waiter sleeps.
const LOOKS: u32 = 100;

/// Holds the lock until it is dropped.
pub(super) struct Held<'a> {
    pub(super) area: &'a Area,
    process: Process,
}

/// Waits after which a holder of whom nobody can tell whether he lives makes an error: a second.
const WAITS: u32 = 500;

/// Threads of this process that hold locks of heaps.
static HOLDERS: AtomicU32 = AtomicU32::new(0);

impl Area {
    /// Takes the lock; from a holder that is gone, with the bitmap of free units made anew. An error if the lock is not to be
    /// had, and nobody can tell whether its holder lives.
    pub(super) fn lock(&self, process: Process) -> Result<Held<'_>, MappedError> {
        let word = &self.header().lock.0;
        let take = |from: u32| {
            // ORDERING: acquire: pairs with the release at the end of the last hold.
            let (to, fail) = (process.bits(), Ordering::Relaxed);
            let taken = word.compare_exchange(from, to, Ordering::Acquire, fail);
            taken.is_ok()
        };
        for _ in 0..LOOKS {
            if word.load(Ordering::Relaxed) == 0 && take(0) {
                return Ok(self.held(process, false));
            }
            core::hint::spin_loop();
        }
        let mut waits = 0;
        loop {
            let holder = word.load(Ordering::Relaxed);
            if holder == 0 {
                if take(0) {
                    return Ok(self.held(process, false));
                }
                continue;
            }
            // ORDERING: a hint; a sleeper that is not woken wakes by itself.
            self.header().sleepers.0.store(1, Ordering::Relaxed);
            wait_shared(word, holder, PATIENCE_NS);
            if word.load(Ordering::Relaxed) != holder {
                continue;
            }
            waits += 1;
            let lives = if holder == process.bits() {
                // What only a stray write can have put there, once none of these has it for a second.
                waits <= WAITS || HOLDERS.load(Ordering::Relaxed) != 0
            } else {
                let reaped = self.reap(process);
                let is_current = |other| self.is_current(other);
                let lives = Process::from_bits(holder).is_some_and(is_current);
                if let (true, Err(error), true) = (lives, reaped, waits > WAITS) {
                    return Err(error);
                }
                lives
            };
            if !lives && take(holder) {
                return Ok(self.held(process, true));
            }
        }
    }

    /// The lock just taken. What processes that are gone were at is mended first.
    fn held(&self, process: Process, is_torn: bool) -> Held<'_> {
        HOLDERS.fetch_add(1, Ordering::Relaxed);
        let held = Held {
            area: self,
            process,
        };
        let header = self.header();
        // ORDERING: pairs with `note_reaped`.
        let reaped = header.reaped.0.load(Ordering::Acquire);
        if is_torn || reaped != header.mended.0.load(Ordering::Relaxed) {
            held.make_free_anew();
            header.mended.0.store(reaped, Ordering::Relaxed);
        }
        failpoints::at(Point::Units);
        held
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let header = self.area.header();
        HOLDERS.fetch_sub(1, Ordering::Relaxed);
        // ORDERING: release: pairs with the next who takes it. By an exchange: bytes that somebody else wrote there stay.
        let (own, free) = (self.process.bits(), 0);
        let _ = header
            .lock
            .0
            .compare_exchange(own, free, Ordering::Release, Ordering::Relaxed);
        let sleepers = &header.sleepers.0;
        if sleepers.load(Ordering::Relaxed) != 0 && !wake_shared(&header.lock.0) {
            sleepers.store(0, Ordering::Relaxed);
        }
    }
}
