//! Processes that commit and are killed at random moments; those that are forked meanwhile, and those that come at once.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::{env, fs, thread};

use flagstone::allocator_api2::boxed::Box;
use flagstone::{Mapped, MappedError, Opened};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::children::{end_of, start};
use crate::commit_load::{State, commits_in};
use crate::commits::{close, commit, open, options};
use crate::common::child::{run_child, scenario};
use crate::common::process::begin;
use crate::files::{Folder, in_child};

const SEED: u64 = 5;

/// Words that processes share.
pub(crate) fn board<const COUNT: usize>() -> &'static [AtomicU64; COUNT] {
    let shared = Mapped::create(1 << 20).expect("a heap");
    let words = [const { AtomicU64::new(0) }; COUNT];
    Box::leak(Box::new_in(words, shared.handle()))
}

/// The heap in this file, which has `before` or the state after that. Commits others until it is killed, and says which.
fn work(path: &str, before: &State, seed: u64, acknowledged: &AtomicU64) {
    let heap = open(path).expect("the heap");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut state = before.clone();
    if commits_in(heap) != state.commits {
        state = state.next(SEED);
    }
    assert!(state.is_in(heap), "{} commits", state.commits);
    heap.verify().expect("a sound heap");
    acknowledged.store(state.commits, Ordering::Release);
    loop {
        let next = match random.random_range(0..10) {
            0 => {
                let other = state.next(random.random());
                other.store(heap, &state).expect("room");
                // SAFETY: nobody else uses it, and nothing of it.
                unsafe { heap.rollback() }.expect("the last commit");
                continue;
            }
            1 => {
                heap.checkpoint().expect("room");
                continue;
            }
            _ => state.next(SEED),
        };
        next.store(heap, &state).expect("room");
        if random.random_range(0..20) == 0 {
            // SAFETY: nobody else uses it.
            unsafe { heap.compact() }.expect("room");
        } else {
            commit(heap);
        }
        acknowledged.store(next.commits, Ordering::Release);
        state = next;
    }
}

#[test]
fn a_kill_loses_no_commit() {
    let _turn = begin();
    let kills = if env::var_os("TEST_LONG").is_some() {
        500
    } else {
        25
    };
    let [acknowledged] = board();
    for folder in Folder::all() {
        let path = folder.path("heap");
        acknowledged.store(0, Ordering::Relaxed);
        in_child(|| close(options().create(&path).expect("a heap")));
        let (mut state, mut random) = (State::default(), SmallRng::seed_from_u64(3));
        for number in 0..kills {
            let worker = start(|| work(&path, &state, number, acknowledged));
            // Some are killed while they open it.
            let most = if number % 4 == 0 { 3_000 } else { 60_000 };
            thread::sleep(Duration::from_micros(random.random_range(0..most)));
            // SAFETY: our own child, not yet waited for.
            assert_eq!(unsafe { libc::kill(worker, libc::SIGKILL) }, 0);
            assert_eq!(end_of(worker) & 0x7f, libc::SIGKILL, "kill {number}");
            while state.commits < acknowledged.load(Ordering::Acquire) {
                state = state.next(SEED);
            }
            // SAFETY: `alarm` has no preconditions.
            unsafe { libc::alarm(600) };
        }
        println!("{kills} kills, {} commits", state.commits);
        assert!(state.commits > kills / 10);
    }
}

/// Children that are forked in the midst of a commit: they read, commit nothing, hang on nothing, and what they do to end
/// is nothing to their parent.
#[test]
fn children_of_a_commit() {
    let _turn = begin();
    for folder in Folder::all() {
        let path = folder.path("heap");
        let mut states = vec![State::default()];
        for _ in 0..40 {
            states.push(states[states.len() - 1].next(SEED));
        }
        in_child(|| {
            let heap = options().create(&path).expect("a heap");
            let is_done = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    for states in states.windows(2) {
                        states[1].store(heap, &states[0]).expect("room");
                        commit(heap);
                    }
                    is_done.store(true, Ordering::Release);
                });
                while !is_done.load(Ordering::Acquire) {
                    in_child(|| {
                        // SAFETY: nobody else uses it in this process; here and below.
                        assert_eq!(unsafe { heap.commit() }, Err(MappedError::Forked));
                        // SAFETY: as above.
                        assert_eq!(unsafe { heap.rollback() }, Err(MappedError::Forked));
                        // SAFETY: as above.
                        assert_eq!(unsafe { heap.compact() }, Err(MappedError::Forked));
                        assert_eq!(heap.checkpoint(), Err(MappedError::Forked));
                        assert_eq!(heap.condition(), Ok(Opened::Joined));
                        close(heap);
                        assert_eq!(open(&path).err(), Some(MappedError::InUse));
                    });
                }
            });
            // Not closed: the log has them.
        });
        in_child(|| {
            let heap = open(&path).expect("the heap");
            heap.verify().expect("a sound heap");
            assert!(states[40].is_in(heap));
        });
    }
}

/// A child closes what it has of the heap long after it was forked, when its parent's log is another by far.
#[test]
fn a_child_that_closes_late() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    let first = State::default().next(SEED);
    let mut state = first.clone();
    let [turn] = board();
    in_child(|| {
        let heap = options().create(&path).expect("a heap");
        first.store(heap, &State::default()).expect("room");
        commit(heap);
        let child = start(|| {
            while turn.load(Ordering::Acquire) == 0 {
                thread::yield_now();
            }
            close(heap);
        });
        for round in 0..20 {
            let next = state.next(SEED);
            next.store(heap, &state).expect("room");
            commit(heap);
            state = next;
            if round == 18 {
                heap.checkpoint().expect("room");
            }
        }
        let before = fs::read(&path).expect("a file");
        turn.store(1, Ordering::Release);
        assert_eq!(end_of(child), 0);
        let after = fs::read(&path).expect("a file");
        assert!(before == after, "the child wrote to the file");
    });
    (1..21).for_each(|_| state = state.next(SEED));
    in_child(|| {
        let heap = open(&path).expect("the heap");
        assert_eq!(commits_in(heap), 21);
        assert!(state.is_in(heap));
    });
}

#[test]
fn one_of_many_has_it() {
    const NAME: &str = "commit_kills::one_of_many_has_it";
    if let Some(path) = scenario() {
        assert_eq!(open(&path).err(), Some(MappedError::InUse));
        return;
    }
    let _turn = begin();
    let [started, refused, ended] = board();
    let wait_for = |word: &AtomicU64, count: u64| {
        while word.load(Ordering::Acquire) < count {
            thread::yield_now();
        }
    };
    for folder in Folder::all() {
        let path = folder.path("heap");
        for round in 1..=10_u64 {
            // Before there is one, in the first round: all of them would make it.
            let children = [(); 4].map(|()| {
                start(|| {
                    wait_for(started, 1);
                    // SAFETY: the file is this test's.
                    match unsafe { options().open_or_create(&path) } {
                        Ok(heap) => {
                            wait_for(refused, 3);
                            let before = commits_in(heap);
                            assert_eq!(before, round - 1);
                            let state = State::default().numbered(round);
                            state.store(heap, &State::default()).expect("room");
                            commit(heap);
                            wait_for(ended, 1);
                        }
                        Err(error) => {
                            assert_eq!(error, MappedError::InUse);
                            refused.fetch_add(1, Ordering::AcqRel);
                        }
                    }
                })
            });
            started.store(1, Ordering::Release);
            wait_for(refused, 3);
            let other = run_child(NAME, &path);
            assert_eq!(other.code, Some(0), "{}{}", other.stdout, other.stderr);
            ended.store(1, Ordering::Release);
            assert!(children.into_iter().all(|child| end_of(child) == 0));
            [started, refused, ended]
                .into_iter()
                .for_each(|word| word.store(0, Ordering::Release));
        }
    }
}
