//! Commits that the kernel refuses something, and disks without room: an error, the last commit, and a heap that goes on.

use core::sync::atomic::Ordering;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use flagstone::allocator_api2::vec::Vec as MappedVec;
use flagstone::{Committed, MappedError, failpoints};

use crate::children::{end_of, start};
use crate::commit_kills::board;
use crate::commit_load::State;
use crate::commits::{close, commit, open};
use crate::common::child::one_in;
use crate::common::process::begin;
use crate::disks::{Disk, with_disk};
use crate::files::{Folder, in_child};

const CAPACITY: usize = 12 << 20;

fn create(path: &str) -> Result<Committed, MappedError> {
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
        let is_typed = matches!(
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
                        // A slot that the kernel did not let go of is taken until the process ends.
                        Err(error) => assert!(is_forever && error == MappedError::InUse, "{error}"),
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

/// Fills a disk but for so many pages.
fn fill(folder: &Folder, pages: usize) {
    let path = folder.path("rest");
    let _ = fs::remove_file(&path);
    let rest = File::create(&path).expect("a file");
    let mut place = 0;
    for length in [1 << 16, 4096] {
        while rest.write_all_at(&vec![1; length], place).is_ok() {
            place += length as u64;
        }
    }
    let _ = rest.sync_all();
    let _ = rest.set_len(place.saturating_sub(pages as u64 * 4096));
    let _ = rest.sync_all();
}

#[test]
fn a_full_disk_refuses_a_commit() {
    let _turn = begin();
    for disk in [Disk::Memory(17 << 20), Disk::Blocks(48 << 20)] {
        let folder = Folder::new("/var/tmp");
        with_disk(&folder, disk, || {
            let path = folder.path("heap");
            let heap = create(&path).expect("a heap");
            let (mut state, mut refused, mut done) = (State::default(), 0, 0);
            for round in 0..120 {
                fill(&folder, round % 40 * (1 + round / 10));
                let next = state.next(9);
                let stored = next.store(heap, &state);
                // SAFETY: nobody else uses it; here and below.
                let committed = stored.and_then(|()| unsafe { heap.commit() });
                match committed {
                    Ok(()) => {
                        (state, done) = (next, done + 1);
                        continue;
                    }
                    Err(error) => assert_eq!(error, MappedError::NoSpace),
                }
                refused += 1;
                if round % 2 == 0 {
                    // SAFETY: nobody else uses it, and nothing of it.
                    unsafe { heap.rollback() }.expect("the last commit");
                    assert!(state.is_in(heap));
                } else {
                    fs::remove_file(folder.path("rest")).expect("there");
                    // What was stored in part is none of its states.
                    if next.store(heap, &state).is_ok() && next.is_in(heap) {
                        commit(heap);
                        state = next;
                    } else {
                        // SAFETY: as above.
                        unsafe { heap.rollback() }.expect("the last commit");
                    }
                }
            }
            println!("{disk:?}: {refused} refused, {done} done");
            assert!(refused > 5 && done > 5, "{refused} {done}");
            fill(&folder, 0);
            // Nobody needs room to close it, or to find it.
            close(heap);
            let heap = open(&path).expect("the heap");
            assert!(state.is_in(heap));
            heap.verify().expect("a sound heap");
        });
    }
}

/// Disks of all sizes, too small and large enough.
#[test]
fn disks_without_room_for_a_heap() {
    let _turn = begin();
    let folder = Folder::new("/var/tmp");
    for pages in (0..2_600).step_by(one_in(53, 211)) {
        let size = (pages + 1) * 4096;
        with_disk(&folder, Disk::Memory(size), || {
            let path = folder.path("heap");
            let heap = match create(&path) {
                Ok(heap) => heap,
                Err(error) => {
                    assert_eq!(error, MappedError::NoSpace, "{pages} pages");
                    assert_eq!(fs::read_dir(folder.path("")).expect("a folder").count(), 0);
                    return;
                }
            };
            let mut state = State::default();
            for _ in 0..20 {
                let next = state.next(4);
                let stored = next.store(heap, &state);
                // SAFETY: nobody else uses it.
                match stored.and_then(|()| unsafe { heap.commit() }) {
                    Ok(()) => state = next,
                    Err(error) => {
                        assert_eq!(error, MappedError::NoSpace, "{pages} pages");
                        // SAFETY: nobody else uses it, and nothing of it.
                        unsafe { heap.rollback() }.expect("the last commit");
                    }
                }
                assert!(state.is_in(heap), "{pages} pages");
            }
            close(heap);
            assert!(state.is_in(open(&path).expect("the heap")));
        });
    }
}

#[test]
fn a_limit_of_files_refuses_a_commit() {
    let _turn = begin();
    for folder in Folder::all() {
        in_child(|| {
            let path = folder.path("heap");
            let heap = create(&path).expect("a heap");
            let limit = |bytes: u64| {
                let limit = libc::rlimit {
                    rlim_cur: bytes,
                    rlim_max: libc::RLIM_INFINITY,
                };
                // SAFETY: the limit is a valid, initialised value.
                let set = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
                assert_eq!(set, 0, "setrlimit refused");
            };
            let long = fs::metadata(&path).expect("there").len();
            let mut bytes = MappedVec::<u8, _>::new_in(heap.handle());
            bytes.resize(3 << 20, 7);
            // All that the file has, a part of it, a part of the heap, nothing.
            for least in [long, long - (1 << 19), 1 << 20, 4096, 0] {
                limit(least);
                // SAFETY: nobody else uses it.
                let refused = unsafe { heap.commit() };
                assert_eq!(refused, Err(MappedError::NoSpace), "{least}");
                if least < long {
                    let other = create(&folder.path("other"));
                    assert_eq!(other.err(), Some(MappedError::NoSpace));
                }
            }
            limit(libc::RLIM_INFINITY);
            commit(heap);
            limit(0);
            // SAFETY: nobody else uses it, and nothing of it.
            unsafe { heap.rollback() }.expect("the last commit");
            assert!(bytes.iter().all(|byte| *byte == 7));
        });
    }
}
