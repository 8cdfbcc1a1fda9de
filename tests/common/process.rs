//! What the process holds, and the laws about it that every test ends with.

use core::time::Duration;
use std::fs::{self, DirEntry};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use flagstone::{Flagstone, Stats};

/// Rounds after which memory has to have settled. The test harness and std keep a few things of their
/// own after the first rounds; a leak grows in every round.
const ROUNDS: usize = 16;
/// As many rounds in a row have to end with the same live bytes.
const STEADY: usize = 3;

/// Takes the turn of one test: tests of one file share the process and would count each other's
/// blocks. Where each has a process of its own, they take none, and run beside each other.
///
/// The alarm ends a process that hangs; no test takes a tenth of that time, but for those that were asked for all.
pub(crate) fn begin() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = match std::env::var_os("MAPPED_ALL") {
        Some(_) => 0,
        None => 600,
    };
    // SAFETY: `alarm` has no preconditions. None for 0.
    unsafe { libc::alarm(seconds) };
    turn
}

/// What the allocator holds. Tests that use this run where it is flagstone's own.
#[track_caller]
pub(crate) fn stats() -> Stats {
    Flagstone::stats().expect("statistics, on Linux")
}

/// Bytes that the program holds now. Blocks in a thread's magazines are not live.
pub(crate) fn live() -> usize {
    stats().live
}

/// Panics if an invariant of the allocator does not hold.
#[track_caller]
pub(crate) fn verify() {
    if let Err(violation) = Flagstone::verify() {
        panic!("{violation:?}");
    }
}

/// Runs `round` until live bytes stay the same from round to round, and fails if they never do.
#[track_caller]
pub(crate) fn expect_flat(mut round: impl FnMut()) {
    let mut after = [0; ROUNDS];
    for i in 0..ROUNDS {
        round();
        verify();
        after[i] = live();
        if i >= STEADY && after[i - STEADY..i].iter().all(|&bytes| bytes == after[i]) {
            return;
        }
    }
    panic!("live bytes after each round never settled: {after:?}");
}

/// Bytes of this process in memory.
pub(crate) fn resident() -> usize {
    statm(1)
}

/// Bytes of addresses that this process has mapped.
pub(crate) fn mapped() -> usize {
    statm(0)
}

/// A field of `/proc/self/statm` in bytes, read without an allocation.
fn statm(field: usize) -> usize {
    let mut text = [0_u8; 256];
    // SAFETY: the path is a C string.
    let file = unsafe {
        libc::open(
            c"/proc/self/statm".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        )
    };
    assert!(file >= 0, "/proc/self/statm cannot be opened");
    // SAFETY: the buffer is writable for its whole length.
    let len = unsafe { libc::read(file, text.as_mut_ptr().cast(), text.len()) };
    // SAFETY: opened above and not used any more.
    unsafe { libc::close(file) };
    let len = usize::try_from(len).expect("/proc/self/statm can be read");
    let pages = text[..len]
        .split(|&byte| byte == b' ')
        .nth(field)
        .expect("so many fields");
    let pages = pages
        .iter()
        .fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    pages * page_size()
}

/// Whether the page at `address` is in memory. Nothing need be mapped there.
#[expect(
    clippy::disallowed_methods,
    reason = "a look from outside at what the allocator did"
)]
pub(crate) fn is_in_memory(address: usize) -> bool {
    let mut present = 0;
    let page = core::ptr::without_provenance_mut(address - address % page_size());
    // SAFETY: `present` has room for the answer about one page; the page itself is not accessed.
    let result = unsafe { libc::mincore(page, page_size(), &raw mut present) };
    result == 0 && present & 1 != 0
}

/// Whether a byte can be read there, without a fault if it cannot.
pub(crate) fn is_readable(address: usize) -> bool {
    let mut byte = 0_u8;
    let mut own = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let remote = libc::iovec {
        iov_base: core::ptr::without_provenance_mut(address),
        iov_len: 1,
    };
    // SAFETY: `getpid` has no preconditions.
    let process = unsafe { libc::getpid() };
    // SAFETY: one byte is written, to `byte`; what cannot be read is an error.
    let read = unsafe { libc::process_vm_readv(process, &raw mut own, 1, &raw const remote, 1, 0) };
    read == 1
}

/// Waits until `has_happened`; nothing in here allocates. What happens after a minute happened late: no test measures
/// how late.
#[track_caller]
pub(crate) fn until(has_happened: impl Fn() -> bool) {
    let begin = Instant::now();
    while !has_happened() {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited in vain");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until every other thread sleeps: the test harness has one that sleeps while a test runs, but
/// may still be on its way there, and allocate, when the test begins.
pub(crate) fn until_others_sleep() {
    // SAFETY: `gettid` has no preconditions.
    let own = unsafe { libc::gettid() }.to_string();
    let is_awake = |thread: DirEntry| {
        // The state follows the name, which is in parentheses.
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let is_other = thread.file_name().to_string_lossy() != own;
        is_other && !stat.contains(") S ")
    };
    while fs::read_dir("/proc/self/task")
        .expect("a list of threads")
        .flatten()
        .any(is_awake)
    {
        thread::yield_now();
    }
}

/// Keeps huge pages out of this process, so that touching a byte costs one small page everywhere.
pub(crate) fn without_huge_pages() {
    // SAFETY: this option takes plain numbers.
    let result = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1_u64, 0_u64, 0_u64, 0_u64) };
    assert_eq!(result, 0, "PR_SET_THP_DISABLE refused");
}

pub(crate) fn page_size() -> usize {
    // SAFETY: `sysconf` has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("a page size")
}

/// Panics unless the process holds at most `most` bytes more than `before`.
#[track_caller]
pub(crate) fn expect_back(before: usize, most: usize) {
    let grown = resident().saturating_sub(before);
    assert!(grown <= most, "{grown} bytes more are still in memory");
}

/// Panics unless the process holds at least `least` bytes more than `before`: what is to go back has to
/// be there first.
#[track_caller]
pub(crate) fn expect_grown(before: usize, least: usize) {
    let grown = resident().saturating_sub(before);
    assert!(grown >= least, "only {grown} bytes more are in memory");
}
