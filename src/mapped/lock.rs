//! The lock of a heap, which processes share: its word names the process that has it, so that others can tell whether
//! that lives.

use super::area::Area;
use super::words::Process;
use crate::os::shared::{wait_shared, wake_shared};
use crate::sync::Ordering;

/// A waiter asks so often whether the holder lives: seldom beside a hold, often beside what a person notices.
const PATIENCE_NS: u32 = 2_000_000;
/// Looks before a waiter sleeps.
const LOOKS: u32 = 100;

/// Holds the lock until it is dropped.
pub(super) struct Held<'a> {
    pub(super) area: &'a Area,
    process: Process,
}

impl Area {
    /// Takes the lock; from a holder that is gone, with the bitmap of free units made anew.
    pub(super) fn lock(&self, process: Process) -> Held<'_> {
        let word = &self.header().lock.0;
        let held = || Held {
            area: self,
            process,
        };
        let take = |from: u32| {
            // ORDERING: acquire: pairs with the release at the end of the last hold.
            let taken =
                word.compare_exchange(from, process.bits(), Ordering::Acquire, Ordering::Relaxed);
            taken.is_ok()
        };
        for _ in 0..LOOKS {
            if word.load(Ordering::Relaxed) == 0 && take(0) {
                return held();
            }
            core::hint::spin_loop();
        }
        loop {
            let holder = word.load(Ordering::Relaxed);
            if holder == 0 {
                if take(0) {
                    return held();
                }
                continue;
            }
            // ORDERING: a hint; a sleeper that is not woken wakes by itself.
            self.header().sleepers.0.store(1, Ordering::Relaxed);
            wait_shared(word, holder, PATIENCE_NS);
            if word.load(Ordering::Relaxed) != holder || holder == process.bits() {
                continue;
            }
            self.reap(process);
            let lives = Process::from_bits(holder).is_some_and(|other| self.is_current(other));
            if !lives && take(holder) {
                let held = held();
                held.make_free_anew();
                return held;
            }
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let header = self.area.header();
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
