//! One thread of a soak, or rather one after another: each ends after a while, and the next one of its
//! number goes on with its blocks.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use flagstone_fuzz::{Exchange, Op, Run};
use rand::rngs::SmallRng;

use crate::STOP;
use crate::args::Args;

/// Operations between two looks at whether to stop.
const BETWEEN_LOOKS: u64 = 1 << 12;

/// How far a worker is, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Progress(AtomicU64);

impl Progress {
    /// Operations begun.
    pub(crate) fn operations(&self) -> u64 {
        // ORDERING: Relaxed, a counter for people.
        self.0.load(Ordering::Relaxed)
    }
}

/// What went wrong, and when.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) thread: u64,
    pub(crate) operation: u64,
    pub(crate) what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            thread,
            operation,
            what,
        } = self;
        write!(f, "operation {operation} of thread {thread}: {what}")
    }
}

/// Carries out a worker's share of the operations.
pub(crate) fn work(
    args: &Args,
    number: u64,
    exchange: &Exchange,
    progress: &Progress,
) -> Result<(), Fault> {
    let mut worker = Worker {
        args,
        number,
        progress,
        rng: Op::generator(args.seed, number),
        run: Run::new(number, args.slots, args.most_per_thread(), exchange),
    };
    let share = args.share(number);
    while progress.operations() < share && !is_to_stop() {
        let until = share.min(progress.operations() + args.lifetime);
        // The same state in a new thread: the allocator sees one end and another begin.
        let outcome = thread::scope(|scope| {
            let thread = scope.spawn(|| worker.until(until));
            thread.join().expect("operations report, they do not panic")
        });
        if outcome.is_err() {
            // ORDERING: Relaxed, the flag publishes nothing but itself.
            STOP.store(true, Ordering::Relaxed);
            return outcome;
        }
    }
    let Worker { run, .. } = worker;
    run.finish().map_err(|what| Fault {
        thread: number,
        operation: progress.operations(),
        what,
    })
}

fn is_to_stop() -> bool {
    // ORDERING: Relaxed, the flag publishes nothing but itself.
    STOP.load(Ordering::Relaxed)
}

struct Worker<'a> {
    args: &'a Args,
    number: u64,
    progress: &'a Progress,
    rng: SmallRng,
    run: Run<'a>,
}

impl Worker<'_> {
    fn until(&mut self, end: u64) -> Result<(), Fault> {
        let mut operation = self.progress.operations();
        while operation < end {
            if operation.is_multiple_of(BETWEEN_LOOKS) && is_to_stop() {
                break;
            }
            let op = self.op(operation);
            operation += 1;
            // ORDERING: Relaxed, a counter for people; nobody else writes it.
            self.progress.0.store(operation, Ordering::Relaxed);
            self.run.step(op).map_err(|what| Fault {
                thread: self.number,
                operation,
                what: format!("{op:?}: {what}"),
            })?;
        }
        Ok(())
    }

    fn op(&mut self, operation: u64) -> Op {
        let is_time = |period: u64| period != 0 && operation % period == period - 1;
        if is_time(self.args.purge_every) {
            Op::Purge
        } else if is_time(self.args.verify_every) {
            Op::Verify
        } else {
            Op::random(&mut self.rng)
        }
    }
}
