//! Threads that use the allocator and then sleep, all at the same stage.

use std::sync::{Condvar, Mutex};
use std::thread::{self, ScopedJoinHandle};

use crate::ALLOC;
use crate::blocks::pages_of;
use crate::common::block::Block;
use crate::common::process::{is_in_memory, page_size};

/// Sizes of blocks and how many, for magazines that hold as much as they may.
pub(crate) type Sizes = &'static [(usize, usize)];
pub(crate) const CACHED: Sizes = &[(64, 2_000), (1 << 10, 200), (16 << 10, 16), (128 << 10, 6)];
/// Fewer than the magazines hold once they have seen [`CACHED`].
pub(crate) const FEW: Sizes = &[(64, 300), (1 << 10, 60), (16 << 10, 5), (128 << 10, 2)];
pub(crate) const SLEEPERS: usize = 4;

/// A thread that works in stages and sleeps in between. Its own memory does not grow.
pub(crate) struct Sleeper {
    blocks: Vec<(Block, usize)>,
    /// Pages that its blocks were in.
    pages: Vec<usize>,
}

impl Sleeper {
    fn new() -> Self {
        Self {
            blocks: Vec::with_capacity(4_000),
            pages: Vec::with_capacity(40_000),
        }
    }

    pub(crate) fn alloc(&mut self, sizes: &[(usize, usize)]) {
        for &(size, count) in sizes {
            for tag in 0..count {
                let block = Block::filled(&ALLOC, size, 8, tag);
                self.pages.extend(pages_of(&block));
                self.blocks.push((block, tag));
            }
        }
    }

    pub(crate) fn free(&mut self) {
        for (block, tag) in self.blocks.drain(..) {
            block.check(tag);
            block.free(&ALLOC);
        }
    }
}

/// What all sleepers do next: each waits until `stage` is beyond the stages it has done.
struct Alarm {
    /// The stage, and how often a sleeper ended one.
    now: Mutex<(usize, usize)>,
    changes: Condvar,
}

impl Alarm {
    fn sleep_until(&self, stage: usize) {
        let now = self.now.lock().expect("no panic under this lock");
        let early = |now: &mut (usize, usize)| now.0 < stage;
        drop(self.changes.wait_while(now, early));
    }

    fn end_stage(&self) {
        self.now.lock().expect("no panic under this lock").1 += 1;
        self.changes.notify_all();
    }

    /// Has every sleeper do the stage, and returns when all have and are about to sleep again.
    fn run(&self, stage: usize) {
        let mut now = self.now.lock().expect("no panic under this lock");
        now.0 = stage;
        self.changes.notify_all();
        let early = |now: &mut (usize, usize)| now.1 < stage * SLEEPERS;
        drop(self.changes.wait_while(now, early));
    }
}

/// Wakes the sleepers for good, also when what happens between the stages fails.
struct Wake<'a>(&'a Alarm);

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        self.0.now.lock().expect("no panic under this lock").0 = usize::MAX;
        self.0.changes.notify_all();
    }
}

/// Waits until the threads are gone, not only done: what they keep is given back as they exit.
pub(crate) fn join(threads: Vec<ScopedJoinHandle<'_, ()>>) {
    for thread in threads {
        thread.join().expect("the thread did not panic");
    }
}

/// Runs `stages` on every sleeper; after each all sleep, and `between` runs with the number of stages
/// done and the sleepers.
pub(crate) fn with_sleepers(
    stages: &[fn(&mut Sleeper)],
    mut between: impl FnMut(usize, &[Mutex<Sleeper>]),
) {
    let alarm = Alarm {
        now: Mutex::new((0, 0)),
        changes: Condvar::new(),
    };
    let sleepers: [Mutex<Sleeper>; SLEEPERS] = core::array::from_fn(|_| Mutex::new(Sleeper::new()));
    thread::scope(|scope| {
        let wake = Wake(&alarm);
        let spawn = |sleeper| {
            let alarm = &alarm;
            scope.spawn(move || {
                for (index, stage) in stages.iter().enumerate() {
                    alarm.sleep_until(index + 1);
                    stage(&mut Mutex::lock(sleeper).expect("nobody panicked"));
                    alarm.end_stage();
                }
                // Stays while others measure: a thread that ends gives everything back.
                alarm.sleep_until(stages.len() + 1);
            })
        };
        let threads: Vec<_> = sleepers.iter().map(spawn).collect();
        for stage in 1..=stages.len() {
            alarm.run(stage);
            between(stage, &sleepers);
        }
        drop(wake);
        join(threads);
    });
}

/// Bytes in memory of all pages that blocks of the sleepers were in. One sleeper may have used memory
/// that another used before, so this cannot be told for each.
pub(crate) fn pinned(sleepers: &[Mutex<Sleeper>]) -> usize {
    let mut pages = Vec::with_capacity(200_000);
    for sleeper in sleepers {
        pages.extend_from_slice(&sleeper.lock().expect("nobody panicked").pages);
    }
    pages.sort_unstable();
    pages.dedup();
    pages.retain(|page| is_in_memory(*page));
    pages.len() * page_size()
}

/// Panics if the sleepers pin more than the newest block of each of `sizes`.
#[track_caller]
pub(crate) fn expect_few_pinned(sleepers: &[Mutex<Sleeper>], sizes: impl Iterator<Item = usize>) {
    /// For small things of std's that lie in the same pages.
    pub(crate) const SLACK: usize = 128 << 10;
    // A block may begin in a page and end in another.
    let each = |size: usize| size.next_multiple_of(page_size()) + page_size();
    let bound = SLEEPERS * sizes.map(each).sum::<usize>() + SLACK;
    let pinned = pinned(sleepers);
    assert!(
        pinned <= bound,
        "{SLEEPERS} threads pin {pinned} bytes, not {bound}"
    );
}

pub(crate) fn cached_sizes() -> impl Iterator<Item = usize> {
    CACHED.iter().map(|(size, _)| *size)
}

/// Sizes of every class: an eighth of a doubling apart, so that some share one.
pub(crate) fn all_sizes() -> impl Iterator<Item = usize> {
    (4..18)
        .flat_map(|doubling| (1..9).map(move |eighth| (1 << doubling) + (eighth << doubling) / 8))
}
