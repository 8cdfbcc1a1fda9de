//! A thread of the allocator's own, and how it waits.

use core::ffi::{CStr, c_void};
use core::mem::MaybeUninit;
use core::ptr;

use super::failpoints;
use super::posix::keeping_errno;
use crate::sync::AtomicU32;

/// Bytes of its stack, besides what the C library puts there: the work takes a few pages.
const STACK: usize = 512 << 10;

/// What the thread does.
type Work = extern "C" fn(*mut c_void) -> *mut c_void;

/// Starts a thread that no signal interrupts and nobody joins; `false` if the system refuses. Allocates, by the
/// C library's own means.
#[must_use]
pub(crate) fn start_thread(work: Work) -> bool {
    if failpoints::refuses() {
        return false;
    }
    keeping_errno(|| {
        // SAFETY: 1. all zero is an empty set.
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) =
            unsafe { core::mem::zeroed() };
        // SAFETY: 1. `all` is writable.
        unsafe { libc::sigfillset(&raw mut all) };
        // The new thread inherits what is blocked.
        // SAFETY: 1. both sets live as long as the call.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
        // A program with much thread-local storage needs more than our stack.
        let is_started = create(work, Some(STACK)) || create(work, None);
        // SAFETY: 1. as above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
        is_started
    })
}

fn create(work: Work, stack: Option<usize>) -> bool {
    // SAFETY: 1. plain bytes, which `pthread_attr_init` fills.
    let mut attributes: libc::pthread_attr_t = unsafe { core::mem::zeroed() };
    // SAFETY: 1. writable.
    if unsafe { libc::pthread_attr_init(&raw mut attributes) } != 0 {
        return false;
    }
    let detached = libc::PTHREAD_CREATE_DETACHED;
    // SAFETY: 1. initialised above.
    let mut is_set =
        unsafe { libc::pthread_attr_setdetachstate(&raw mut attributes, detached) } == 0;
    if let Some(bytes) = stack {
        // SAFETY: 1. initialised above.
        let bytes = bytes + unsafe { taken_of_stack(&raw const attributes) };
        // SAFETY: 1. initialised above.
        is_set &= unsafe { libc::pthread_attr_setstacksize(&raw mut attributes, bytes) } == 0;
    }
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    let mut start = || {
        let (thread, attributes) = (thread.as_mut_ptr(), &raw const attributes);
        // SAFETY: 1. both live as long as the call; `work` wants nothing from its argument.
        unsafe { libc::pthread_create(thread, attributes, work, ptr::null_mut()) }
    };
    let is_started = is_set && start() == 0;
    // SAFETY: 1. initialised above, not used again.
    unsafe { libc::pthread_attr_destroy(&raw mut attributes) };
    is_started
}

/// Bytes of each stack that glibc takes for itself, the program's thread-local storage among them; others add such.
///
/// # Safety
/// 1. The attributes are initialised.
unsafe fn taken_of_stack(attributes: *const libc::pthread_attr_t) -> usize {
    type Least = unsafe extern "C" fn(*const libc::pthread_attr_t) -> usize;
    // SAFETY: 1. the name is a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__pthread_get_minstack".as_ptr()) };
    if found.is_null() {
        return 0;
    }
    // SAFETY: 1. the function of this name has had this type ever since.
    let least = unsafe { core::mem::transmute::<*mut c_void, Least>(found) };
    // SAFETY: 1. the caller's.
    unsafe { least(attributes) }
}

/// Names the calling thread, for who lists threads.
pub(crate) fn name_thread(name: &CStr) {
    // SAFETY: 1. the name is a string of at most 16 bytes; longer ones are cut.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Sleeps for about so long, at most a day.
pub(crate) fn sleep_ms(milliseconds: u64) {
    let milliseconds = milliseconds.min(86_400_000);
    let time = libc::timespec {
        tv_sec: (milliseconds / 1000).cast_signed(),
        tv_nsec: (milliseconds % 1000 * 1_000_000).cast_signed(),
    };
    // SAFETY: 1. `time` is readable, and nobody asks for the rest.
    unsafe { libc::nanosleep(&raw const time, ptr::null_mut()) };
}

/// Sleeps while `word` is `value`, until [`wake`]; now and then returns sooner.
pub(crate) fn wait(word: &AtomicU32, value: u32) {
    let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let forever = ptr::null::<libc::timespec>();
    // SAFETY: 1. the word is readable for as long as the call.
    let answer = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, value, forever) };
    // SAFETY: 1. no precondition; the result is this thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: 1. valid for as long as the thread lives.
    if answer != 0 && !matches!(unsafe { errno.read() }, libc::EAGAIN | libc::EINTR) {
        // Forbidden, as by a filter: then by looking.
        sleep_ms(100);
    }
}

/// Wakes who [waits](wait) for the word to change.
pub(crate) fn wake(word: &AtomicU32) {
    let op = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: 1. no thread's memory is touched.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, 1) });
}
