//! Snapshots: heaps by themselves, whole or not there, and beside them the heap that they are of.

use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use flagstone::allocator_api2::boxed::Box;
use flagstone::allocator_api2::vec::Vec as MappedVec;
use flagstone::failpoints::{self, Callback, Point};
use flagstone::mapped::{Kind, LockError, Mutex, SpanKind};
use flagstone::{Handle, Mapped, MappedError, Opened};

use crate::children::{end_of, start};
use crate::common::allocator_model::Model;
use crate::common::child::one_in;
use crate::common::process::{begin, verify};
use crate::files::{Folder, check_and_add, close, in_child, open, options, put_numbers};

const UNIT: usize = 64 << 10;
/// Where the header has the heap's own number.
const ID: core::ops::Range<usize> = 24..32;
/// Where it says who has it: the boot, the lock, who waits for that, and the file whose space is reserved.
const NOBODYS: [usize; 4] = [64, 128, 192, 704];
/// Where it says up to which unit some were ever anybody's, and up to which the tables have room.
const HIGH: usize = 448;
const TABLED: usize = 640;

pub(crate) fn snapshot(heap: Mapped, path: &str) -> Result<(), MappedError> {
    // SAFETY: this is the thread that uses it, and children are waited for.
    unsafe { heap.snapshot(path) }
}

/// What a heap lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum In {
    File,
    Spill,
    Memory,
}

impl In {
    pub(crate) const ALL: [Self; 3] = [Self::File, Self::Spill, Self::Memory];

    pub(crate) fn make(self, folder: &Folder) -> Mapped {
        let heap = match self {
            Self::File => options().create_file(folder.path("heap")),
            Self::Spill => options().spill(folder.path("")),
            Self::Memory => options().create(),
        };
        heap.expect("a heap")
    }
}

/// The numbers that `check_and_add` looks for, and a value with a lock.
pub(crate) fn fill(heap: Mapped) {
    put_numbers(heap);
    heap.insert("lock", Mutex::new(1_u64)).expect("room");
}

fn is_used(kind: SpanKind) -> bool {
    matches!(kind, SpanKind::Slab { .. } | SpanKind::Run)
}

/// Bytes that a file takes.
fn space(path: &str) -> usize {
    let blocks = fs::metadata(path).expect("a file").blocks();
    usize::try_from(blocks).expect("few") * 512
}

pub(crate) fn names(folder: &Folder) -> usize {
    fs::read_dir(folder.path("")).expect("a folder").count()
}

/// The bytes of a heap's file, by its descriptor.
pub(crate) fn bytes_of(heap: Mapped) -> Vec<u8> {
    fs::read(format!("/proc/self/fd/{}", heap.as_raw_fd())).expect("a file")
}

#[test]
fn a_snapshot_is_a_heap_by_itself() {
    let _turn = begin();
    // Within a disk, within memory, and from each to another.
    let ways = [
        (In::File, 0, 0),
        (In::File, 0, 1),
        (In::File, 1, 1),
        (In::Spill, 1, 0),
        (In::Memory, 0, 1),
    ];
    for (kind, from, to) in ways {
        let folders = Folder::all();
        let (folder, copy) = (&folders[from], folders[to].path("copy"));
        in_child(|| {
            let heap = kind.make(folder);
            fill(heap);
            let mut model = Model::new(heap.handle(), 7);
            (0..2_000).for_each(|_| model.step());
            snapshot(heap, &copy).expect("a copy");
            // What is in use is the same, byte by byte.
            let [before, after] = [bytes_of(heap), fs::read(&copy).expect("a file")];
            assert_eq!(before.len(), after.len());
            assert_ne!(before[ID], after[ID]);
            for span in heap.occupancy().filter(|span| is_used(span.kind)) {
                let range = span.offset..span.offset + span.bytes;
                assert!(before[range.clone()] == after[range], "{span:?}");
            }
            for place in NOBODYS {
                assert_eq!(after[place..place + 8], [0; 8], "{place}");
            }
            // Nothing behind that was ever anybody's, as far as the copy knows.
            let last = heap.occupancy().filter(|span| is_used(span.kind)).last();
            let end = last.map(|span| ((span.offset + span.bytes) / UNIT) as u64);
            for place in [HIGH, TABLED] {
                let word = after[place..].first_chunk().copied();
                assert_eq!(word.map(u64::from_le_bytes), end, "{place}");
            }
            let mode = fs::metadata(&copy).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            // Both have one address.
            let base = heap.base().addr().get();
            let refused = open(&copy).err();
            assert!(matches!(refused, Some(MappedError::BaseBusy { base: at, .. }) if at == base));
            let reader = Mapped::options().read_only(true).anywhere(true);
            // SAFETY: nobody changes it.
            let reader = unsafe { reader.open(&copy) }.expect("a heap");
            assert_eq!(
                (reader.opened(), reader.kind(), reader.home()),
                (Opened::Clean, Kind::File, base)
            );
            reader.verify().expect("a sound heap");
            assert_eq!(reader.stats().live, heap.stats().live);
            assert_eq!(reader.users().expect("a file").count(), 0);
            // The other goes on.
            (0..2_000).for_each(|_| model.step());
            model.free_all();
            check_and_add(heap);
            check_and_add(heap);
            close(heap);
        });
        for round in 0..3 {
            in_child(|| {
                let heap = open(&copy).expect("a heap");
                assert_eq!(heap.opened(), Opened::Clean);
                let (place, _) = heap.root("numbers").expect("a name");
                // SAFETY: made so, and nobody else looks.
                let numbers: &MappedVec<u64, Handle> = unsafe { place.cast().as_ref() };
                assert_eq!(numbers.len(), 100_000 + 50_000 * round);
                let lock = heap.get::<Mutex<u64>>("lock").expect("its type");
                assert_eq!(*lock.expect("a name").lock().expect("free"), 1);
                check_and_add(heap);
                let mut model = Model::new(heap.handle(), 8);
                (0..2_000).for_each(|_| model.step());
                model.free_all();
                heap.verify().expect("a sound heap");
                close(heap);
            });
        }
    }
}

/// Slabs of the threads of who made it are the opener's, and what these freed is free.
#[test]
fn what_threads_had_is_anyones() {
    let _turn = begin();
    const SIZE: usize = 1024;
    const BLOCKS: usize = UNIT / SIZE;
    for folder in Folder::all() {
        let copy = folder.path("copy");
        in_child(|| {
            let heap = options().create_file(folder.path("heap")).expect("a heap");
            let allocate = || {
                Box::leak(Box::new_in([1_u8; SIZE], heap.handle()));
            };
            // Of a thread that is gone, and of one that lives.
            std::thread::scope(|scope| scope.spawn(allocate).join().expect("the thread"));
            allocate();
            // Of one that lives, without a free of anybody's.
            Box::leak(Box::new_in([1_u8; 2 * SIZE], heap.handle()));
            // One that is freed by another than its owner.
            let block = Box::new_in([1_u8; SIZE], heap.handle());
            std::thread::scope(|scope| scope.spawn(|| drop(block)).join().expect("the thread"));
            snapshot(heap, &copy).expect("a copy");
            assert_eq!(heap.stats().live, 4 * SIZE);
            close(heap);
        });
        in_child(|| {
            let heap = open(&copy).expect("a heap");
            let before = heap.stats();
            assert_eq!(before.live, 4 * SIZE);
            let slabs = before.held / UNIT - 1;
            for _ in 2..slabs * BLOCKS {
                Box::leak(Box::new_in([2_u8; SIZE], heap.handle()));
            }
            for _ in 1..BLOCKS / 2 {
                Box::leak(Box::new_in([2_u8; 2 * SIZE], heap.handle()));
            }
            assert_eq!(heap.stats().held, before.held, "no slab was made");
            heap.verify().expect("a sound heap");
        });
    }
}

/// Free units, room ahead and pages that nobody touched stay behind, and come back where they are used.
#[test]
fn a_snapshot_takes_no_more_than_what_is_in_use() {
    let _turn = begin();
    for kind in In::ALL {
        for to in 0..2 {
            let folders = Folder::all();
            let copy = folders[to].path("copy");
            in_child(|| {
                let heap = match kind {
                    In::Memory => Mapped::options().capacity(1 << 30).create(),
                    In::Spill => Mapped::options()
                        .capacity(1 << 30)
                        .spill(folders[to].path("")),
                    In::File => {
                        let path = folders[to].path("heap");
                        Mapped::options().capacity(1 << 30).create_file(path)
                    }
                };
                let heap = heap.expect("a heap");
                fill(heap);
                let long = |bytes| {
                    let mut block = MappedVec::<u8, _>::new_in(heap.handle());
                    block.resize(bytes, 7);
                    block
                };
                let gone = long(40 << 20);
                // Half of it is never touched.
                let mut half = MappedVec::<u8, _>::with_capacity_in(20 << 20, heap.handle());
                half.resize(10 << 20, 7);
                heap.set_root("half", half.leak().as_ptr(), 0)
                    .expect("room");
                let short: Vec<_> = (0..100).map(|_| long(60_000)).collect();
                drop((gone, short));
                snapshot(heap, &copy).expect("a copy");
                let spans = heap.occupancy().filter(|span| is_used(span.kind));
                let used: usize = spans.map(|span| span.bytes).sum();
                // Tables of what was ever used, and what the filesystem keeps to find all that.
                let touched = heap.occupancy().filter(|span| span.kind != SpanKind::Fresh);
                let touched: usize = touched.map(|span| span.bytes).sum();
                let least = touched / 50 + (1 << 20);
                let found = space(&copy);
                assert!(found < used + least, "{found} of {used}");
                // A disk's filesystem takes pages for stored that were read ahead.
                if to == 1 || kind == In::Memory {
                    assert!(found < used - (9 << 20) + least, "{found} of {used}");
                }
                assert!(found > used - (11 << 20), "{found} of {used}");
            });
            in_child(|| {
                let before = space(&copy);
                let heap = open(&copy).expect("a heap");
                // Of what is in use all has room, and no more but for whole steps.
                assert!(to == 0 || space(&copy) > before + (9 << 20));
                let tables = if to == 0 { heap.stats().tables } else { 0 };
                let most = before + (15 << 20) + tables;
                assert!(space(&copy) < most, "{} of {most}", space(&copy));
                check_and_add(heap);
                close(heap);
            });
        }
    }
}

/// More units than the buffer has words for: the bitmap of those that have room goes over in parts.
#[test]
fn a_snapshot_of_a_long_heap() {
    let _turn = begin();
    let [folder, _] = Folder::all();
    let copy = folder.path("copy");
    const LONG: usize = 40 << 30;
    in_child(|| {
        let heap = Mapped::options().capacity(2 * LONG).create();
        let heap = heap.expect("a heap");
        // Never touched, so that it takes no memory; over the ends of two parts.
        let long = MappedVec::<u8, _>::with_capacity_in(LONG, heap.handle());
        fill(heap);
        drop(long);
        snapshot(heap, &copy).expect("a copy");
    });
    assert!(space(&copy) < 32 << 20, "{}", space(&copy));
    in_child(|| {
        let heap = open(&copy).expect("a heap");
        assert_eq!(heap.stats().capacity, 2 * LONG);
        // The tables of all before the last unit in use: a part in 58.
        assert!(space(&copy) < LONG / 50, "{}", space(&copy));
        heap.verify().expect("a sound heap");
        assert_eq!(heap.stats().live >> 10, 832);
        close(heap);
    });
}

#[test]
fn who_else_has_it_is_waited_for_by_nobody() {
    let _turn = begin();
    for kind in In::ALL {
        let [folder, _] = Folder::all();
        let copy = folder.path("copy");
        in_child(|| {
            let heap = kind.make(&folder);
            fill(heap);
            let meeting = Mapped::create(1 << 20).expect("a heap");
            let gate = Box::leak(Box::new_in(Mutex::new(0), meeting.handle()));
            let held = gate.lock().expect("free");
            let child = start(|| {
                Box::leak(Box::new_in(7, heap.handle()));
                // Until the parent has looked.
                drop(gate.lock());
            });
            while heap.users().expect("a file").count() < 2 {
                std::thread::yield_now();
            }
            assert_eq!(snapshot(heap, &copy), Err(MappedError::InUse));
            drop(held);
            assert_eq!(end_of(child), 0);
            // It has ended without a word.
            snapshot(heap, &copy).expect("a copy");
            check_and_add(heap);
        });
        in_child(|| {
            let heap = open(&copy).expect("a heap");
            assert_eq!(heap.opened(), Opened::Clean);
            check_and_add(heap);
        });
    }
}

#[test]
fn what_cannot_be_copied_is_refused() {
    let _turn = begin();
    let [folder, _] = Folder::all();
    let [path, copy] = ["heap", "copy"].map(|name| folder.path(name));
    in_child(|| {
        let heap = options().create_file(&path).expect("a heap");
        fill(heap);
        fs::write(&copy, "somebody's").expect("room");
        assert_eq!(snapshot(heap, &copy), Err(MappedError::Exists));
        assert_eq!(snapshot(heap, &path), Err(MappedError::Exists));
        assert_eq!(fs::read(&copy).expect("a file"), b"somebody's");
        fs::remove_file(&copy).expect("our own");
        // A name that leads nowhere is one.
        std::os::unix::fs::symlink(folder.path("nowhere"), &copy).expect("a link");
        assert_eq!(snapshot(heap, &copy), Err(MappedError::Exists));
        fs::remove_file(&copy).expect("our own");
        let nowhere = folder.path("none/copy");
        assert_eq!(snapshot(heap, &nowhere), Err(MappedError::NotFound));
        let errno = libc::EINVAL;
        let refused = snapshot(heap, "a\0b");
        assert_eq!(refused, Err(MappedError::System { errno }));
        assert_eq!(names(&folder), 1);
        // SAFETY: nobody else uses it.
        let made = unsafe { Mapped::options().mode(0o640).snapshot(&heap, &copy) };
        made.expect("a copy");
        let mode = fs::metadata(&copy).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        close(heap);
        let other = folder.path("other");
        assert_eq!(snapshot(heap, &other), Err(MappedError::Closed));
        // SAFETY: nobody else has it.
        let reader = unsafe { Mapped::options().read_only(true).open(&path) };
        let reader = reader.expect("a heap");
        assert_eq!(snapshot(reader, &other), Err(MappedError::ReadOnly));
        assert_eq!(names(&folder), 2);
    });
    // What a boot left is nothing to be found clean.
    let file = fs::File::options().write(true).open(&path).expect("a file");
    file.write_all_at(&[7; 8], 64).expect("room");
    in_child(|| {
        // SAFETY: nobody else has it.
        let heap = unsafe { options().may_be_dirty(true).open(&path) };
        let (heap, other) = (heap.expect("a heap"), folder.path("other"));
        assert_eq!(snapshot(heap, &other), Err(MappedError::Dirty));
        heap.mark_fit().expect("nobody refuses");
        snapshot(heap, &other).expect("a copy");
        close(heap);
    });
    // Tables that contradict each other: a long block without one of its units.
    in_child(|| {
        let heap = open(&path).expect("a heap");
        let spans: Vec<_> = heap.occupancy().collect();
        let run = spans.iter().find(|span| span.kind == SpanKind::Run);
        let tail = run.expect("the numbers").offset / UNIT + 1;
        file.write_all_at(&[7; 8], (UNIT + tail * 8) as u64)
            .expect("room");
        let other = folder.path("damaged");
        assert_eq!(snapshot(heap, &other), Err(MappedError::Damaged));
        assert_eq!(names(&folder), 3);
    });
}

/// A mutex that is locked then was left by its holder, in the copy alone.
#[test]
fn a_lock_that_is_held_is_told_of() {
    let _turn = begin();
    let [folder, _] = Folder::all();
    let copy = folder.path("copy");
    in_child(|| {
        let heap = options().create_file(folder.path("heap")).expect("a heap");
        let lock = heap.insert("lock", Mutex::new(1_u64)).expect("room");
        let held = lock.lock().expect("free");
        snapshot(heap, &copy).expect("a copy");
        drop(held);
        drop(lock.lock().expect("nobody left it"));
    });
    in_child(|| {
        let heap = open(&copy).expect("a heap");
        let lock = heap.get::<Mutex<u64>>("lock").expect("its type");
        let found = lock.expect("a name").lock();
        assert!(matches!(found, Err(LockError::Abandoned(_))));
    });
}

/// Whatever the kernel refuses, there is a whole copy or no name, and the heap goes on.
#[test]
fn each_refusal_leaves_a_copy_or_nothing() {
    let _turn = begin();
    for (kind, parent) in In::ALL
        .into_iter()
        .zip(["/var/tmp", "/dev/shm", "/dev/shm"])
    {
        let folder = Folder::new(parent);
        let copy = folder.path("copy");
        in_child(|| {
            let heap = kind.make(&folder);
            fill(heap);
            let before = names(&folder);
            let mut counts = [0; 2];
            for forever in [false, true] {
                for pass in (0..).step_by(one_in(3, 11)) {
                    assert!(pass < 2_000, "endless");
                    failpoints::refuse_after(pass, forever);
                    let done = snapshot(heap, &copy);
                    let refused = failpoints::refuse_none();
                    verify();
                    heap.verify().expect("a sound heap");
                    // What cannot be taken away any more is whole.
                    let is_there = names(&folder) != before;
                    assert!(is_there == done.is_ok() || is_there && forever, "{done:?}");
                    counts[usize::from(done.is_err())] += usize::from(refused != 0);
                    if is_there {
                        let reader = Mapped::options().read_only(true).anywhere(true);
                        let child = start(|| {
                            // SAFETY: nobody changes it.
                            let reader = unsafe { reader.open(&copy) }.expect("a heap");
                            assert_eq!(reader.opened(), Opened::Clean);
                            reader.verify().expect("a sound heap");
                            assert_eq!(reader.stats().live, heap.stats().live);
                        });
                        assert_eq!(end_of(child), 0);
                        fs::remove_file(&copy).expect("our own");
                    }
                    if refused == 0 {
                        assert_eq!(done, Ok(()));
                        break;
                    }
                }
            }
            // Some refusals end it, and some there is another way for.
            assert!(counts.iter().all(|count| *count > 2), "{counts:?}");
            check_and_add(heap);
        });
    }
}

/// Who is killed leaves no name.
#[test]
fn a_kill_leaves_nothing() {
    let _turn = begin();
    static END: Callback = |point| {
        if point == Point::Units {
            // SAFETY: `_exit` has no preconditions.
            unsafe { libc::_exit(7) };
        }
    };
    for folder in Folder::all() {
        let path = folder.path("heap");
        in_child(|| {
            let heap = options().create_file(&path).expect("a heap");
            fill(heap);
            close(heap);
        });
        let child = start(|| {
            let heap = open(&path).expect("a heap");
            failpoints::at_points(Some(&END));
            let _ = snapshot(heap, &folder.path("copy"));
        });
        assert_eq!(libc::WEXITSTATUS(end_of(child)), 7);
        assert_eq!(names(&folder), 1);
        in_child(|| {
            let heap = open(&path).expect("a heap");
            assert_eq!(heap.opened(), Opened::Recovered);
            check_and_add(heap);
        });
    }
}

/// Who opens the heap meanwhile waits, and finds it in use.
#[test]
fn who_opens_it_meanwhile_waits() {
    let _turn = begin();
    // A word of the test's own: 1 once the other is to open the heap.
    static GO: AtomicPtr<AtomicU32> = AtomicPtr::new(core::ptr::null_mut());
    static OTHER: AtomicI32 = AtomicI32::new(0);
    static WAIT: Callback = |point| {
        // SAFETY: set below, in a heap that stays.
        let go = unsafe { &*GO.load(Ordering::Relaxed) };
        if point == Point::Units && go.swap(1, Ordering::Release) == 0 {
            let lock = format!("/proc/{}/syscall", OTHER.load(Ordering::Relaxed));
            // It waits for the byte of openings, in `fcntl`.
            let waits = format!("{} ", libc::SYS_fcntl);
            let is_there = || fs::read_to_string(&lock).is_ok_and(|text| text.starts_with(&waits));
            while !is_there() {
                std::thread::yield_now();
            }
        }
    };
    let [folder, _] = Folder::all();
    let [path, copy] = ["heap", "copy"].map(|name| folder.path(name));
    in_child(|| {
        let meeting = Mapped::create(1 << 20).expect("a heap");
        let go = Box::leak(Box::new_in(AtomicU32::new(0), meeting.handle()));
        GO.store(go, Ordering::Relaxed);
        // Before this process has the heap: the address is free in the child.
        let other = start(|| {
            while go.load(Ordering::Acquire) == 0 {
                std::thread::yield_now();
            }
            let heap = open(&path).expect("a heap");
            assert_eq!(heap.opened(), Opened::Joined);
            assert!(fs::exists(&copy).expect("a folder"), "it did not wait");
        });
        OTHER.store(other, Ordering::Relaxed);
        let heap = options().create_file(&path).expect("a heap");
        fill(heap);
        failpoints::at_points(Some(&WAIT));
        snapshot(heap, &copy).expect("a copy");
        failpoints::at_points(None);
        assert_eq!(end_of(other), 0);
        check_and_add(heap);
    });
}
