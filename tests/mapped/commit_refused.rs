//! Commits that the kernel refuses something: an error, the last commit, and a heap that goes on.

use core::sync::atomic::Ordering;
use std::fs;

use flagstone::{Committed, MappedError, failpoints};

use crate::children::{end_of, start};
use crate::commit_kills::board;
use crate::commit_load::State;
use crate::commits::{close, commit, open};
use crate::common::child::one_in;
use crate::common::process::begin;
use crate::files::{Folder, in_child};

const CAPACITY: usize = 12 << 20;

pub(crate) fn create(path: &str) -> Result<Committed, MappedError> {
    Committed::options().capacity(CAPACITY).create(path)
}

/// What a program did so far, whose calls may be refused.
struct Program {
    states: [State; 3],
    /// The last commit, and the one that may be there instead.
    allowed: [usize; 2],
    errors: Vec<(&'static str, MappedError)>,
    is_poisoned: bool,
}

impl Program {
    fn new() -> Self {
        let first = State::default().next(2);
        let second = first.next(2);
        Self {
            states: [State::default(), first, second],
            allowed: [0, 0],
            errors: Vec::new(),
            is_poisoned: false,
        }
    }

    fn note(&mut self, what: &'static str, done: Result<(), MappedError>) -> bool {
        let Err(error) = done else {
            // Once nobody knows what is there, nothing succeeds any more.
            assert!(!self.is_poisoned, "{what}");
            return true;
        };
        // A slot that the kernel did not let go of is taken until the process ends.
        let is_taken = what == "open" && error == MappedError::InUse;
        let is_typed = is_taken
            || matches!(
                error,
                MappedError::NoSpace
                    | MappedError::System { .. }
                    | MappedError::Closed
                    | MappedError::Poisoned
                    | MappedError::Unsupported
            );
        assert!(is_typed, "{what}: {error}");
        self.is_poisoned |= error == MappedError::Poisoned;
        self.errors.push((what, error));
        false
    }

    /// Has the heap, which has one of the states, have another, and commits that.
    fn commit(&mut self, heap: Committed, to: usize, is_compacted: bool) {
        let from = self.allowed[0];
        if self.states[to].store(heap, &self.states[from]).is_err() {
            self.roll_back(heap);
            return;
        }
        let done = if is_compacted {
            // SAFETY: nobody else uses it, here and below.
            unsafe { heap.compact() }
        } else {
            // SAFETY: as above.
            unsafe { heap.commit() }
        };
        if self.note("commit", done) {
            self.allowed = [to, to];
        } else if self.is_poisoned || is_compacted {
            // Which of them it is an opening tells.
            self.allowed = [from, to];
            self.is_poisoned |= is_compacted;
        } else {
            self.roll_back(heap);
        }
    }

    fn roll_back(&mut self, heap: Committed) {
        // SAFETY: nobody else uses it, and nothing of it.
        let done = unsafe { heap.rollback() };
        if self.note("rollback", done) {
            assert!(self.states[self.allowed[0]].is_in(heap), "a rollback");
        } else {
            // What is in memory is nothing that can be gone on with.
            self.is_poisoned = true;
        }
    }

    fn run(&mut self, path: &str) {
        let heap = match create(path) {
            Ok(heap) => heap,
            Err(error) => {
                self.note("create", Err(error));
                return;
            }
        };
        for to in [1, 2, 0, 1, 2] {
            if !self.is_poisoned {
                self.commit(heap, to, false);
            }
            if to != 1 && !self.is_poisoned {
                // Behind a commit of which the file may have a part alone.
                self.roll_back(heap);
            }
        }
        if !self.is_poisoned {
            let done = heap.checkpoint();
            self.note("checkpoint", done);
        }
        if !self.is_poisoned {
            self.commit(heap, 0, true);
        }
        self.is_poisoned = false;
        // SAFETY: nobody else uses it.
        let closed = unsafe { heap.close() };
        self.note("close", closed);
        self.is_poisoned = false;
        match open(path) {
            Ok(heap) => {
                self.expect_one(heap);
                let to = (self.allowed[0] + 1) % 3;
                self.commit(heap, to, false);
                // SAFETY: as above.
                let closed = unsafe { heap.close() };
                self.is_poisoned = false;
                self.note("close", closed);
            }
            Err(error) => {
                self.note("open", Err(error));
            }
        }
        self.is_poisoned = false;
    }

    /// Nothing is refused any more: one of the states is there, and others can be committed.
    fn go_on(&mut self, heap: Committed) {
        self.expect_one(heap);
        let to = (self.allowed[0] + 1) % 3;
        self.commit(heap, to, false);
        assert_eq!(self.allowed, [to, to]);
        close(heap);
    }

    fn expect_one(&mut self, heap: Committed) {
        heap.verify().or_else(busy).expect("a sound heap");
        let found = self
            .allowed
            .into_iter()
            .find(|state| self.states[*state].is_in(heap));
        let found =
            found.unwrap_or_else(|| panic!("none of {:?}, {:?}", self.allowed, self.errors));
        self.allowed = [found, found];
    }
}

/// A look that the kernel refused.
fn busy(error: MappedError) -> Result<(), MappedError> {
    match error {
        MappedError::System { .. } | MappedError::Closed => Ok(()),
        error => Err(error),
    }
}

#[test]
fn each_refusal_leaves_the_last_commit() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    let allowed = board::<2>();
    for is_forever in [false, true] {
        let mut last = 0;
        for pass in (0..).step_by(one_in(7, 23)) {
            assert!(pass < 20_000, "endless");
            // What is mapped stays mapped.
            let child = start(|| {
                let mut program = Program::new();
                failpoints::refuse_after(pass, is_forever);
                program.run(&path);
                let refused = failpoints::refuse_none();
                let errors = &program.errors;
                assert!(refused > 0 || errors.is_empty(), "{errors:?}");
                if fs::exists(&path).expect("a folder") {
                    match open(&path) {
                        Ok(heap) => program.go_on(heap),
                        // A heap whose making was refused, and that the kernel refuses to unmap.
                        Err(MappedError::InUse | MappedError::BaseBusy { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                for (word, state) in allowed.iter().zip(program.allowed) {
                    word.store(state as u64, Ordering::Relaxed);
                }
                // SAFETY: `_exit` has no preconditions.
                unsafe { libc::_exit(if refused == 0 { 7 } else { 0 }) };
            });
            let status = end_of(child);
            let is_last = libc::WEXITSTATUS(status) == 7;
            let why = format!("refused after {pass} calls, {is_forever}");
            assert!(status == 0 || is_last, "{status:#x}: {why}");
            if fs::exists(&path).expect("a folder") {
                in_child(|| {
                    let mut program = Program::new();
                    program.allowed = [0, 1].map(|place: usize| {
                        usize::try_from(allowed[place].load(Ordering::Relaxed)).expect("few")
                    });
                    program.go_on(open(&path).expect("nobody refuses"));
                });
                fs::remove_file(&path).expect("there");
            }
            last = pass;
            if is_last {
                break;
            }
        }
        println!("{last} calls");
    }
}

/// The record is on the disk, and the kernel writes nothing of it into the heap's own place.
#[test]
fn a_commit_that_is_in_the_log_alone() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    let mut seen = 0;
    for pass in 0..400 {
        let child = start(|| {
            let states = Program::new().states;
            let heap = create(&path).expect("a heap");
            states[1].store(heap, &states[0]).expect("room");
            commit(heap);
            states[2].store(heap, &states[1]).expect("room");
            failpoints::refuse_after(pass, true);
            // SAFETY: nobody else uses it; here and below.
            let done = unsafe { heap.commit() };
            if done.is_err() || failpoints::refuse_none() == 0 {
                fs::remove_file(&path).expect("there");
                // SAFETY: `_exit` has no preconditions.
                unsafe { libc::_exit(if done.is_err() { 0 } else { 7 }) };
            }
            // The kernel still refuses: nothing is lost by that.
            failpoints::refuse_after(2, true);
            // SAFETY: as above.
            assert!(unsafe { heap.commit() }.is_err() || failpoints::refuse_none() == 0);
            failpoints::refuse_none();
            if pass % 3 == 0 {
                // As if it were killed.
                // SAFETY: `_exit` has no preconditions.
                unsafe { libc::_exit(8) };
            }
            if pass % 3 == 1 {
                // SAFETY: nobody else uses it, and nothing of it.
                unsafe { heap.rollback() }.expect("the last commit");
                assert!(states[2].is_in(heap));
            }
            states[1].store(heap, &states[2]).expect("room");
            commit(heap);
            states[2].store(heap, &states[1]).expect("room");
            commit(heap);
            // SAFETY: `_exit` has no preconditions.
            unsafe { libc::_exit(8) };
        });
        let status = end_of(child);
        match libc::WEXITSTATUS(status) {
            _ if status & 0x7f != 0 => panic!("{status:#x} after {pass} calls"),
            7 => break,
            8 => seen += 1,
            status => assert_eq!(status, 0, "after {pass} calls"),
        }
        if fs::exists(&path).expect("a folder") {
            in_child(|| {
                let heap = open(&path).expect("the heap");
                heap.verify().expect("a sound heap");
                assert!(Program::new().states[2].is_in(heap), "after {pass} calls");
            });
            fs::remove_file(&path).expect("there");
        }
    }
    assert!(seen > 2, "{seen}");
    println!("{seen} commits in the log alone");
}
