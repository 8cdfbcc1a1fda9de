//! Loss of power, below everything that writes: whatever the disk has then, who opens the file finds the last commit, or
//! the one that was under way.

use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use std::env;
use std::fs::{self, File};
use std::os::fd::FromRawFd;
use std::sync::Mutex;

use flagstone::allocator_api2::boxed::Box;
use flagstone::failpoints::{self, Recorder, Written};
use flagstone::{Committed, Mapped, MappedError};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::children::{end_of, start};
use crate::commit_load::State;
use crate::commits::{close, commit, open};
use crate::common::process::begin;
use crate::files::Folder;
use crate::power_disk::{Disk, Left, Told};

const CAPACITY: usize = 12 << 20;
/// Images that one process opens, one after the other.
const BATCH: usize = 100;

/// What happened, in order.
#[derive(Clone)]
enum Step {
    Told(Told),
    /// States, by their numbers, of which one has to be found from here on.
    Allowed([usize; 2]),
}

static STEPS: Mutex<Vec<Step>> = Mutex::new(Vec::new());

fn push(step: Step) {
    STEPS.lock().expect("whole").push(step);
}

/// Only files count: their folders are told, too.
fn note(file: i32, what: Written<'_>) {
    // SAFETY: open, and not closed by this.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(file) });
    if file.metadata().expect("open").is_file() {
        push(Step::Told(Told::new(what)));
    }
}
static RECORDER: Recorder = note;

fn take_steps() -> Vec<Step> {
    core::mem::take(&mut *STEPS.lock().expect("whole"))
}

/// A program that is killed now and then, and what it told its file.
struct Program {
    path: String,
    base: NonNull<u8>,
    steps: Vec<Step>,
    /// Where it began anew.
    begins: Vec<usize>,
    states: Vec<State>,
    /// The last that was committed.
    current: usize,
    random: SmallRng,
    disk: Disk,
}

impl Program {
    fn new(path: String, seed: u64) -> Self {
        let mut program = Self {
            path,
            base: NonNull::dangling(),
            steps: Vec::new(),
            begins: Vec::new(),
            states: vec![State::default()],
            current: 0,
            random: SmallRng::seed_from_u64(seed),
            disk: Disk::new(CAPACITY),
        };
        (0..16).for_each(|_| program.session());
        fs::remove_file(&program.path).expect("there");
        program
    }

    fn state(&self) -> &State {
        &self.states[self.current]
    }

    /// Has a call refused now and then.
    fn may_refuse(&mut self) {
        if self.random.random_range(0..8) == 0 {
            failpoints::refuse_after(self.random.random_range(0..60), self.random.random());
        }
    }

    /// Commits another state; whether it can go on.
    fn commit(&mut self, heap: Committed, is_compacted: bool) -> bool {
        let seed = self.random.random();
        let next = self.state().next(seed);
        if next.store(heap, self.state()).is_err() {
            return self.roll_back(heap);
        }
        let (before, new) = (self.current, self.states.len());
        self.states.push(next);
        push(Step::Allowed([before, new]));
        self.may_refuse();
        let done = if is_compacted {
            // SAFETY: nobody else uses it.
            unsafe { heap.compact() }
        } else {
            // SAFETY: as above.
            unsafe { heap.commit() }
        };
        let refused = failpoints::refuse_none();
        match done {
            Ok(()) => {
                self.current = new;
                push(Step::Allowed([new, new]));
                true
            }
            Err(error) => {
                assert_ne!(refused, 0, "{error}");
                if error == MappedError::Poisoned || is_compacted {
                    return false;
                }
                // It was none.
                push(Step::Allowed([before, before]));
                self.roll_back(heap)
            }
        }
    }

    fn roll_back(&mut self, heap: Committed) -> bool {
        self.may_refuse();
        // SAFETY: nobody else uses it, and nothing of it.
        let done = unsafe { heap.rollback() };
        let refused = failpoints::refuse_none();
        match done {
            Ok(()) => {
                assert!(self.state().is_in(heap), "a rollback");
                true
            }
            Err(error) => {
                assert_ne!(refused, 0, "{error}");
                false
            }
        }
    }

    fn run(&mut self, heap: Committed) {
        for _ in 0..self.random.random_range(1..12) {
            let goes_on = match self.random.random_range(0..20) {
                0 => {
                    self.may_refuse();
                    let done = heap.checkpoint();
                    assert!(failpoints::refuse_none() > 0 || done.is_ok());
                    done != Err(MappedError::Poisoned)
                }
                1 => self.commit(heap, true),
                2 => {
                    let seed = self.random.random();
                    let next = self.state().next(seed);
                    let _ = next.store(heap, self.state());
                    self.roll_back(heap)
                }
                3 => heap.purge().is_ok(),
                _ => self.commit(heap, false),
            };
            if !goes_on {
                break;
            }
        }
        // Nothing is refused: a slot that stays taken would be in the way of the next session.
        // SAFETY: nobody else uses it.
        let _ = unsafe { heap.close() };
    }

    /// Runs until it ends, or is killed: then what it told its file from some time on it never did.
    fn session(&mut self) {
        let allowed = self.steps.iter().rev().find_map(|step| match step {
            Step::Allowed(states) => Some(*states),
            Step::Told(_) => None,
        });
        failpoints::record(Some(&RECORDER));
        let heap = match allowed {
            None => Committed::options().capacity(CAPACITY).create(&self.path),
            Some(_) => open(&self.path),
        };
        let heap = heap.expect("a heap");
        self.base = heap.base();
        let first = match allowed {
            None => STEPS.lock().expect("whole").len(),
            Some(_) => 0,
        };
        let mut allowed = allowed.unwrap_or([0, 0]).into_iter();
        let found = allowed.find(|state| self.states[*state].is_in(heap));
        self.current = found.expect("the last commit, or the next");
        // From here on it is that, whatever happens.
        push(Step::Allowed([self.current; 2]));
        self.run(heap);
        failpoints::record(None);
        let mut steps = take_steps();
        if self.random.random_range(0..4) != 0 {
            self.kill(&mut steps, first);
        }
        for step in &steps {
            if let Step::Told(told) = step {
                self.disk.tell(told);
            }
        }
        self.begins.push(self.steps.len());
        self.steps.append(&mut steps);
        let file = File::options().write(true).open(&self.path).expect("there");
        self.disk.write_cache(&file);
    }

    /// Cuts steps short, a write at a page of the file.
    fn kill(&mut self, steps: &mut Vec<Step>, first: usize) {
        let mut last = self
            .random
            .random_range(first + 1..=steps.len().max(first + 1));
        if self.random.random() {
            // Where there is little time for it: in the midst of one of the few waits.
            let records = CAPACITY + 2 * 4096;
            let which = self.random.random_range(0..3);
            let is_short = |step: &usize| match &steps[*step] {
                Step::Told(Told::Bytes { place, .. }) if *place >= records => which == 0,
                Step::Told(Told::Bytes { place, .. }) => which == 1 && *place >= CAPACITY,
                Step::Told(Told::Hole { .. }) => which == 2,
                _ => false,
            };
            let all: Vec<_> = (first..steps.len()).filter(is_short).collect();
            if !all.is_empty() {
                last = all[self.random.random_range(0..all.len())] + 1;
            }
        }
        let next = steps.get(last).cloned();
        steps.truncate(last);
        if let Some(Step::Told(Told::Bytes { place, mut bytes })) = next {
            let pages = (place / 4096 + 1)..(place + bytes.len()).div_ceil(4096);
            if !pages.is_empty() {
                bytes.truncate(self.random.random_range(pages) * 4096 - place);
                steps.push(Step::Told(Told::Bytes { place, bytes }));
            }
        }
    }
}

/// What a power loss may leave of a program's file: behind so many steps. In order.
fn all_images(program: &Program, random: &mut SmallRng) -> Vec<(usize, Left)> {
    let (steps, anywhere) = (program.steps.len(), vec![0]);
    let is_wait =
        |step: &usize| matches!(program.steps[*step], Step::Told(Told::SyncedRange { .. }));
    let waits: Vec<_> = (0..steps).filter(is_wait).collect();
    let mut any = |count: usize| -> Vec<_> {
        let one = |_| {
            // Often soon after a kill, or behind a wait.
            let (near, most) = match random.random_range(0..3) {
                0 => (&program.begins, 60),
                1 => (&waits, 3),
                _ => (&anywhere, steps),
            };
            let step = near[random.random_range(0..near.len())] + random.random_range(1..=most);
            (step.min(steps), Left::Any(random.random()))
        };
        (0..count).map(one).collect()
    };
    let has = |name: &str| env::var_os(name).is_some();
    let mut all = match () {
        // Each step, which takes minutes.
        () if has("MAPPED_ALL") => {
            let mut all = any(10_000 / PROGRAMS);
            all.extend((1..=steps).flat_map(|step| [(step, Left::All), (step, Left::Synced)]));
            all
        }
        () => {
            let times = if has("TEST_LONG") { 5 } else { 1 };
            let mut all = any(120 * times);
            let mut whole = |left: Left| {
                any(40 * times)
                    .into_iter()
                    .map(move |(step, _)| (step, left))
            };
            all.extend(whole(Left::All));
            all.extend(whole(Left::Synced));
            all
        }
    };
    all.sort_by_key(|(steps, _)| *steps);
    all
}

/// One program's file, as the disk has it behind so many steps.
struct Images<'a> {
    program: &'a Program,
    disk: Disk,
    allowed: Option<[usize; 2]>,
    done: usize,
}

impl Images<'_> {
    /// Goes on; the sectors that changed for sure.
    fn go_to(&mut self, steps: usize) -> Vec<usize> {
        let mut changed = Vec::new();
        for step in &self.program.steps[self.done..steps] {
            match step {
                Step::Allowed(states) => self.allowed = Some(*states),
                Step::Told(told) => changed.append(&mut self.disk.tell(told)),
            }
        }
        self.done = steps;
        changed
    }

    fn open_each(&mut self, images: &[(usize, Left)], path: &str, at: &AtomicU64) {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(path).expect("a file");
        self.disk.write_all(&file);
        for (number, (steps, left)) in images.iter().enumerate() {
            at.store(number as u64, Ordering::Relaxed);
            let mut changed = self.go_to(*steps);
            changed.sort_unstable();
            self.disk.write(&file, changed.into_iter());
            // Before it is made, it has no name.
            let Some(allowed) = self.allowed else {
                continue;
            };
            let seed = if let Left::Any(seed) = left { *seed } else { 0 };
            let mut random = SmallRng::seed_from_u64(seed);
            let mut changed = self.disk.leave(&file, *left, &mut random);
            failpoints::record(Some(&RECORDER));
            self.open_one(path, allowed, number % 8 == 0);
            failpoints::record(None);
            for step in take_steps() {
                if let Step::Told(told) = step {
                    changed.extend(self.disk.changed_by(&told));
                }
            }
            changed.sort_unstable();
            changed.dedup();
            self.disk.write(&file, changed.into_iter());
        }
    }

    fn open_one(&self, path: &str, allowed: [usize; 2], goes_on: bool) {
        let heap = open(path).expect("a heap");
        heap.verify().expect("a sound heap");
        let states = &self.program.states;
        let mut found = allowed.into_iter();
        let found = found.find(|state| states[*state].is_in(heap));
        let found = found.unwrap_or_else(|| panic!("none of {allowed:?}"));
        if goes_on {
            let next = states[found].next(7);
            next.store(heap, &states[found]).expect("room");
            commit(heap);
            close(heap);
            let heap = open(path).expect("a heap");
            assert!(next.is_in(heap));
        }
        close(heap);
    }
}

/// Takes away what a heap left that was closed: another has its address in its constants.
#[expect(clippy::disallowed_methods, reason = "what the allocator does not own")]
fn unmap(base: NonNull<u8>) {
    // SAFETY: nobody uses it any more, in this process.
    assert_eq!(unsafe { libc::munmap(base.as_ptr().cast(), CAPACITY) }, 0);
}

const PROGRAMS: usize = 4;

#[test]
fn the_last_commit_is_found_however_the_power_goes() {
    let _turn = begin();
    let shared = Mapped::create(1 << 20).expect("a heap");
    // The image that a child is at.
    let at: &AtomicU64 = Box::leak(Box::new_in(AtomicU64::new(0), shared.handle()));
    let folder = Folder::new("/dev/shm");
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
    let first: u64 = number("POWER_SEED").unwrap_or(0);
    for seed in first..first + PROGRAMS as u64 {
        let program = Program::new(folder.path("heap"), seed);
        let images = all_images(&program, &mut SmallRng::seed_from_u64(seed));
        let mut disk = Images {
            program: &program,
            disk: Disk::new(CAPACITY),
            allowed: None,
            done: 0,
        };
        for batch in images.chunks(BATCH) {
            disk.go_to(batch[0].0);
            let child = start(|| {
                unmap(program.base);
                disk.open_each(batch, &folder.path("image"), at);
            });
            let status = end_of(child);
            let image = usize::try_from(at.load(Ordering::Relaxed)).expect("few");
            assert_eq!(status, 0, "POWER_SEED={seed}, {:?}", batch[image]);
            // SAFETY: `alarm` has no preconditions. All of them may take longer than a test.
            unsafe { libc::alarm(600) };
        }
        println!(
            "{seed}: {} steps, {} images",
            program.steps.len(),
            images.len()
        );
    }
}
