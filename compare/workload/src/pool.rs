//! m_pool: a pool of threads that grows for a load and shrinks after it, several times.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Builder, Scope, ScopedJoinHandle};
use std::time::Duration;

use super::bag::Bag;
use super::held::Held;
use super::outcome::{Outcome, Sample};
use super::random::Random;
use super::sampler::Sampler;
use super::setting::Setting;
use super::sizes::Falling;

/// Threads under load and at rest.
const FULL: usize = 64;
const CORE: usize = 4;
const CYCLES: usize = 3;
/// What each thread holds.
const HOLD: f64 = (2 << 20) as f64;
const SMALLEST: usize = 16;
const LARGEST: usize = 16 << 10;
/// A thread under load replaces all its blocks so many times; at rest it replaces so many blocks
/// in each pause.
const TURNS: usize = 4;
const REPLACED: usize = 100;
const PAUSE: Duration = Duration::from_millis(5);
/// A leaving thread leaves one block in so many to the main thread, until the next rest.
const LEFT: usize = 50;
const STACK: usize = 128 << 10;
const POLL: Duration = Duration::from_millis(2);

/// What the threads and the main thread share.
// ORDERING: all words are relaxed; counts of bytes for the sampler, and of threads that the main
// thread waits for before it waits at the barrier or for their end.
struct Pool {
    hold: usize,
    live: [AtomicUsize; FULL],
    full: AtomicUsize,
    gone: AtomicUsize,
    release: Barrier,
    closing: AtomicBool,
}

/// One thread and what it holds.
struct Worker<'a> {
    pool: &'a Pool,
    index: usize,
    sizes: Falling,
    random: Random,
    bag: Bag,
}

impl<'a> Worker<'a> {
    fn new(pool: &'a Pool, index: usize, seed: usize) -> Result<Self, String> {
        let sizes = Falling::new(SMALLEST, LARGEST);
        let mut worker = Self {
            pool,
            index,
            sizes,
            random: Random::new(1000 + seed as u64),
            bag: Bag::for_bytes(pool.hold, sizes.mean())?,
        };
        worker.fill();
        Ok(worker)
    }

    fn fill(&mut self) {
        while self.bag.bytes() < self.pool.hold {
            self.bag.add(self.sizes.draw(&mut self.random));
        }
        self.publish();
    }

    fn replace(&mut self, blocks: usize) -> Result<(), String> {
        for _ in 0..blocks.min(self.bag.count()) {
            self.bag.free(self.random.below(self.bag.count()))?;
        }
        self.fill();
        Ok(())
    }

    fn churn(&mut self) -> Result<(), String> {
        for _ in 0..TURNS * self.bag.count() / REPLACED {
            self.replace(REPLACED)?;
        }
        Ok(())
    }

    fn publish(&self) {
        self.pool.live[self.index].store(self.bag.bytes(), Ordering::Relaxed);
    }

    /// Frees all but the blocks that it leaves behind.
    fn leave(mut self) -> Result<Vec<Held>, String> {
        let mut left = Vec::new();
        while self.bag.count() > 0 {
            let held = self.bag.take(self.bag.count() - 1);
            if self.bag.count().is_multiple_of(LEFT) {
                left.push(held);
            } else {
                held.free()?;
            }
        }
        self.publish();
        Ok(left)
    }
}

impl Pool {
    /// Life of a thread that is there under load only.
    fn under_load(&self, index: usize, seed: usize) -> Result<Vec<Held>, String> {
        let worker = Worker::new(self, index, seed).and_then(|mut worker| {
            worker.churn()?;
            Ok(worker)
        });
        self.full.fetch_add(1, Ordering::Relaxed);
        self.release.wait();
        let left = worker.and_then(Worker::leave);
        self.gone.fetch_add(1, Ordering::Relaxed);
        left
    }

    /// Life of a thread that stays.
    fn at_rest(&self, index: usize) -> Result<Vec<Held>, String> {
        let mut worker = Worker::new(self, index, index)?;
        while !self.closing.load(Ordering::Relaxed) {
            worker.replace(REPLACED)?;
            thread::sleep(PAUSE);
        }
        worker.leave()
    }

    fn live(&self) -> usize {
        let bytes = self.live.iter().map(|live| live.load(Ordering::Relaxed));
        bytes.sum()
    }
}

/// The main thread's side.
struct Observer<'a> {
    pool: &'a Pool,
    sampler: Sampler,
    rest: Duration,
    /// What threads have left behind.
    left: Vec<Held>,
    full: Option<Sample>,
    shrunk: Vec<Sample>,
}

type Handle<'scope> = ScopedJoinHandle<'scope, Result<Vec<Held>, String>>;

fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    life: impl FnOnce() -> Result<Vec<Held>, String> + Send + 'scope,
) -> Handle<'scope> {
    let builder = Builder::new().stack_size(STACK);
    let handle = builder.spawn_scoped(scope, life);
    handle.expect("a thread can be started")
}

impl Observer<'_> {
    fn live(&self) -> usize {
        self.pool.live() + self.left.iter().map(Held::size).sum::<usize>()
    }

    fn look(&mut self) -> Result<(), String> {
        self.sampler.look(self.live())
    }

    /// Looks on until so many threads have said so.
    fn await_count(&mut self, word: &AtomicUsize, count: usize) -> Result<(), String> {
        while word.load(Ordering::Relaxed) < count {
            thread::sleep(POLL);
            self.look()?;
        }
        word.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Grows, shrinks, rests.
    fn cycle(&mut self, cycle: usize) -> Result<(), String> {
        let pool = self.pool;
        let mut left = Vec::new();
        thread::scope(|scope| {
            let life = |index| spawn(scope, move || pool.under_load(index, cycle * FULL + index));
            let handles: Vec<Handle<'_>> = (CORE..FULL).map(life).collect();
            let full = self
                .await_count(&pool.full, FULL - CORE)
                .and_then(|()| self.sampler.measure(self.live()));
            // even after an error: they wait
            pool.release.wait();
            self.full = Some(full?);
            self.await_count(&pool.gone, FULL - CORE)?;
            for handle in handles {
                left.extend(handle.join().map_err(|_| "a thread panicked")??);
            }
            Ok::<(), String>(())
        })?;
        for old in self.left.drain(..) {
            old.free()?;
        }
        self.left = left;
        for _ in 0..self.rest.as_millis() / POLL.as_millis() {
            thread::sleep(POLL);
            self.look()?;
        }
        let shrunk = self.sampler.measure(self.live())?;
        self.shrunk.push(shrunk);
        Ok(())
    }
}

pub(crate) fn pool(setting: &Setting) -> Result<Outcome, String> {
    let pool = Pool {
        hold: (HOLD * setting.scale) as usize,
        live: [const { AtomicUsize::new(0) }; FULL],
        full: AtomicUsize::new(0),
        gone: AtomicUsize::new(0),
        release: Barrier::new(FULL - CORE + 1),
        closing: AtomicBool::new(false),
    };
    let mut observer = Observer {
        pool: &pool,
        sampler: Sampler::begin()?,
        rest: Duration::from_millis(if setting.scale < 1.0 { 400 } else { 1200 }),
        left: Vec::new(),
        full: None,
        shrunk: Vec::new(),
    };
    // the C library keeps the stacks of threads that have gone
    observer.sampler.leave_out_stacks(FULL * STACK);
    thread::scope(|scope| {
        let pool = &pool;
        let core: Vec<Handle<'_>> = (0..CORE)
            .map(|index| spawn(scope, move || pool.at_rest(index)))
            .collect();
        let done = (0..CYCLES).try_for_each(|cycle| observer.cycle(cycle));
        pool.closing.store(true, Ordering::Relaxed);
        for handle in core {
            observer
                .left
                .extend(handle.join().map_err(|_| "a thread panicked")??);
        }
        done
    })?;
    for left in observer.left.drain(..) {
        left.free()?;
    }
    report(&observer)
}

fn report(observer: &Observer<'_>) -> Result<Outcome, String> {
    let sampler = &observer.sampler;
    let full = observer.full.ok_or("no cycle")?;
    let [first, second, third] = observer.shrunk[..] else {
        return Err("one figure for each cycle".into());
    };
    Ok(sampler.outcome(vec![
        ("full_ratio", sampler.ratio(&full)),
        ("shrunk_ratio", sampler.ratio(&third)),
        ("shrunk1_kb", first.resident_kb),
        ("shrunk2_kb", second.resident_kb),
        ("shrunk3_kb", third.resident_kb),
        ("shrunk_live_kb", third.live_kb),
        ("full_kb", full.resident_kb),
        ("full_live_kb", full.live_kb),
        ("mappings", third.mappings),
    ]))
}
