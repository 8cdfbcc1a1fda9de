//! A thread of the allocator's own, and how it waits.

use core::ffi::{CStr, c_void};
use core::mem::MaybeUninit;
use core::ptr;

use super::failpoints;
use super::posix::{Signals, block_signals, keeping_errno};
use super::syscall::{call, word as number};
use crate::sync::{AtomicPtr, AtomicU32, Ordering};

/// Bytes of its stack, besides what the C library puts there: the work takes a few pages.
const STACK: usize = 512 << 10;

/// By 32 to 34 the C libraries reach every thread, as to change whose the process is: nobody may block them.
const SIGNALS_OF_THE_C_LIBRARY: Signals = 0b111 << 31;

/// What the thread does.
type Work = extern "C" fn(*mut c_void) -> *mut c_void;

/// Starts a thread that no signal interrupts and nobody joins; `false` if the system refuses. Allocates, by the
/// C library's own means. Unless [`prepare_threads`] was called before, the loader's lock is taken.
#[must_use]
pub(crate) fn start_thread(work: Work) -> bool {
    if failpoints::refuses() {
        return false;
    }
    // The new thread inherits what is blocked.
    let before = block_signals(libc::SIG_SETMASK, !SIGNALS_OF_THE_C_LIBRARY);
    // A program with much thread-local storage needs more than our stack.
    let is_started = keeping_errno(|| create(work, Some(STACK)) || create(work, None));
    block_signals(libc::SIG_SETMASK, before);
    is_started
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
        let bytes = bytes.saturating_add(unsafe { taken_of_stack(&raw const attributes) });
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

/// The function of the C library's that says what it takes of each stack; null: not looked for yet.
static LEAST_STACK: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// What stands there if there is no such function.
const NOT_THERE: *mut c_void = ptr::without_provenance_mut(1);

/// Finds all that [`start_thread`] needs the loader for, whose lock some callers of that must not wait for.
pub(crate) fn prepare_threads() {
    // ORDERING: the function's address, which is a constant; here and below.
    if LEAST_STACK.load(Ordering::Relaxed).is_null() {
        // SAFETY: 1. the name is a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__pthread_get_minstack".as_ptr()) };
        let found = if found.is_null() { NOT_THERE } else { found };
        LEAST_STACK.store(found, Ordering::Relaxed);
    }
}

/// Bytes of each stack that glibc takes for itself, the program's thread-local storage among them; others add such.
///
/// # Safety
/// 1. The attributes are initialised.
unsafe fn taken_of_stack(attributes: *const libc::pthread_attr_t) -> usize {
    type Least = unsafe extern "C" fn(*const libc::pthread_attr_t) -> usize;
    prepare_threads();
    // ORDERING: as in `prepare_threads`.
    let found = LEAST_STACK.load(Ordering::Relaxed);
    if found == NOT_THERE {
        return 0;
    }
    // SAFETY: 1. the function of this name has had this type ever since.
    let least = unsafe { core::mem::transmute::<*mut c_void, Least>(found) };
    // SAFETY: 1. the attributes are initialised, as this function asks for, too.
    unsafe { least(attributes) }
}

/// Names the calling thread, for who lists threads.
pub(crate) fn name_thread(name: &CStr) {
    let arguments = [
        number(libc::PR_SET_NAME as usize),
        name.as_ptr().cast_mut().cast(),
    ];
    // SAFETY: 1. the name is a string of at most 16 bytes; longer ones are cut.
    let _ = unsafe { call(libc::SYS_prctl, arguments) };
}

/// Sleeps for about so long, at most a day.
pub(crate) fn sleep_ms(milliseconds: u64) {
    let time = time_of(milliseconds);
    // SAFETY: 1. `time` is readable, and nobody asks for the rest.
    let _ = unsafe {
        call(
            libc::SYS_nanosleep,
            [(&raw const time).cast_mut().cast(), number(0)],
        )
    };
}

/// Sleeps while `word` is `value`, until [`wake`]; now and then returns sooner.
pub(crate) fn wait(word: &AtomicU32, value: u32) {
    if !sleep_by(word, value, ptr::null()) {
        // Forbidden, as by a filter: then by looking.
        sleep_ms(100);
    }
}

/// As [`wait`], for so many milliseconds at most, or a day.
pub(crate) fn wait_ms(word: &AtomicU32, value: u32, milliseconds: u64) {
    let time = time_of(milliseconds);
    if !sleep_by(word, value, &raw const time) {
        sleep_ms(milliseconds.min(100));
    }
}

fn time_of(milliseconds: u64) -> libc::timespec {
    let milliseconds = milliseconds.min(86_400_000);
    libc::timespec {
        tv_sec: (milliseconds / 1000).cast_signed(),
        tv_nsec: (milliseconds % 1000 * 1_000_000).cast_signed(),
    }
}

/// As [`wait`], for so many nanoseconds at most, of which there are less than a second's.
pub(crate) fn wait_at_most(word: &AtomicU32, value: u32, nanoseconds: u32) {
    debug_assert!(nanoseconds < 1_000_000_000);
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: nanoseconds.into(),
    };
    if failpoints::forbids_waiting() || !sleep_by(word, value, &raw const time) {
        super::pause();
    }
}

/// `false` if the kernel lets nobody sleep by a word.
fn sleep_by(word: &AtomicU32, value: u32, at_most: *const libc::timespec) -> bool {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let arguments = [
        word.as_ptr().cast(),
        number(operation as usize),
        number(value as usize),
        at_most.cast_mut().cast(),
    ];
    // SAFETY: 1. the word is readable for as long as the call, and so is the time, or null.
    let answer = unsafe { call(libc::SYS_futex, arguments) };
    matches!(
        answer,
        Ok(_) | Err(libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT)
    )
}

/// Wakes who [waits](wait) for the word to change.
#[cold]
#[inline(never)]
pub(crate) fn wake(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: 1. no thread's memory is touched.
    let _ = unsafe {
        call(
            libc::SYS_futex,
            [word.as_ptr().cast(), number(operation as usize), number(1)],
        )
    };
}
