//! A bounded queue of batches between one producer and one consumer, in place: no allocation, no
//! lock, no system call but a yield when one side waits long.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::yield_now;

use super::block::Block;

/// Blocks per batch.
pub(crate) const BATCH: usize = 256;

/// Batches in flight at most; a power of two.
pub(crate) const DEPTH: usize = 16;

/// Looks at the other side's counter so often (some microseconds) before it gives up the processor.
const SPINS: u32 = 1_000;

pub(crate) type Batch = [Option<Block>; BATCH];

/// A counter on cache lines of its own.
#[repr(align(128))]
struct Counter(AtomicUsize);

impl Counter {
    fn wait_until(&self, ready: impl Fn(usize) -> bool) {
        let mut spins = 0;
        // ORDERING: acquire, pairs with the release store in `send` or `receive`.
        while !ready(self.0.load(Ordering::Acquire)) {
            spins += 1;
            if spins % SPINS == 0 {
                yield_now()
            } else {
                spin_loop()
            }
        }
    }
}

pub(crate) struct Ring {
    batches: [UnsafeCell<Batch>; DEPTH],
    sent: Counter,
    received: Counter,
}

// SAFETY: 1. `batches` blocks the auto impl; a batch is touched by the only sender while
// `sent - received < DEPTH` and by the only receiver while `received < sent`, never by both.
unsafe impl Sync for Ring {}

/// The right to send; there is one per ring.
pub(crate) struct Sender<'a>(&'a Ring);

/// The right to receive; there is one per ring.
pub(crate) struct Receiver<'a>(&'a Ring);

impl Ring {
    pub(crate) fn new() -> Self {
        Self {
            batches: [const { UnsafeCell::new([None; BATCH]) }; DEPTH],
            sent: Counter(AtomicUsize::new(0)),
            received: Counter(AtomicUsize::new(0)),
        }
    }

    pub(crate) fn split(&mut self) -> (Sender<'_>, Receiver<'_>) {
        let ring = &*self;
        (Sender(ring), Receiver(ring))
    }
}

impl Sender<'_> {
    /// Waits for room, lets `fill` write the next batch, sends it.
    pub(crate) fn send(&mut self, fill: impl FnOnce(&mut Batch)) {
        let ring = self.0;
        // ORDERING: relaxed, only this side writes it.
        let sent = ring.sent.0.load(Ordering::Relaxed);
        ring.received
            .wait_until(|received| sent.wrapping_sub(received) < DEPTH);
        // SAFETY: 1. the receiver is done with this batch and has not been told of the next.
        fill(unsafe { &mut *ring.batches[sent % DEPTH].get() });
        // ORDERING: release, publishes the batch to `receive`.
        ring.sent.0.store(sent.wrapping_add(1), Ordering::Release);
    }
}

impl Receiver<'_> {
    /// Waits for a batch and lets `take` read it.
    pub(crate) fn receive(&mut self, take: impl FnOnce(&Batch)) {
        let ring = self.0;
        // ORDERING: relaxed, only this side writes it.
        let received = ring.received.0.load(Ordering::Relaxed);
        ring.sent.wait_until(|sent| sent != received);
        // SAFETY: 1. the sender has published this batch and leaves it alone until told.
        take(unsafe { &*ring.batches[received % DEPTH].get() });
        // ORDERING: release, gives the batch back to `send`.
        ring.received
            .0
            .store(received.wrapping_add(1), Ordering::Release);
    }
}
