//! What can be seen of a heap without changing it: by who may not write, beside who writes, after a kill, and where the
//! tables are wrong.

use core::time::Duration;
use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::thread;

use flagstone::allocator_api2::boxed::Box;
use flagstone::allocator_api2::vec::Vec as MappedVec;
use flagstone::mapped::{Kind, Span, SpanKind};
use flagstone::{Mapped, MappedError, Opened};

use crate::children::{end_of, start};
use crate::common::allocator_model::Model;
use crate::common::process::begin;
use crate::files::Folder;
use crate::tables::{BYTES, UNIT};

/// Where the words of units begin in the file, the word of the boot, and that of the highest unit.
const WORDS: u64 = UNIT as u64;
const BOOT: u64 = 64;
const LOCK: u64 = 128;
const HIGH: u64 = 448;
const ROOTS: u64 = 768;
const LINES: u64 = ROOTS + 65 * 64;

fn look(path: &str) -> Result<Mapped, MappedError> {
    let options = Mapped::options().read_only(true).may_be_dirty(true);
    // SAFETY: nothing but tables is read.
    unsafe { options.anywhere(true).open(path) }
}

/// A step that one process takes, and another waits for.
struct Step(PipeReader, PipeWriter);

impl Step {
    fn new() -> Self {
        let (reader, writer) = pipe().expect("a pipe");
        Self(reader, writer)
    }

    fn take(&self) {
        (&self.1).write_all(b"1").expect("somebody reads");
    }

    fn is_taken(&self) -> bool {
        let mut about = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one such structure, writable.
        unsafe { libc::poll(&raw mut about, 1, 0) == 1 }
    }

    fn wait_for(&self) {
        let mut byte = [0];
        (&self.0).read_exact(&mut byte).expect("somebody writes");
    }
}

/// Blocks of three sizes, a long one, and a free unit.
fn fill(heap: &Mapped) {
    let handle = heap.handle();
    for size in [16, 1_000, 30_000] {
        let mut bytes = MappedVec::<u8, _>::with_capacity_in(size, handle);
        bytes.push(1);
        let _ = bytes.leak();
    }
    let gone = MappedVec::<u8, _>::with_capacity_in(2 * UNIT, handle);
    let long = MappedVec::<u8, _>::with_capacity_in(5 * UNIT, handle);
    let _ = long.leak();
    drop(gone);
    heap.set_root("base", heap.base().as_ptr().wrapping_add(BYTES - 1), 3)
        .expect("room");
}

/// What the occupancy says is what the statistics say, and all units are there.
fn check_spans(heap: &Mapped) -> Vec<Span> {
    let spans: Vec<_> = heap.occupancy().collect();
    let stats = heap.stats();
    let mut end = 0;
    for span in &spans {
        assert!(span.offset == end && span.bytes >= UNIT && span.live <= span.bytes);
        end += span.bytes;
    }
    assert_eq!(end, stats.capacity);
    let is_held = |span: &&Span| matches!(span.kind, SpanKind::Slab { .. } | SpanKind::Run);
    let held: usize = spans.iter().filter(is_held).map(|span| span.bytes).sum();
    assert_eq!(held, stats.held);
    assert_eq!(
        spans.iter().map(|span| span.live).sum::<usize>(),
        stats.live
    );
    spans
}

/// A file that was closed, on a disk or in memory.
fn closed(path: &str) {
    let make = || {
        let heap = Mapped::options().capacity(BYTES);
        let heap = heap.create_file(path).expect("a heap");
        assert_eq!(
            (heap.kind(), heap.home()),
            (Kind::File, heap.base().addr().get())
        );
        fill(&heap);
        check_spans(&heap);
        // SAFETY: nobody else uses it.
        unsafe { heap.close() }.expect("nobody refuses");
        assert_eq!(heap.condition(), Err(MappedError::Closed));
        assert!(heap.users().is_err());
    };
    assert_eq!(end_of(start(make)), 0);
}

#[test]
fn a_look_changes_nothing() {
    let _turn = begin();
    for parent in ["/var/tmp", "/dev/shm"] {
        let folder = Folder::new(parent);
        let path = folder.path("heap");
        closed(&path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("our own");
        let before = fs::read(&path).expect("a file");
        let heap = look(&path).expect("a heap");
        assert_eq!(
            (heap.opened(), heap.condition()),
            (Opened::Clean, Ok(Opened::Clean))
        );
        assert_eq!(heap.users().expect("a descriptor").count(), 0);
        heap.verify().expect("a sound heap");
        let spans = check_spans(&heap);
        let has = |kind| spans.iter().any(|span| span.kind == kind);
        assert!(has(SpanKind::Tables) && has(SpanKind::Run) && has(SpanKind::Fresh));
        assert!(has(SpanKind::Free) && has(SpanKind::Slab { block: 16 }));
        assert!(fs::read(&path).expect("a file") == before);
    }
}

/// A copy lies elsewhere than the heap says, as that lies there.
#[test]
fn a_look_at_what_has_no_place() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let (path, copy) = (folder.path("heap"), folder.path("copy"));
    let heap = Mapped::options().capacity(BYTES);
    let heap = heap.create_file(&path).expect("a heap");
    fill(&heap);
    fs::copy(&path, &copy).expect("room");
    let other = look(&copy).expect("a heap");
    assert_eq!(other.home(), heap.home());
    assert_ne!(other.base(), heap.base());
    other.verify().expect("a sound heap");
    assert_eq!(check_spans(&other), check_spans(&heap));
    // Its users have the heap, and not the copy, which they may have changed meanwhile.
    assert_eq!(other.condition(), Ok(Opened::Dirty));
    let users: Vec<_> = other.users().expect("a descriptor").collect();
    assert!(matches!(&users[..], [user] if !user.lives && user.process == std::process::id()));
    let users: Vec<_> = heap.users().expect("a descriptor").collect();
    assert!(matches!(&users[..], [user] if user.lives && user.process == std::process::id()));
    assert_eq!(heap.condition(), Ok(Opened::Joined));
}

#[test]
fn a_look_at_what_processes_have_and_had() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    let [ready, end] = [Step::new(), Step::new()];
    let user = start(|| {
        let heap = Mapped::options().capacity(BYTES);
        let heap = heap.create_file(&path).expect("a heap");
        fill(&heap);
        ready.take();
        end.wait_for();
    });
    ready.wait_for();
    let seen = |expected: Opened, lives: bool| {
        let look = || {
            let heap = look(&path).expect("a heap");
            assert_eq!((heap.opened(), heap.condition()), (expected, Ok(expected)));
            let users: Vec<_> = heap.users().expect("a descriptor").collect();
            let is_it = |process: u32| i32::try_from(process) == Ok(user);
            assert!(matches!(&users[..], [user] if is_it(user.process) && user.lives == lives));
            heap.verify().expect("a sound heap");
        };
        assert_eq!(end_of(start(look)), 0);
    };
    seen(Opened::Joined, true);
    // SAFETY: our own child.
    assert_eq!(unsafe { libc::kill(user, libc::SIGKILL) }, 0);
    assert_ne!(end_of(user), 0);
    seen(Opened::Recovered, false);
    // Of another boot.
    let file = fs::File::options().write(true).open(&path);
    let file = file.expect("our own");
    file.write_all_at(&7_u64.to_le_bytes(), BOOT).expect("room");
    seen(Opened::Dirty, false);
    // SAFETY: as above.
    let refused = unsafe { Mapped::options().read_only(true).open(&path) };
    assert_eq!(refused.err(), Some(MappedError::Dirty));
}

/// What contradicts is noticed, but for what killed processes leave.
#[test]
fn a_look_finds_what_is_wrong() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let (path, copy) = (folder.path("heap"), folder.path("copy"));
    closed(&path);
    let heap = look(&path).expect("a heap");
    let find = |is: fn(SpanKind) -> bool| {
        let span = heap.occupancy().find(|span| is(span.kind));
        (span.expect("one").offset / UNIT) as u64
    };
    let slab = find(|kind| matches!(kind, SpanKind::Slab { block: 30_000.. }));
    let run = find(|kind| kind == SpanKind::Run);
    let free = find(|kind| kind == SpanKind::Free);
    // The descriptor of the slab of two blocks: a third is free.
    let stray = WORDS + 80 * 8 + slab * 1_088 + 8;
    let with = |place: u64, word: u64| {
        let _ = fs::remove_file(&copy);
        fs::copy(&path, &copy).expect("room");
        let file = fs::File::options().write(true).open(&copy);
        let file = file.expect("our own");
        file.write_all_at(&word.to_le_bytes(), place).expect("room");
        let found = || {
            let heap = look(&copy).expect("a heap");
            assert_eq!(
                heap.occupancy().map(|span| span.bytes).sum::<usize>(),
                BYTES
            );
            heap.verify()
        };
        let verdict = || {
            let code = match found() {
                Ok(()) => 0,
                Err(MappedError::Damaged) => 1,
                Err(_) => 2,
            };
            // SAFETY: `_exit` has no preconditions.
            unsafe { libc::_exit(code) };
        };
        libc::WEXITSTATUS(end_of(start(verdict)))
    };
    assert_eq!(with(BOOT, 0), 0);
    // Of no kind; of a class that there is not; a block behind the last.
    assert_eq!(with(WORDS + free * 8, 7), 1);
    assert_eq!(with(WORDS + slab * 8, 1 | 200 << 4), 1);
    assert_eq!(with(stray, 7), 1);
    // A run without one of its tails.
    assert_eq!(with(WORDS + (run + 2) * 8, 0), 1);
    assert_eq!(with(HIGH, 1_000), 1);
    // A name that leads nowhere.
    assert_eq!(with(ROOTS, 8), 1);
    // Tails without a head, as a killed process leaves them.
    assert_eq!(with(WORDS + run * 8, 0), 0);
    assert_eq!(with(WORDS + free * 8, 3 | 1 << 12), 0);
    // A slot that nobody has locked.
    assert_eq!(with(LINES + 4, 1), 0);
}

/// Where nobody is gone, and nobody has the lock, more is wrong.
#[test]
fn a_look_finds_more_where_all_live() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    let [ready, end] = [Step::new(), Step::new()];
    let user = start(|| {
        let heap = Mapped::options().capacity(BYTES);
        let heap = heap.create_file(&path).expect("a heap");
        fill(&heap);
        ready.take();
        end.wait_for();
        heap.verify().expect("a sound heap");
    });
    ready.wait_for();
    let file = fs::File::options().read(true).write(true).open(&path);
    let file = file.expect("our own");
    let heap = look(&path).expect("a heap");
    let free = heap.occupancy().find(|span| span.kind == SpanKind::Free);
    let free = (free.expect("one").offset / UNIT) as u64;
    // A tail without a head, a head that nobody frees, and bits of units that are somebody's.
    let bitmap = WORDS + 80 * 8 + 80 * 1_088;
    for (place, word) in [
        (WORDS + free * 8, 3 | 1 << 12),
        (WORDS + free * 8, 4 | 0x3ff_u64 << 12),
        (bitmap, u64::MAX),
    ] {
        let mut before = [0; 8];
        file.read_exact_at(&mut before, place).expect("a word");
        heap.verify().expect("a sound heap");
        file.write_all_at(&word.to_le_bytes(), place).expect("room");
        assert_eq!(heap.verify(), Err(MappedError::Damaged), "{place} {word}");
        // Not while somebody has the lock.
        file.write_all_at(&1_u32.to_le_bytes(), LOCK).expect("room");
        heap.verify().expect("a change under way");
        file.write_all_at(&0_u32.to_le_bytes(), LOCK).expect("room");
        file.write_all_at(&before, place).expect("room");
    }
    end.take();
    assert_eq!(end_of(user), 0);
    // Nor once somebody ended who may have been at it.
    let tail = (3_u64 | 1 << 12).to_le_bytes();
    file.write_all_at(&tail, WORDS + free * 8).expect("room");
    heap.verify().expect("what the dead leave");
}

/// While others allocate and free, nothing seems to be wrong, and nothing is missed that is.
#[test]
fn a_look_beside_others() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    let [ready, end] = [Step::new(), Step::new()];
    // Before there is the heap: it has no part of it.
    let looker = start(|| {
        ready.wait_for();
        let heap = look(&path).expect("a heap");
        for _ in 0..500 {
            heap.verify().expect("a sound heap");
            let bytes = heap.occupancy().map(|span| span.bytes).sum::<usize>();
            assert_eq!(bytes, 64 << 20);
        }
        assert_eq!(heap.condition(), Ok(Opened::Joined));
        end.take();
    });
    let heap = Mapped::options().capacity(64 << 20);
    let heap = heap.create_file(&path).expect("a heap");
    fill(&heap);
    ready.take();
    let is_over = thread::spawn(move || end.wait_for());
    let mut models: Vec<_> = (0..2).map(|seed| Model::new(heap.handle(), seed)).collect();
    while !is_over.is_finished() {
        models.iter_mut().for_each(Model::step);
        // Long blocks come and go.
        drop(Box::<[u8; 3 * UNIT], _>::new_uninit_in(heap.handle()));
    }
    is_over.join().expect("a byte");
    assert_eq!(end_of(looker), 0);
    models.iter_mut().for_each(Model::free_all);
}

/// What processes leave that are killed anywhere is not taken for damage.
#[test]
fn a_look_beside_the_killed() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    let [ready, end] = [Step::new(), Step::new()];
    let looker = start(|| {
        ready.wait_for();
        let heap = look(&path).expect("a heap");
        let mut flags = 0_u8;
        while !end.is_taken() {
            heap.verify().expect("a sound heap");
            flags |= 1 << heap.condition().expect("a descriptor") as u8;
        }
        assert_ne!(flags & 1 << Opened::Joined as u8, 0);
    });
    let make = || {
        let heap = Mapped::options().capacity(64 << 20);
        fill(&heap.create_file(&path).expect("a heap"));
    };
    assert_eq!(end_of(start(make)), 0);
    ready.take();
    for seed in 0..60 {
        let began = Step::new();
        let user = start(|| {
            // SAFETY: nobody else uses the same blocks.
            let heap = unsafe { Mapped::options().open(&path) }.expect("a heap");
            began.take();
            let mut model = Model::new(heap.handle(), seed);
            loop {
                model.step();
                drop(Box::<[u8; 3 * UNIT], _>::new_uninit_in(heap.handle()));
            }
        });
        began.wait_for();
        thread::sleep(Duration::from_micros(seed * 97 % 4_000));
        // SAFETY: our own child.
        assert_eq!(unsafe { libc::kill(user, libc::SIGKILL) }, 0);
        assert_ne!(end_of(user), 0);
    }
    end.take();
    assert_eq!(end_of(looker), 0);
}

#[test]
fn what_files_of_heaps_begin_with() {
    let first = *b"flagmap\x01rest";
    assert!(Mapped::is_heap(&first) && Mapped::is_heap(b"flagmap\x09"));
    assert!(!Mapped::is_heap(b"flagmap") && !Mapped::is_heap(b"#!/bin/sh"));
}
