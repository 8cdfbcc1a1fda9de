//! What every system, and Miri, answers in the same words.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::NonNull;

use super::failpoints;
use super::syscall::{Word, call, word};
use crate::valgrind;

/// Runs a function of the C library that may set `errno`, and puts it back: freeing must not change it.
pub(super) fn keeping_errno<R>(call: impl FnOnce() -> R) -> R {
    // SAFETY: 1. no precondition; the result is this thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: 1. valid for as long as the thread lives.
    let before = unsafe { errno.read() };
    let result = call();
    // SAFETY: 1. valid still, as the thread lives.
    unsafe { errno.write(before) };
    result
}

#[cfg(any(miri, flagstone_portable, flagstone_tsan))]
pub(super) fn errno() -> c_int {
    // SAFETY: 1. no precondition; the result is this thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: 1. valid for as long as the thread lives.
    unsafe { errno.read() }
}

/// Processors this process may run on, at least 1.
pub(crate) fn cpus() -> usize {
    // As many bits as a kernel may be built for.
    let mut set = [0_u64; 128];
    let arguments = [word(0), word(size_of_val(&set)), set.as_mut_ptr().cast()];
    // SAFETY: 1. `set` is as long as said.
    if unsafe { call(libc::SYS_sched_getaffinity, arguments) }.is_err() {
        // SAFETY: 1. no precondition.
        let online = keeping_errno(|| unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) });
        return usize::try_from(online).unwrap_or(1).max(1);
    }
    let count: u32 = set.iter().map(|word| word.count_ones()).sum();
    count.max(1) as usize
}

/// Writes a message, as far as the file takes it. If nobody reads it any more, no `SIGPIPE` ends the program, which
/// knows nothing of this.
pub(crate) fn write(file: c_int, message: &[u8]) {
    without_sigpipe(|| write_all(file, message));
}

/// Whether nobody reads any more.
fn write_all(file: c_int, message: &[u8]) -> bool {
    let mut rest = message;
    while !rest.is_empty() {
        let text = rest.as_ptr().cast_mut().cast();
        let arguments = [word(file as usize), text, word(rest.len())];
        // SAFETY: 1. `rest` is readable.
        match unsafe { call(libc::SYS_write, arguments) }.map(Word::addr) {
            Ok(count) if count > 0 => rest = rest.get(count..).unwrap_or_default(),
            // A signal came; a thread that is to be cancelled is not, here.
            Err(libc::EINTR) => {}
            // A part of it is all that can be done.
            result => return result == Err(libc::EPIPE),
        }
    }
    false
}

/// Signals as the kernel takes them: signal `n` is bit `n - 1`.
pub(super) type Signals = u64;

/// Changes which signals the calling thread blocks, to or by `signals`; those that it blocked before.
pub(super) fn block_signals(how: c_int, signals: Signals) -> Signals {
    let mut before: Signals = 0;
    let arguments = [
        word(how as usize),
        (&raw const signals).cast_mut().cast(),
        (&raw mut before).cast(),
        word(size_of::<Signals>()),
    ];
    // SAFETY: 1. the one set is readable, the other writable.
    let _ = unsafe { call(libc::SYS_rt_sigprocmask, arguments) };
    before
}

/// Runs `work` with `SIGPIPE` blocked, and takes the one back that it says it has caused.
fn without_sigpipe(work: impl FnOnce() -> bool) {
    if cfg!(any(miri, flagstone_portable)) {
        work();
        return;
    }
    let pipe: Signals = 1 << (libc::SIGPIPE - 1);
    let mut pending: Signals = 0;
    let length = word(size_of::<Signals>());
    // SAFETY: 1. `pending` is writable.
    let _ = unsafe { call(libc::SYS_rt_sigpending, [(&raw mut pending).cast(), length]) };
    let before = block_signals(libc::SIG_BLOCK, pipe);
    if work() && pending & pipe == 0 {
        let at_once = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let arguments = [
            (&raw const pipe).cast_mut().cast(),
            word(0),
            (&raw const at_once).cast_mut().cast(),
            length,
        ];
        // SAFETY: 1. both are readable; nobody asks for more about the signal.
        let _ = unsafe { call(libc::SYS_rt_sigtimedwait, arguments) };
    }
    block_signals(libc::SIG_SETMASK, before);
}

pub(crate) fn abort() -> ! {
    // SAFETY: 1. no precondition.
    unsafe { libc::abort() }
}

unsafe extern "C" {
    static mut environ: *const *const c_char;
}

/// The value of an environment variable.
#[inline(never)]
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
