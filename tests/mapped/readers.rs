//! Heaps that are only read, frozen, or lie elsewhere; and what else a heap can be asked to be.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use std::fs;
use std::os::unix::fs::PermissionsExt;

use flagstone::allocator_api2::boxed::Box;
use flagstone::allocator_api2::vec::Vec as MappedVec;
use flagstone::{HugePages, Mapped, MappedError, MappedOptions, Opened};

use crate::children::{end_of, start};
use crate::common::process::begin;
use crate::files::Folder;

const COUNT: usize = 100_000;

fn options<'a>() -> MappedOptions<'a> {
    Mapped::options().capacity(64 << 20)
}

fn reader(path: &str) -> Result<Mapped, MappedError> {
    // SAFETY: who has the heap does not change it meanwhile.
    unsafe { Mapped::options().read_only(true).open(path) }
}

fn fill(heap: Mapped) {
    let mut numbers = MappedVec::new_in(heap.handle());
    numbers.extend(0..COUNT as u64);
    heap.set_root("numbers", numbers.leak().as_ptr(), COUNT as u64)
        .expect("room");
    heap.insert("count", COUNT as u64).expect("room");
}

fn expect_numbers(place: NonNull<u8>) {
    // SAFETY: so many, which nobody changes.
    let numbers = unsafe { core::slice::from_raw_parts(place.as_ptr().cast::<u64>(), COUNT) };
    assert!(
        numbers
            .iter()
            .zip(0..)
            .all(|(number, place)| *number == place)
    );
}

/// The numbers are there, and nothing can be changed.
fn check_reader(heap: Mapped) {
    let (place, count) = heap.root("numbers").expect("a name");
    assert_eq!(count, COUNT as u64);
    expect_numbers(place);
    assert!(Box::try_new_in(7, heap.handle()).is_err());
    let refused = Some(MappedError::ReadOnly);
    assert_eq!(heap.set_root("other", place.as_ptr(), 0).err(), refused);
    assert_eq!(heap.remove_root("numbers").err(), refused);
    assert_eq!(heap.purge().err(), refused);
    heap.verify().expect("a sound heap");
    assert_eq!(heap.flush().err(), refused);
    assert!(heap.stats().live >= COUNT * 8);
}

/// A step of a test, that processes take one after the other.
struct Steps {
    count: &'static AtomicU32,
}

impl Steps {
    fn new() -> Self {
        let heap = Mapped::create(1 << 20).expect("a heap");
        let count = Box::leak(Box::new_in(AtomicU32::new(0), heap.handle()));
        Self { count }
    }

    fn wait_for(&self, step: u32) {
        while self.count.load(Ordering::Acquire) < step {
            std::thread::yield_now();
        }
    }

    fn take(&self, step: u32) {
        self.count.store(step, Ordering::Release);
    }
}

#[test]
fn a_file_is_read_by_who_may_not_write() {
    let _turn = begin();
    for parent in ["/var/tmp", "/dev/shm"] {
        let folder = Folder::new(parent);
        let path = folder.path("heap");
        let make = || {
            let heap = options().create_file(&path).expect("a heap");
            fill(heap);
            // SAFETY: nobody else uses it.
            unsafe { heap.close() }.expect("nobody refuses");
        };
        assert_eq!(end_of(start(make)), 0);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("our own");
        let before = fs::read(&path).expect("a file");
        let read = || {
            let heap = reader(&path).expect("a heap");
            assert_eq!(heap.opened(), Opened::Clean);
            check_reader(heap);
            let (place, _) = heap.root("numbers").expect("a name");
            assert_eq!(heap.processes().count(), 0);
            // SAFETY: nobody else uses it.
            unsafe { heap.close() }.expect("nobody refuses");
            assert_eq!(heap.root("numbers"), None);
            let refused = heap.set_root("other", place.as_ptr(), 0);
            assert_eq!(refused.err(), Some(MappedError::Closed));
            check_reader(reader(&path).expect("the same"));
        };
        assert_eq!(end_of(start(read)), 0);
        assert!(
            fs::read(&path).expect("a file") == before,
            "nothing changed"
        );
    }
}

#[test]
fn a_frozen_heap_is_read_by_many() {
    let _turn = begin();
    let steps = Steps::new();
    let descriptor: &AtomicU32 = {
        let heap = Mapped::create(1 << 20).expect("a heap");
        Box::leak(Box::new_in(AtomicU32::new(0), heap.handle()))
    };
    let maker = start(|| {
        let heap = options().create().expect("a heap");
        fill(heap);
        descriptor.store(heap.as_raw_fd().cast_unsigned(), Ordering::Relaxed);
        steps.take(1);
        steps.wait_for(2);
        // SAFETY: nobody else of this process uses it.
        let frozen = unsafe { heap.freeze() };
        assert_eq!(frozen, Err(MappedError::InUse), "another process has it");
        // As before.
        drop(Box::new_in(7, heap.handle()));
        heap.verify().expect("a sound heap");
        steps.take(3);
        steps.wait_for(4);
        // SAFETY: as above.
        unsafe { heap.freeze() }.expect("nobody has it any more");
        check_reader(heap);
        // SAFETY: as above.
        assert_eq!(unsafe { heap.freeze() }, Err(MappedError::ReadOnly));
        steps.take(5);
        steps.wait_for(6);
    });
    steps.wait_for(1);
    let number = descriptor.load(Ordering::Relaxed);
    let path = format!("/proc/{maker}/fd/{number}");
    let user = start(|| {
        // SAFETY: nobody changes the same block.
        let heap = unsafe { Mapped::options().open(&path) }.expect("a heap");
        assert_eq!(heap.opened(), Opened::Joined);
        drop(Box::new_in(8, heap.handle()));
        steps.take(2);
        steps.wait_for(3);
    });
    assert_eq!(end_of(user), 0);
    steps.take(4);
    steps.wait_for(5);
    let read = || {
        let heap = reader(&path).expect("a heap");
        check_reader(heap);
        // Nobody may change it, whatever he asks for.
        // SAFETY: nobody changes anything.
        let writer = unsafe { Mapped::options().open(&path) }.expect("the same heap");
        assert_eq!(writer.flush(), Err(MappedError::ReadOnly));
    };
    let readers: Vec<_> = (0..8).map(|_| start(read)).collect();
    readers
        .into_iter()
        .for_each(|child| assert_eq!(end_of(child), 0));
    let writer = start(|| {
        // SAFETY: nobody changes anything.
        let refused = unsafe { Mapped::options().open(&path) };
        assert_eq!(refused.err(), Some(MappedError::ReadOnly));
    });
    assert_eq!(end_of(writer), 0);
    steps.take(6);
    assert_eq!(end_of(maker), 0);
}

#[test]
fn what_is_no_object_is_not_frozen() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let heap = options().create_file(folder.path("heap")).expect("a heap");
    fill(heap);
    // SAFETY: nobody else uses it.
    assert_eq!(unsafe { heap.freeze() }, Err(MappedError::Unsupported));
    drop(Box::new_in(7, heap.handle()));
    // A forked child has it, too.
    let object = options().create().expect("a heap");
    fill(object);
    let steps = Steps::new();
    let child = start(|| steps.wait_for(1));
    // SAFETY: as above.
    assert_eq!(unsafe { object.freeze() }, Err(MappedError::InUse));
    steps.take(1);
    assert_eq!(end_of(child), 0);
    // SAFETY: as above.
    unsafe { object.freeze() }.expect("nobody has it any more");
    check_reader(object);
}

/// A copy of a heap's file lies at the same address.
#[test]
fn a_heap_lies_elsewhere_if_it_may() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let (path, copy) = (folder.path("heap"), folder.path("copy"));
    let heap = options().create_file(&path).expect("a heap");
    fill(heap);
    heap.flush().expect("nobody refuses");
    // SAFETY: nobody else uses it.
    unsafe { heap.close() }.expect("nobody refuses");
    fs::copy(&path, &copy).expect("room");
    // SAFETY: nobody else has the copy.
    let busy = unsafe { Mapped::options().open(&copy) };
    let Err(MappedError::BaseBusy { base, by }) = busy else {
        panic!("{busy:?}");
    };
    assert_eq!(base, heap.base().addr().get());
    assert!(
        path.as_bytes().ends_with(by.as_bytes()) && !by.as_bytes().is_empty(),
        "{by}"
    );
    // SAFETY: as above; numbers lie in it, and no addresses.
    let other = unsafe { Mapped::options().anywhere(true).open(&copy) }.expect("a heap");
    assert_ne!(other.handle(), heap.handle());
    let (place, count) = other.root("numbers").expect("a name");
    assert!(other.contains(place.as_ptr()) && count == COUNT as u64);
    expect_numbers(place);
    let mut more = MappedVec::new_in(other.handle());
    more.extend(0..COUNT as u64);
    assert!(other.contains(more.as_ptr()) && !heap.contains(more.as_ptr()));
    drop(more);
    other.verify().expect("a sound heap");
    // Who asks for it where it is to lie does not get it elsewhere, open or closed.
    let is_busy = || {
        // SAFETY: nobody else has the copy.
        let found = unsafe { Mapped::options().open(&copy) };
        matches!(found, Err(MappedError::BaseBusy { .. }))
    };
    assert!(is_busy());
    // SAFETY: nobody else has it.
    unsafe { other.close() }.expect("nobody refuses");
    assert!(is_busy());
}

#[test]
fn what_memory_can_be() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let merged = options().mergeable(true);
    assert_eq!(merged.create().err(), Some(MappedError::Unsupported));
    assert_eq!(
        merged.spill(folder.path("")).err(),
        Some(MappedError::Unsupported)
    );
    assert_eq!(fs::read_dir(folder.path("")).expect("a folder").count(), 0);
    let heap = options().core_dumps(false).huge_pages(HugePages::Advise);
    let heap = heap.create().expect("a heap");
    fill(heap);
    let flags = flags_of(heap.base().addr().get());
    assert!(flags.contains(" dd"), "{flags}");
    let none = options().node(Some(1_000_000)).create();
    assert_eq!(none.err(), Some(MappedError::Unsupported));

    // All memory is there, and what is found, too.
    let path = folder.path("heap");
    let small = Mapped::options().capacity(8 << 20).populate(true);
    let heap = small.create_file(&path).expect("a heap");
    let resident = resident_of(heap.base().addr().get());
    assert_eq!(resident, 8 << 20);
    fill(heap);
    // SAFETY: nobody else uses it.
    unsafe { heap.close() }.expect("nobody refuses");
    let look = || {
        // SAFETY: nobody else has it.
        let heap = unsafe { Mapped::options().populate(true).open(&path) }.expect("a heap");
        assert!(resident_of(heap.base().addr().get()) >= COUNT * 8);
    };
    assert_eq!(end_of(start(look)), 0);
}

/// The lines of the mapping at an address in `/proc/self/smaps`.
fn mapping_at(address: usize) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/smaps").expect("smaps");
    let begins = format!("{address:x}-");
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&begins));
    let first = lines.next().expect("a mapping").to_string();
    let rest = lines.take_while(|line| {
        line.split_once(':')
            .is_some_and(|(name, _)| !name.contains('-'))
    });
    core::iter::once(first)
        .chain(rest.map(str::to_string))
        .collect()
}

fn flags_of(address: usize) -> String {
    let lines = mapping_at(address);
    let flags = lines.iter().find(|line| line.starts_with("VmFlags:"));
    flags.expect("flags").clone()
}

fn resident_of(address: usize) -> usize {
    let lines = mapping_at(address);
    let words = lines.iter().find_map(|line| line.strip_prefix("Rss:"));
    let number = words.and_then(|words| words.split_whitespace().next());
    number
        .and_then(|number| number.parse::<usize>().ok())
        .expect("a number")
        << 10
}
