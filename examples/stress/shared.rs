//! What the workers share. All of it is allocated at the start and never grows, so that it does not
//! show in the live bytes that the run is judged by.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::args::Args;
use crate::block::Block;
use crate::worker::{SLOTS, Worker};

/// Blocks that wait in one inbox at most.
pub(crate) const INBOX: usize = 256;

// ORDERING of every atomic below: Relaxed. They are counters and a flag that stand for themselves;
// blocks change threads under the inbox locks or by joining the thread that had them.

/// Everything that outlives a thread.
pub(crate) struct Shared {
    pub(crate) max_size: usize,
    pub(crate) stop: AtomicBool,
    /// Steps so far, for the progress line.
    pub(crate) steps: AtomicU64,
    pub(crate) budget: Budget,
    /// One worker's state per lane; its thread holds the lock for life and leaves the rest to the
    /// next.
    pub(crate) lanes: Box<[Mutex<Worker>]>,
    pub(crate) inboxes: Box<[Mutex<Vec<Block>>]>,
}

impl Shared {
    pub(crate) fn new(args: &Args) -> Self {
        let lanes = 0..usize::from(args.threads);
        Self {
            max_size: args.max_size,
            stop: AtomicBool::new(false),
            steps: AtomicU64::new(0),
            budget: Budget::new(args.max_live()),
            lanes: lanes
                .clone()
                .map(|lane| Mutex::new(Worker::new(lane, args.seed)))
                .collect(),
            inboxes: lanes
                .map(|_| Mutex::new(Vec::with_capacity(INBOX)))
                .collect(),
        }
    }

    /// Puts a block into a lane's inbox, or gives it back if that is full.
    pub(crate) fn hand_over(&self, lane: usize, block: Block) -> Result<(), Block> {
        let mut inbox = lock(&self.inboxes[lane]);
        if inbox.len() == INBOX {
            return Err(block);
        }
        inbox.push(block);
        Ok(())
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// How many bytes the workers may hold together.
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
    peak: AtomicUsize,
}

impl Budget {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        }
    }

    /// Claims `bytes`; `false` if that would exceed the limit.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let used = self
            .used
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes);
        if used > self.limit {
            self.give(bytes);
            return false;
        }
        if used > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(used, Ordering::Relaxed);
        }
        true
    }

    pub(crate) fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

/// A panic ends the run anyway, so poison tells nothing new.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// A worker with all its slots full can still take in a whole inbox.
const _: () = assert!(SLOTS >= INBOX);
