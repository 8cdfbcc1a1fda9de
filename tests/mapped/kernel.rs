//! What the kernel gives to those who map files: pages that reach the disk, that many share, that need no memory; and
//! that go when nobody has them.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use flagstone::allocator_api2::vec::Vec as MappedVec;
use flagstone::{Handle, Mapped, MappedError};

use crate::children::{end_of, start};
use crate::common::group::Group;
use crate::common::process::begin;
use crate::files::Folder;

const MIB: usize = 1 << 20;

/// A block of so many bytes, of which each word is another.
fn filled(heap: Mapped, bytes: usize) -> MappedVec<u64, Handle> {
    let mut words = MappedVec::new_in(heap.handle());
    words.try_reserve_exact(bytes / 8).expect("room");
    words.extend(0..bytes as u64 / 8);
    words
}

fn check(words: &[u64]) {
    assert!(words.iter().zip(0..).all(|(word, place)| *word == place));
}

/// Pages of a file that are to be written to the disk; `None` where the kernel does not tell.
fn dirty_pages(file: &fs::File) -> Option<u64> {
    #[repr(C)]
    struct Range {
        offset: u64,
        length: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Counts {
        cached: u64,
        dirty: u64,
        written: u64,
        evicted: u64,
        lately: u64,
    }
    /// Linux's number of `cachestat`, on all processors.
    const CACHESTAT: libc::c_long = 451;
    let (range, mut counts) = (
        Range {
            offset: 0,
            length: 0,
        },
        Counts::default(),
    );
    let number = file.as_raw_fd();
    // SAFETY: reads and writes such structures.
    let done = unsafe { libc::syscall(CACHESTAT, number, &raw const range, &raw mut counts, 0) };
    (done == 0).then_some(counts.dirty)
}

#[test]
fn what_is_flushed_is_on_the_disk() {
    let _turn = begin();
    let folder = Folder::new("/var/tmp");
    let path = folder.path("heap");
    let options = Mapped::options().capacity(64 * MIB);
    let heap = options.create_file(&path).expect("a heap");
    let words = filled(heap, 8 * MIB);
    let file = fs::File::open(&path).expect("a file");
    let Some(before) = dirty_pages(&file) else {
        return println!("skipped: the kernel does not count dirty pages");
    };
    heap.flush().expect("nobody refuses");
    let after = dirty_pages(&file).expect("it told before");
    assert_eq!(after, 0, "{before} pages before");
    drop(words);
    // SAFETY: nobody else uses it.
    unsafe { heap.close() }.expect("nobody refuses");
    assert_eq!(dirty_pages(&file), Some(0));
}

/// Fills and checks a heap of four times what its group may use.
fn use_more_than_there_is(make: impl FnOnce() -> Mapped, group: &Group) {
    group.join();
    let heap = make();
    let blocks: Vec<_> = (0..16).map(|_| filled(heap, 16 * MIB)).collect();
    blocks.iter().for_each(|block| check(block));
    drop(blocks);
    heap.verify().expect("a sound heap");
}

#[test]
fn a_spill_heap_is_larger_than_memory() {
    let _turn = begin();
    let Some(group) = Group::new("spill", 64 * MIB) else {
        return println!("skipped: no control group can be made");
    };
    let folder = Folder::new("/var/tmp");
    let options = Mapped::options().capacity(512 * MIB);
    let spill = || options.spill(folder.path("")).expect("a heap");
    let child = start(|| use_more_than_there_is(spill, &group));
    assert_eq!(end_of(child), 0);
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swaps.lines().count() > 1 {
        return println!("skipped: memory that is no file's goes to the swap");
    }
    // The same in memory.
    let object = || options.create().expect("a heap");
    let child = start(|| use_more_than_there_is(object, &group));
    assert_eq!(end_of(child) & 0x7f, libc::SIGKILL);
}

/// A limit of private memory is none of files.
#[test]
fn files_are_no_data() {
    let _turn = begin();
    let folder = Folder::new("/var/tmp");
    let child = start(|| {
        // More than there is by so much.
        let status = fs::read_to_string("/proc/self/status").expect("a status");
        let bytes = kib_of(status.lines(), "VmData:") + 64 * MIB;
        let limit = libc::rlimit {
            rlim_cur: bytes as u64,
            rlim_max: bytes as u64,
        };
        // SAFETY: readable.
        let limited = unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) };
        assert_eq!(limited, 0);
        assert!(Vec::<u8>::new().try_reserve_exact(512 * MIB).is_err());
        let options = Mapped::options().capacity(512 * MIB);
        let heap = options.spill(folder.path("")).expect("a heap");
        check(&filled(heap, 100 * MIB));
    });
    assert_eq!(end_of(child), 0);
}

/// Bytes of a mapping in memory, and this process's share of them.
fn resident(address: usize) -> [usize; 2] {
    let text = fs::read_to_string("/proc/self/smaps").expect("smaps");
    let begins = format!("{address:x}-");
    let lines = text.lines().skip_while(|line| !line.starts_with(&begins));
    ["Rss:", "Pss:"].map(|name| kib_of(lines.clone(), name))
}

/// Bytes of what a line that begins so says in KiB.
fn kib_of<'a>(mut lines: impl Iterator<Item = &'a str>, name: &str) -> usize {
    let words = lines.find_map(|line| line.strip_prefix(name));
    let number = words.and_then(|words| words.split_whitespace().next());
    let number = number.and_then(|number| number.parse::<usize>().ok());
    number.expect("a number") << 10
}

#[test]
fn processes_share_pages() {
    let _turn = begin();
    let heap = Mapped::create(64 * MIB).expect("a heap");
    let words = filled(heap, 32 * MIB);
    let child = start(|| {
        check(&words);
        let [all, share] = resident(heap.base().addr().get());
        assert!(all >= 32 * MIB && share < 20 * MIB, "{share} of {all}");
    });
    assert_eq!(end_of(child), 0);
}

/// The file of a heap goes with the last who has it, or stays when it has a name.
#[test]
fn memory_goes_with_the_last() {
    let _turn = begin();
    let held = |folder: &Path| {
        let links = fs::read_dir(folder).expect("a folder").flatten();
        let files = links.filter_map(|link| fs::read_link(link.path()).ok());
        files
            .filter(|file| file.to_string_lossy().contains("goes with"))
            .count()
    };
    let own = Path::new("/proc/self/fd");
    let heap = Mapped::options().name("goes with the last").capacity(MIB);
    let heap = heap.create().expect("a heap");
    assert_eq!(held(own), 1);
    let maps = || fs::read_to_string("/proc/self/maps").expect("maps");
    assert!(maps().contains("/memfd:goes with the last (deleted)"));
    // SAFETY: nobody else uses it.
    unsafe { heap.close() }.expect("nobody refuses");
    assert_eq!(held(own), 0);
    // What is left is this process's own copy.
    assert!(
        !maps()
            .lines()
            .any(|line| line.contains("goes with") && line.contains("rw-s"))
    );
}

/// A heap is attached by any descriptor of its file, also one of another open file.
#[test]
fn any_descriptor_will_do() {
    let _turn = begin();
    let folder = Folder::new("/dev/shm");
    let path = folder.path("heap");
    let child = start(|| {
        let heap = Mapped::options().capacity(MIB).create_file(&path);
        drop(filled(heap.expect("a heap"), 1000));
    });
    assert_eq!(end_of(child), 0);
    let file = fs::File::options().read(true).write(true).open(&path);
    let file = OwnedFd::from(file.expect("a file"));
    // SAFETY: nobody else has it.
    let heap = unsafe { Mapped::attach(file.as_raw_fd()) }.expect("a heap");
    check(&filled(heap, 100_000));
    let device = fs::File::open("/dev/zero").expect("a device");
    // SAFETY: no heap.
    let refused = unsafe { Mapped::attach(device.as_raw_fd()) };
    assert_eq!(refused.err(), Some(MappedError::NoHeap));
}

/// A file as a device, until it is dropped.
struct Device(String);

impl Device {
    fn of(path: &str) -> Option<Self> {
        let mut make = Command::new("losetup");
        let made = make.args(["--find", "--show", path]).output();
        let made = made.ok().filter(|made| made.status.success())?;
        Some(Self(String::from_utf8(made.stdout).ok()?.trim().into()))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn devices_are_files() {
    let _turn = begin();
    let folder = Folder::new("/var/tmp");
    let path = folder.path("image");
    let child = start(|| {
        let heap = Mapped::create(4 * MIB).expect("a heap");
        let words = filled(heap, MIB).leak();
        heap.set_root("words", words.as_ptr(), words.len() as u64)
            .expect("room");
        fs::copy(format!("/proc/self/fd/{}", heap.as_raw_fd()), &path).expect("room");
        // Of a device that is too short, and of one that is longer.
        fs::copy(&path, format!("{path}-short")).expect("room");
        let file = fs::File::options()
            .write(true)
            .open(format!("{path}-short"));
        file.expect("a file").set_len(2 << 20).expect("shorter");
        let file = fs::File::options().write(true).open(&path);
        file.expect("a file").set_len(6 << 20).expect("longer");
    });
    assert_eq!(end_of(child), 0);
    let Some(device) = Device::of(&path) else {
        return println!("skipped: no device can be made of a file");
    };
    let open = |path: &str| {
        // SAFETY: nobody else has it.
        unsafe { Mapped::options().open(path) }
    };
    let heap = open(&device.0).expect("a heap");
    let (place, count) = heap.root("words").expect("a name");
    let count = usize::try_from(count).expect("few");
    // SAFETY: so many, which nobody changes.
    check(unsafe { core::slice::from_raw_parts(place.as_ptr().cast(), count) });
    check(&filled(heap, MIB));
    heap.verify().expect("a sound heap");
    // SAFETY: nobody else uses it.
    unsafe { heap.close() }.expect("nobody refuses");
    let short = Device::of(&format!("{path}-short")).expect("as before");
    assert_eq!(open(&short.0).err(), Some(MappedError::Length));
}
