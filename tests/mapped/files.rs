//! Heaps in files: found again, by several at once, after kills, on disks without room.

use core::sync::atomic::{AtomicU32, Ordering};
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use flagstone::allocator_api2::boxed::Box;
use flagstone::allocator_api2::vec::Vec as MappedVec;
use flagstone::{Handle, Mapped, MappedError, MappedOptions, Opened, failpoints};

use crate::children::{end_of, start};
use crate::common::allocator_model::Model;
use crate::common::process::begin;

/// Where the header has the number of the boot.
const BOOT: u64 = 64;

/// The folders that tests use.
const PARENTS: [&str; 2] = ["/var/tmp", "/dev/shm"];

/// Removes folders of a process that ended while it had some.
pub(crate) fn remove_left(process: libc::pid_t) {
    let name = format!("flagstone-test-{process}-");
    for entry in PARENTS.iter().flat_map(fs::read_dir).flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&name) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A folder of its own, gone with this.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(parent: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("flagstone-test-{}-{number}", std::process::id());
        let path = Path::new(parent).join(name);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    /// Of each kind that there is everywhere: a disk, and memory.
    pub(crate) fn all() -> [Self; 2] {
        PARENTS.map(Self::new)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path").into()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn options<'a>() -> MappedOptions<'a> {
    Mapped::options().capacity(64 << 20)
}

pub(crate) fn open(path: &str) -> Result<Mapped, MappedError> {
    // SAFETY: who else has the file is of this test, and keeps to Rust's rules.
    unsafe { Mapped::options().open(path) }
}

pub(crate) fn close(heap: Mapped) {
    // SAFETY: nobody else uses it in this process.
    unsafe { heap.close() }.expect("nobody refuses");
}

/// A child that does this with its own opening of things, and succeeds.
pub(crate) fn in_child(work: impl FnOnce()) {
    assert_eq!(end_of(start(work)), 0);
}

/// Makes a heap with some numbers in it.
pub(crate) fn make(path: &str) -> Mapped {
    let heap = options().create_file(path).expect("a heap");
    assert_eq!(heap.opened(), Opened::Created);
    put_numbers(heap);
    heap
}

/// The numbers that `check_and_add` looks for.
pub(crate) fn put_numbers(heap: Mapped) {
    let mut numbers = MappedVec::new_in(heap.handle());
    numbers.extend(0..100_000_u64);
    let numbers: &mut MappedVec<_, _> = Box::leak(Box::new_in(numbers, heap.handle()));
    heap.set_root("numbers", &raw const *numbers, 7)
        .expect("room");
}

/// The numbers, of which there are ever more.
pub(crate) fn check_and_add(heap: Mapped) {
    let (place, kind) = heap.root("numbers").expect("a name");
    assert_eq!(kind, 7);
    // SAFETY: it was made so, and nobody else looks.
    let numbers: &mut MappedVec<u64, Handle> = unsafe { place.cast().as_mut() };
    assert!(
        numbers
            .iter()
            .zip(0..)
            .all(|(number, place)| *number == place)
    );
    let next = numbers.len() as u64;
    numbers.extend(next..next + 50_000);
    heap.verify().expect("a sound heap");
}

#[test]
fn a_file_outlives_its_processes() {
    let _turn = begin();
    for folder in Folder::all() {
        let path = folder.path("heap");
        in_child(|| close(make(&path)));
        for _ in 0..3 {
            in_child(|| {
                let heap = open(&path).expect("a heap");
                assert_eq!(heap.opened(), Opened::Clean);
                check_and_add(heap);
                close(heap);
            });
        }
        // Killed before they close it.
        for expected in [Opened::Clean, Opened::Recovered, Opened::Recovered] {
            in_child(|| {
                let heap = open(&path).expect("a heap");
                assert_eq!(heap.opened(), expected);
                check_and_add(heap);
            });
        }
        // One goes on with it when another closes it.
        let heap = open(&path).expect("a heap");
        let is_there = Box::leak(Box::new_in(AtomicU32::new(0), heap.handle()));
        let other = start(|| {
            check_and_add(open(&path).expect("the same"));
            is_there.store(1, Ordering::Release);
            while heap.processes().count() == 2 {
                std::thread::yield_now();
            }
            check_and_add(heap);
        });
        while is_there.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        close(heap);
        assert_eq!(end_of(other), 0);
        // Twice in one process, with another that has it meanwhile.
        let heap = open(&path).expect("a heap");
        assert_eq!(heap.opened(), Opened::Recovered);
        in_child(|| {
            let same = open(&path).expect("the same");
            assert_eq!(same.handle(), heap.handle());
            check_and_add(same);
        });
        check_and_add(heap);
        heap.flush().expect("nobody refuses");
        close(heap);
        assert_eq!(heap.flush(), Err(MappedError::Closed));
        let again = open(&path).expect("a heap");
        assert_eq!(
            (again.opened(), again.handle()),
            (Opened::Clean, heap.handle())
        );
        check_and_add(again);
        close(again);
    }
}

/// Other programs find in the file at once what is stored in the heap.
#[test]
fn what_is_stored_stands_in_the_file() {
    let _turn = begin();
    for folder in Folder::all() {
        let path = folder.path("heap");
        let heap = options().create_file(&path).expect("a heap");
        let text = Box::leak(Box::new_in(*b"found by pread", heap.handle()));
        let base = heap.root("base").map_or(0, |_| 1);
        assert_eq!(base, 0);
        heap.set_root("text", text, 0).expect("room");
        let file = fs::read(&path).expect("a file");
        assert!(file.windows(text.len()).any(|bytes| bytes == text));
        close(heap);
    }
}

#[test]
fn one_of_sixteen_makes_it() {
    let _turn = begin();
    let meeting = Mapped::create(4 << 20).expect("a heap");
    let made: &[AtomicU32; 6] = Box::leak(Box::new_in(Default::default(), meeting.handle()));
    let [ready, created, others, done, ..] = made;
    for folder in Folder::all() {
        made.iter()
            .for_each(|count| count.store(0, Ordering::Relaxed));
        let path = folder.path("heap");
        let wait = |count: &AtomicU32| {
            count.fetch_add(1, Ordering::SeqCst);
            while count.load(Ordering::SeqCst) < 16 {
                std::thread::yield_now();
            }
        };
        let children: Vec<_> = (0..16)
            .map(|number| {
                start(|| {
                    wait(ready);
                    // SAFETY: all keep to Rust's rules.
                    let heap = unsafe { options().open_or_create(&path) }.expect("a heap");
                    match heap.opened() {
                        Opened::Created => created,
                        Opened::Joined => others,
                        opened => panic!("{opened:?}"),
                    }
                    .fetch_add(1, Ordering::Relaxed);
                    let own = Box::leak(Box::new_in([number; 1000], heap.handle()));
                    wait(done);
                    assert_eq!(own, &[number; 1000]);
                    assert!(heap.stats().processes <= 16);
                    heap.verify().expect("a sound heap");
                })
            })
            .collect();
        children
            .into_iter()
            .for_each(|child| assert_eq!(end_of(child), 0));
        let counts = [created, others].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counts, [1, 15]);
        let left = fs::read_dir(folder.0.clone()).expect("a folder");
        assert_eq!(left.count(), 1, "nothing but the heap");
    }
}

fn expect_dirty(path: &str) {
    assert_eq!(open(path).err(), Some(MappedError::Dirty));
}

/// A machine that went down leaves the number of its last boot.
#[test]
fn what_a_boot_left_is_opened_on_purpose_only() {
    let _turn = begin();
    for folder in Folder::all() {
        let path = folder.path("heap");
        in_child(|| {
            make(&path);
        });
        let file = fs::File::options().write(true).open(&path).expect("a file");
        file.write_all_at(&[7; 8], BOOT).expect("room");
        in_child(|| {
            expect_dirty(&path);
            // Nothing changed.
            expect_dirty(&path);
            // SAFETY: nobody else has it, and the test left it whole.
            let opened = unsafe { options().may_be_dirty(true).open(&path) };
            let heap = opened.expect("a heap");
            assert_eq!(heap.opened(), Opened::Dirty);
            check_and_add(heap);
            close(heap);
            expect_dirty(&path);
        });
        // Whoever looks at it may be killed, and others come meanwhile.
        let [is_looking, may_end] = [0, 0].map(|zero| {
            let meeting = Mapped::create(1 << 20).expect("a heap");
            &*Box::leak(Box::new_in(AtomicU32::new(zero), meeting.handle()))
        });
        let wait = |step: &AtomicU32| {
            while step.load(Ordering::Acquire) == 0 {
                std::thread::yield_now();
            }
        };
        let look = || {
            // SAFETY: as above.
            let opened = unsafe { options().may_be_dirty(true).open(&path) };
            assert_eq!(opened.expect("a heap").opened(), Opened::Dirty);
        };
        let first = start(|| {
            look();
            is_looking.store(1, Ordering::Release);
            wait(may_end);
        });
        wait(is_looking);
        in_child(|| expect_dirty(&path));
        in_child(look);
        may_end.store(1, Ordering::Release);
        assert_eq!(end_of(first), 0);
        in_child(|| {
            expect_dirty(&path);
            // SAFETY: as above.
            let opened = unsafe { options().may_be_dirty(true).open(&path) };
            let heap = opened.expect("a heap");
            check_and_add(heap);
            heap.mark_fit().expect("nobody refuses");
            assert_eq!(end_of(start(|| check_and_add(heap))), 0);
            close(heap);
            let heap = open(&path).expect("a heap");
            assert_eq!(heap.opened(), Opened::Clean);
            check_and_add(heap);
            heap.mark_fit().expect("nothing is to be done");
        });
    }
}

#[test]
fn what_is_no_heap_is_refused() {
    let _turn = begin();
    let folder = Folder::new("/var/tmp");
    let path = folder.path("heap");
    assert_eq!(open(&path).err(), Some(MappedError::NotFound));
    assert_eq!(open("").err(), Some(MappedError::NotFound));
    let too_long = "a".repeat(5_000);
    let errno = libc::ENAMETOOLONG;
    assert_eq!(open(&too_long).err(), Some(MappedError::System { errno }));
    let refusal = open("a\0b").err();
    let errno = libc::EINVAL;
    assert_eq!(refusal, Some(MappedError::System { errno }));
    assert_eq!(
        options().create_file(folder.path("none/heap")).err(),
        Some(MappedError::NotFound)
    );
    assert_eq!(
        Mapped::options().create_file(&path).err(),
        Some(MappedError::Capacity)
    );
    assert_eq!(
        options().spill(folder.path("none")).err(),
        Some(MappedError::NotFound)
    );

    close(make(&path));
    assert_eq!(
        options().create_file(&path).err(),
        Some(MappedError::Exists)
    );
    let mode = fs::metadata(&path).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let other = folder.path("other");
    let shared = options().mode(0o640).create_file(&other).expect("a heap");
    let mode = fs::metadata(&other).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    close(shared);

    fs::write(
        &other,
        "no heap at all, but longer than the constants of one are",
    )
    .expect("room");
    assert_eq!(open(&other).err(), Some(MappedError::NoHeap));
    fs::write(&other, "short").expect("room");
    assert_eq!(open(&other).err(), Some(MappedError::NoHeap));
    let file = fs::File::options().write(true).open(&path).expect("a file");
    file.set_len((64 << 20) - 1).expect("shorter");
    assert_eq!(open(&path).err(), Some(MappedError::Length));
    file.set_len(65 << 20).expect("longer");
    assert_eq!(open(&path).err(), Some(MappedError::Length));
    let pipe = CString::new(folder.path("pipe")).expect("a path");
    // SAFETY: a C string.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    assert_eq!(open(&folder.path("pipe")).err(), Some(MappedError::NoHeap));
    let errno = libc::EISDIR;
    let refusal = open(&folder.path("."));
    assert_eq!(refusal.err(), Some(MappedError::System { errno }));
}

#[test]
fn a_spill_heap_is_shared_by_fork_and_leaves_nothing() {
    let _turn = begin();
    for folder in Folder::all() {
        let heap = options().spill(folder.path("")).expect("a heap");
        assert_eq!(heap.opened(), Opened::Created);
        assert_eq!(fs::read_dir(folder.path("")).expect("a folder").count(), 0);
        in_child(|| {
            let mut model = Model::new(heap.handle(), 7);
            (0..10_000).for_each(|_| model.step());
            let kept = Box::leak(Box::new_in([7_u64; 1000], heap.handle()));
            heap.set_root("kept", kept, 0).expect("room");
        });
        let (place, _) = heap.root("kept").expect("a name");
        // SAFETY: by a child that is gone.
        assert_eq!(unsafe { place.cast::<[u64; 1000]>().as_ref() }, &[7; 1000]);
        let mut model = Model::new(heap.handle(), 8);
        (0..10_000).for_each(|_| model.step());
        heap.verify().expect("a sound heap");
        // SAFETY: nobody else uses it.
        unsafe { heap.close() }.expect("nobody refuses");
    }
}

/// A copy that was made while somebody had the heap is as torn as what a machine leaves.
#[test]
fn a_copy_of_a_heap_in_use_is_dirty() {
    let _turn = begin();
    for folder in Folder::all() {
        let (path, copy) = (folder.path("heap"), folder.path("copy"));
        in_child(|| {
            make(&path);
            fs::copy(&path, &copy).expect("room");
        });
        in_child(|| expect_dirty(&copy));
        in_child(|| close(open(&path).expect("a heap")));
        fs::copy(&path, &copy).expect("room");
        in_child(|| {
            let heap = open(&copy).expect("a heap");
            assert_eq!(heap.opened(), Opened::Clean);
            check_and_add(heap);
        });
    }
}

/// A thread closes what another opens at the same time.
#[test]
fn openings_and_closings_take_turns() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    close(make(&path));
    let rounds = if cfg!(debug_assertions) { 200 } else { 1_000 };
    for _ in 0..rounds {
        let heap = open(&path).expect("a heap");
        let other = std::thread::scope(|scope| {
            let opening = scope.spawn(|| open(&path).expect("a heap"));
            // SAFETY: nobody uses it meanwhile.
            unsafe { heap.close() }.expect("nobody refuses");
            opening.join().expect("the thread")
        });
        // Whichever came first: what is stored in a heap that is open reaches the file.
        if let Ok(number) = Box::try_new_in(7_u64, other.handle()) {
            let place = (&raw const *number).addr() - other.base().addr().get();
            let file = fs::File::open(&path).expect("a file");
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, place as u64).expect("room");
            assert_eq!(u64::from_ne_bytes(bytes), 7);
        }
        let _ = open(&path).map(close);
    }
}

/// Whatever is refused to who opens it: a heap that was closed stays closed.
#[test]
fn an_opening_that_fails_leaves_it_as_it_was() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    in_child(|| close(make(&path)));
    in_child(|| {
        let mut failed = 0;
        for pass in 0.. {
            failpoints::refuse_after(pass, false);
            // SAFETY: nobody else has it.
            let opened = unsafe { options().populate(true).open(&path) };
            if failpoints::refuse_none() == 0 {
                break;
            }
            match opened {
                Ok(heap) => close(heap),
                Err(_) => failed += 1,
            }
            let heap = open(&path).expect("a heap");
            assert_eq!(heap.opened(), Opened::Clean, "pass {pass}");
            close(heap);
        }
        assert!(failed > 10, "{failed} openings failed");
    });
}

/// A process that may not have so long a file gets an error, and no signal.
#[test]
fn longer_than_a_file_may_be() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    in_child(|| {
        let limit = libc::rlimit {
            rlim_cur: 32 << 20,
            rlim_max: 32 << 20,
        };
        // SAFETY: readable.
        let limited = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
        assert_eq!(limited, 0);
        let refused = Some(MappedError::NoSpace);
        assert_eq!(options().create().err(), refused);
        assert_eq!(options().spill(folder.path("")).err(), refused);
        assert_eq!(options().create_file(folder.path("heap")).err(), refused);
    });
    assert_eq!(fs::read_dir(folder.path("")).expect("a folder").count(), 0);
}

#[test]
fn who_may_only_read_makes_nothing() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    // SAFETY: nobody else has it.
    let made = unsafe { options().read_only(true).open_or_create(&path) };
    assert_eq!(made.err(), Some(MappedError::ReadOnly));
    assert_eq!(fs::read_dir(folder.path("")).expect("a folder").count(), 0);
}

#[test]
fn who_has_it_is_known() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let heap = make(&folder.path("heap"));
    let own = std::process::id();
    assert_eq!(heap.processes().collect::<Vec<_>>(), [own]);
    in_child(|| {
        drop(Box::new_in(7, heap.handle()));
        let all: Vec<_> = heap.processes().collect();
        assert_eq!(all, [own, std::process::id()]);
    });
    // A file that has no name any more is a heap still.
    fs::remove_file(folder.path("heap")).expect("just made");
    check_and_add(heap);
    assert_eq!(
        open(&folder.path("heap")).err(),
        Some(MappedError::NotFound)
    );
    close(heap);
}
