//! What every system, and Miri, answers in the same words.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::NonNull;

use super::failpoints;
use crate::valgrind;

/// Runs a call that may set `errno`, and puts it back: freeing must not change it.
pub(super) fn keeping_errno<R>(call: impl FnOnce() -> R) -> R {
    // SAFETY: 1. no precondition; the result is this thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: 1. valid for as long as the thread lives.
    let before = unsafe { errno.read() };
    let result = call();
    // SAFETY: 1. as above.
    unsafe { errno.write(before) };
    result
}

pub(super) fn page_size() -> usize {
    // SAFETY: 1. no precondition.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).unwrap_or(4096)
}

/// Processors this process may run on, at least 1.
pub(crate) fn cpus() -> usize {
    // SAFETY: 1. all zero is an empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: 1. `set` is as long as said.
    let got =
        keeping_errno(|| unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) });
    if got != 0 {
        // More processors than the set has room for.
        // SAFETY: 1. no precondition.
        let online = keeping_errno(|| unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) });
        return usize::try_from(online).unwrap_or(1).max(1);
    }
    // SAFETY: 1. reads `set` only.
    let count = unsafe { libc::CPU_COUNT(&set) };
    usize::try_from(count).unwrap_or(1).max(1)
}

pub(crate) fn yield_now() {
    // SAFETY: 1. no precondition.
    let _ = unsafe { libc::sched_yield() };
}

/// Milliseconds of a clock that never goes back, a few milliseconds coarse; no system call.
pub(crate) fn gettime_ms() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: 1. `now` is writable.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) } != 0 {
        return 0;
    }
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

/// Writes a message, as far as the file takes it. If nobody reads it any more, no `SIGPIPE` ends the program, which
/// knows nothing of this.
pub(crate) fn write(file: c_int, message: &[u8]) {
    keeping_errno(|| without_sigpipe(|| write_all(file, message)));
}

/// Whether nobody reads any more.
fn write_all(file: c_int, message: &[u8]) -> bool {
    let mut rest = message;
    while !rest.is_empty() {
        match write_part(file, rest) {
            Some(count) if count > 0 => rest = &rest[count..],
            None if errno() == libc::EINTR => {}
            // A part of it is all that can be done.
            _ => return errno() == libc::EPIPE,
        }
    }
    false
}

/// How much the file took; `None` is an error. Not `write` of the C library, where a thread that is
/// to be cancelled would end, in the middle of a `free` and with the message lost: `syscall` is no
/// such place, here and below.
fn write_part(file: c_int, message: &[u8]) -> Option<usize> {
    let (start, length) = (message.as_ptr(), message.len());
    // SAFETY: 1. `message` is readable.
    #[cfg(not(miri))]
    let written = unsafe { libc::syscall(libc::SYS_write, file, start, length) };
    // Miri has no such call, nor threads that are to be cancelled.
    // SAFETY: 1. as above.
    #[cfg(miri)]
    let written = unsafe { libc::write(file, start.cast(), length) };
    usize::try_from(written).ok()
}

fn errno() -> c_int {
    // SAFETY: 1. no precondition; the result is this thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: 1. valid for as long as the thread lives.
    unsafe { errno.read() }
}

/// Runs `work` with `SIGPIPE` blocked, and takes the one back that it says it has caused.
fn without_sigpipe(work: impl FnOnce() -> bool) {
    if cfg!(any(miri, flagstone_portable)) {
        work();
        return;
    }
    // SAFETY: 1. all zero is an empty set.
    let [mut pipe, mut pending, mut before]: [libc::sigset_t; 3] = unsafe { core::mem::zeroed() };
    // SAFETY: 1. writable, as are the others below.
    unsafe { libc::sigaddset(&raw mut pipe, libc::SIGPIPE) };
    // SAFETY: 1. as above.
    unsafe { libc::sigpending(&raw mut pending) };
    // SAFETY: 1. as above.
    let was_pending = unsafe { libc::sigismember(&raw const pending, libc::SIGPIPE) } == 1;
    // SAFETY: 1. as above.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const pipe, &raw mut before) };
    if work() && !was_pending {
        let at_once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // The signals that the kernel knows; there is room for more in the C library's set.
        let length = size_of::<u64>();
        let nothing = core::ptr::null_mut::<libc::siginfo_t>();
        let call = libc::SYS_rt_sigtimedwait;
        // SAFETY: 1. both are readable; nobody asks for more about the signal.
        unsafe { libc::syscall(call, &raw const pipe, nothing, &raw const at_once, length) };
    }
    // SAFETY: 1. as above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, core::ptr::null_mut()) };
}

pub(crate) fn abort() -> ! {
    // SAFETY: 1. no precondition.
    unsafe { libc::abort() }
}

unsafe extern "C" {
    static mut environ: *const *const c_char;
}

/// The value of an environment variable.
pub(crate) fn env(name: &str) -> Option<&'static [u8]> {
    // SAFETY: 1. as in `getenv`: nobody changes the environment meanwhile, which who does that in a
    // program with threads has to promise (`std::env::set_var`).
    let mut entry = unsafe { environ };
    if entry.is_null() {
        // Before the C library's own beginning, as for what the loader runs first of all.
        entry = super::early_environment()?.as_ptr();
    }
    loop {
        // SAFETY: 1. the array ends with null, which ends this loop.
        let text = unsafe { entry.read() };
        if text.is_null() {
            return None;
        }
        // SAFETY: 1. entries are strings that live as long as the environment.
        let text = unsafe { CStr::from_ptr(text) }.to_bytes();
        if let Some(value) = text
            .strip_prefix(name.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"="))
        {
            return Some(value);
        }
        // SAFETY: 1. not yet at the null that ends the array.
        entry = unsafe { entry.add(1) };
    }
}

/// A pthread key: its destructor runs at the exit of each thread that armed it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadKey(libc::pthread_key_t);

impl ThreadKey {
    pub(crate) fn new(at_exit: unsafe extern "C" fn(*mut c_void)) -> Option<Self> {
        if failpoints::refuses() {
            return None;
        }
        let mut key = 0;
        // SAFETY: 1. `key` is writable.
        let created = unsafe { libc::pthread_key_create(&raw mut key, Some(at_exit)) } == 0;
        created.then_some(Self(key))
    }

    /// Bytes of a [table](Self::is_in_a_table): so many pairs of words.
    pub(crate) const TABLE: usize = Self::TABLED * 2 * size_of::<usize>();
    const TABLED: usize = 32;

    /// Whether a thread's values of this key and its neighbours stand in a table that the C library allocates when
    /// the first of them is set. So glibc does with keys beyond the first 32, for as many at a time.
    pub(crate) fn is_in_a_table(self) -> bool {
        cfg!(target_env = "gnu") && self.to_bits() >= Self::TABLED
    }

    /// The key as a number, and back.
    pub(crate) fn to_bits(self) -> usize {
        self.0 as usize
    }

    pub(crate) fn from_bits(bits: usize) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "from `to_bits`")]
        Self(bits as libc::pthread_key_t)
    }

    /// Has the destructor run at this thread's exit with `value`, not null.
    #[must_use]
    pub(crate) fn arm(self, value: NonNull<c_void>) -> bool {
        if failpoints::refuses() {
            return false;
        }
        // May allocate, by libc's own means: not without memory, and the caller may be freeing.
        let value = valgrind::shown(value).as_ptr();
        // SAFETY: 1. the key was created by `new` and is never deleted.
        keeping_errno(|| unsafe { libc::pthread_setspecific(self.0, value) }) == 0
    }
}
