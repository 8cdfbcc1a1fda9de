//! Locks that processes share. The word of each names the process that has it ([`Holder`]), so that others can tell whether
//! that lives: the heap's own lock, and those that programs put in the heap.

use super::area::Area;
use super::error::MappedError;
use super::holder::{FREE, Holder};
use super::words::Process;
use crate::os;
use crate::os::failpoints::{self, Point};
use crate::os::shared::{wait_shared, wake_shared};
use crate::sync::{AtomicU64, Ordering};

/// A waiter asks so often whether the holder lives: seldom beside a hold, often beside what a person notices.
const PATIENCE_NS: u32 = 2_000_000;
/// Looks before a waiter sleeps.
const LOOKS: u32 = 100;

/// Holds the heap's lock until it is dropped.
pub(super) struct Held<'a> {
    pub(super) area: &'a Area,
    process: Process,
}

/// Waits after which a holder of whom nobody can tell whether he lives makes an error: a second.
const WAITS: u32 = 500;

/// Threads of this process that hold locks of heaps, and above them the number of forks before it: in a child none of
/// its parent's does.
static HOLDERS: AtomicU64 = AtomicU64::new(0);

/// How many there are, by such a word.
fn holders_of(word: u64) -> u64 {
    let own = u64::from(os::fork_generation().number());
    if word >> u32::BITS == own {
        word & u64::from(u32::MAX)
    } else {
        0
    }
}

/// So many more hold one, or fewer.
fn count_holders(change: i64) {
    let own = u64::from(os::fork_generation().number()) << u32::BITS;
    let counted = |word| Some(own | holders_of(word).saturating_add_signed(change));
    // ORDERING: a count.
    let _ = HOLDERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
}

/// How a lock was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// From nobody.
    Free,
    /// From a process that is gone, which may have left anything.
    FromTheDead,
    /// Not until the deadline.
    Late,
}

impl Area {
    /// Takes a lock. `is_own_alive` says, after so many waits, whether a holder that is this process is believed.
    /// `deadline` is one of [`os::now_ns`]. An error if the lock is not to be had, and nobody can tell whether its holder
    /// lives. `count` is told of each thread that may hold it, before it does, or that does not after all.
    pub(super) fn take(
        &self,
        holder: Holder<'_>,
        process: Process,
        is_own_alive: impl Fn(u32) -> bool,
        count: impl Fn(i64),
        deadline: Option<u64>,
    ) -> Result<Taken, MappedError> {
        let own = process.bits();
        let attempt = |from| {
            count(1);
            let is_taken = holder.take(from, own);
            if !is_taken {
                count(-1);
            }
            is_taken
        };
        for _ in 0..LOOKS {
            if holder.get() == FREE && attempt(FREE) {
                return Ok(Taken::Free);
            }
            core::hint::spin_loop();
        }
        let mut waits = 0;
        loop {
            let found = holder.get();
            if found == FREE {
                if attempt(FREE) {
                    return Ok(Taken::Free);
                }
                continue;
            }
            let mut patience = PATIENCE_NS;
            if let Some(deadline) = deadline {
                let left = deadline.saturating_sub(os::now_ns());
                if left == 0 {
                    return Ok(Taken::Late);
                }
                patience = patience.min(u32::try_from(left).unwrap_or(u32::MAX));
            }
            holder.announce();
            wait_shared(holder.word, found, patience);
            if holder.get() != found {
                continue;
            }
            waits += 1;
            let lives = if found == own {
                is_own_alive(waits)
            } else {
                let reaped = self.reap(process);
                let is_current = |other| self.is_current(other);
                let lives = Process::from_bits(found).is_some_and(is_current);
                if let (true, Err(error), true) = (lives, reaped, waits > WAITS) {
                    return Err(error);
                }
                lives
            };
            if !lives && attempt(found) {
                return Ok(Taken::FromTheDead);
            }
        }
    }

    fn holder(&self) -> Holder<'_> {
        let header = self.header();
        Holder {
            word: &header.lock.0,
            sleepers: &header.sleepers.0,
        }
    }

    /// Takes the heap's lock; from a holder that is gone, with the bitmap of free units made anew. Errors as of
    /// [`take`](Self::take).
    pub(super) fn lock(&self, process: Process) -> Result<Held<'_>, MappedError> {
        // What only a stray write can have put there, once no thread of this process has it for a second.
        let is_own_alive =
            |waits| waits <= WAITS || holders_of(HOLDERS.load(Ordering::Relaxed)) != 0;
        let taken = self.take(self.holder(), process, is_own_alive, count_holders, None)?;
        let held = Held {
            area: self,
            process,
        };
        let header = self.header();
        // ORDERING: pairs with `note_reaped`.
        let reaped = header.reaped.0.load(Ordering::Acquire);
        let is_torn = taken == Taken::FromTheDead;
        if is_torn || reaped != header.mended.0.load(Ordering::Relaxed) {
            held.make_free_anew();
            header.mended.0.store(reaped, Ordering::Relaxed);
        }
        failpoints::at(Point::Units);
        Ok(held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let own = self.process.bits();
        self.area.holder().release(own, wake_shared);
        // Last: while the word is this process's, a thread of it counts.
        count_holders(-1);
    }
}
