//! Other programs, by a descriptor.

use core::sync::atomic::{AtomicU32, Ordering};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::{env, fs};

use flagstone::allocator_api2::vec::Vec as MappedVec;
use flagstone::{Mapped, MappedError};

use crate::common::process::begin;

const NAME: &str = "attach::another_program_attaches";
const DESCRIPTOR: &str = "MAPPED_TEST_FD";

fn attach(descriptor: i32) -> Result<Mapped, MappedError> {
    // SAFETY: who else has the heap is of this test, and keeps to Rust's rules.
    unsafe { Mapped::attach(descriptor) }
}

#[test]
fn another_program_attaches() {
    if let Some(heap) = given() {
        return guest(&heap);
    }
    let _turn = begin();
    let heap = Mapped::create(64 << 20).expect("a heap");
    let mut numbers = MappedVec::new_in(heap.handle());
    numbers.extend(0..10_000_u64);
    heap.set_root("numbers", numbers.as_ptr(), numbers.len() as u64)
        .expect("room");
    let status = run_guest(NAME, &heap);
    assert!(status.success(), "{status}");
    let (place, count) = heap.root("answer").expect("set by the guest");
    // SAFETY: so many numbers, by a program that is gone.
    let answer = unsafe {
        core::slice::from_raw_parts(
            place.as_ptr().cast::<u64>(),
            usize::try_from(count).expect("few"),
        )
    };
    assert!(
        answer
            .iter()
            .zip(&numbers)
            .all(|(answer, number)| *answer == number * 2)
    );
    heap.verify().expect("a sound heap");
}

/// Runs a test of this program in another process, which gets the heap's descriptor alone.
pub(crate) fn run_guest(name: &str, heap: &Mapped) -> ExitStatus {
    let descriptor = heap.as_raw_fd();
    let mut guest = Command::new(env::current_exe().expect("this program"));
    guest
        .args(["--exact", name, "--nocapture"])
        .env(DESCRIPTOR, descriptor.to_string());
    let inherit = move || {
        // SAFETY: a system call.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) };
        Ok(())
    };
    // SAFETY: nothing but that, in a child that is about to become the other program.
    unsafe { guest.pre_exec(inherit) };
    guest.status().expect("the guest")
}

/// The heap that [`run_guest`] gave this process, if it did.
pub(crate) fn given() -> Option<Mapped> {
    let number = env::var(DESCRIPTOR).ok()?;
    Some(attach(number.parse().expect("a number")).expect("a heap"))
}

fn guest(heap: &Mapped) {
    let (place, count) = heap.root("numbers").expect("set by the host");
    // SAFETY: so many numbers, which the host does not change meanwhile.
    let numbers = unsafe {
        core::slice::from_raw_parts(
            place.as_ptr().cast::<u64>(),
            usize::try_from(count).expect("few"),
        )
    };
    let mut answer = MappedVec::new_in(heap.handle());
    answer.extend(numbers.iter().map(|number| number * 2));
    let answer = answer.leak();
    heap.set_root("answer", answer.as_ptr(), answer.len() as u64)
        .expect("room");
    assert_eq!(heap.stats().processes, 2);
}

#[test]
fn a_process_has_a_heap_once() {
    let _turn = begin();
    let heap = Mapped::create(8 << 20).expect("a heap");
    let other = attach(heap.as_raw_fd()).expect("the same");
    assert_eq!(heap.handle(), other.handle());
    assert_eq!(other.as_raw_fd(), heap.as_raw_fd());
}

/// A file with these bytes and so many, which has no name any more.
fn file_of(bytes: &[u8], length: u64) -> fs::File {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = env::temp_dir().join(format!("no-heap-{}-{number}", std::process::id()));
    let mut options = fs::File::options();
    let file = options.read(true).write(true).create_new(true).open(&path);
    let file = file.expect("a file");
    fs::remove_file(&path).expect("just made");
    file.set_len(length).expect("a length");
    file.write_all_at(bytes, 0).expect("room");
    file
}

#[test]
fn what_is_no_heap_is_refused() {
    let _turn = begin();
    let heap = Mapped::create(8 << 20).expect("a heap");
    let mut first = vec![0_u8; 1 << 16];
    let base: *const u8 = heap
        .root("")
        .map_or(core::ptr::null(), |(place, _)| place.as_ptr());
    assert!(base.is_null());
    let file = fs::File::from(file_copy(&heap));
    file.read_exact_at(&mut first, 0).expect("the first unit");
    let with = |place: usize, byte: u8| {
        let mut bytes = first.clone();
        bytes[place] ^= byte;
        let file = file_of(&bytes, 8 << 20);
        attach(file.as_raw_fd()).err()
    };
    assert_eq!(
        attach(file_of(b"", 0).as_raw_fd()).err(),
        Some(MappedError::NoHeap)
    );
    assert_eq!(
        attach(file_of(b"", 8 << 20).as_raw_fd()).err(),
        Some(MappedError::NoHeap)
    );
    assert_eq!(
        attach(file_of(&first, 4 << 20).as_raw_fd()).err(),
        Some(MappedError::Length)
    );
    assert_eq!(with(0, 1), Some(MappedError::NoHeap));
    assert_eq!(with(7, 6), Some(MappedError::Version));
    let mut swapped = first.clone();
    swapped[..8].reverse();
    assert_eq!(
        attach(file_of(&swapped, 8 << 20).as_raw_fd()).err(),
        Some(MappedError::ByteOrder)
    );
    for place in 8..56 {
        assert_eq!(with(place, 1), Some(MappedError::Damaged), "{place}");
    }
    // A copy lies at the same address.
    let copy = file_of(&first, 8 << 20);
    assert!(matches!(
        attach(copy.as_raw_fd()),
        Err(MappedError::BaseBusy { .. })
    ));
    // No file at all.
    assert_eq!(
        attach(-1).err(),
        Some(MappedError::System { errno: libc::EBADF })
    );
}

fn file_copy(heap: &Mapped) -> OwnedFd {
    // SAFETY: the heap's, for as long as this call.
    let own = unsafe { BorrowedFd::borrow_raw(heap.as_raw_fd()) };
    own.try_clone_to_owned().expect("a copy")
}
