//! Keeps every lane staffed: joins threads that ended, starts their successors, and at the end
//! frees what is left.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Instant;

use crate::args::Args;
use crate::common::interrupt;
use crate::report::Progress;
use crate::shared::{Shared, lock};
use crate::worker::Tally;
use crate::{fail, verify};

/// How often ended threads are replaced.
const TICK: Duration = Duration::from_millis(5);

/// How often the allocator checks itself.
const VERIFY_EVERY: Duration = Duration::from_millis(250);

/// What a run did.
pub(crate) struct Run {
    pub(crate) tally: Tally,
    pub(crate) threads: u64,
    /// Threads that the system refused to start.
    pub(crate) refused: u64,
    pub(crate) peak_live: usize,
    pub(crate) elapsed: Duration,
}

/// One optional thread per lane.
struct Crew<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    shared: &'env Shared,
    handles: Vec<Option<ScopedJoinHandle<'scope, ()>>>,
    started: u64,
    refused: u64,
}

/// Runs until the time is over or Ctrl-C. On return all blocks are free and all threads joined.
pub(crate) fn run(args: &Args, shared: &Shared) -> Run {
    let begin = Instant::now();
    let (threads, refused) = thread::scope(|scope| {
        let handles = shared.lanes.iter().map(|_| None).collect();
        let mut crew = Crew {
            scope,
            shared,
            handles,
            started: 0,
            refused: 0,
        };
        crew.supervise(args, begin);
        crew.dismiss();
        (crew.started, crew.refused)
    });
    let mut tally = Tally::default();
    for lane in &shared.lanes {
        let mut worker = lock(lane);
        worker.free_all(shared);
        tally += worker.tally;
    }
    let used = shared.budget.used();
    assert_eq!(used, 0, "the harness lost a block");
    Run {
        tally,
        threads,
        refused,
        peak_live: shared.budget.peak(),
        elapsed: begin.elapsed(),
    }
}

impl Crew<'_, '_> {
    fn supervise(&mut self, args: &Args, begin: Instant) {
        let end = Duration::from_secs(args.seconds);
        let mut verified = Instant::now();
        let mut progress = Progress::new();
        while begin.elapsed() < end && !interrupt::requested() {
            self.staff();
            if verified.elapsed() >= VERIFY_EVERY {
                verify(args.verify);
                verified = Instant::now();
            }
            progress.show(self.shared, begin.elapsed());
            thread::sleep(TICK);
        }
        progress.clear();
    }

    /// Replaces the threads that ended. A thread that cannot be started is tried again at the next
    /// tick.
    fn staff(&mut self) {
        for lane in 0..self.handles.len() {
            if self.handles[lane]
                .as_ref()
                .is_some_and(ScopedJoinHandle::is_finished)
            {
                self.join(lane);
            }
            if self.handles[lane].is_none() {
                let shared = self.shared;
                let life = move || lock(&shared.lanes[lane]).live(shared);
                match thread::Builder::new().spawn_scoped(self.scope, life) {
                    Ok(handle) => self.handles[lane] = Some(handle),
                    Err(_) => self.refused += 1,
                }
                self.started += u64::from(self.handles[lane].is_some());
            }
        }
    }

    fn dismiss(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for lane in 0..self.handles.len() {
            self.join(lane);
        }
    }

    fn join(&mut self, lane: usize) {
        if let Some(handle) = self.handles[lane].take()
            && handle.join().is_err()
        {
            fail(format_args!("a worker panicked"));
        }
    }
}
