//! The allocator may abort or crash: seed and operation numbers are worth most then.

use core::mem;
use core::ptr;
use core::slice;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use crate::worker::Progress;

static SEED: AtomicU64 = AtomicU64::new(0);
static PROGRESS: AtomicPtr<Progress> = AtomicPtr::new(ptr::null_mut());
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Has the seed written when the process dies of a fault.
pub(crate) fn install(seed: u64) {
    // ORDERING: Relaxed, before there are threads; here and below.
    SEED.store(seed, Ordering::Relaxed);
    for signal in [libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL] {
        // SAFETY: all-zero bytes are a valid `sigaction`.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = say as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESETHAND | libc::SA_ONSTACK;
        // SAFETY: the action is initialised and its handler only writes and raises.
        let result = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
        assert_eq!(result, 0, "sigaction refused");
    }
}

/// Has the operation numbers written too.
pub(crate) fn watch(progress: &'static [Progress]) {
    PROGRESS.store(progress.as_ptr().cast_mut(), Ordering::Relaxed);
    THREADS.store(progress.len(), Ordering::Relaxed);
}

extern "C" fn say(signal: libc::c_int) {
    write(b"\nsoak: killed, seed ");
    write_number(SEED.load(Ordering::Relaxed));
    let first = PROGRESS.load(Ordering::Relaxed).cast_const();
    if !first.is_null() {
        // SAFETY: `watch` was given so many, forever.
        let all = unsafe { slice::from_raw_parts(first, THREADS.load(Ordering::Relaxed)) };
        for progress in all {
            write(b", operation ");
            write_number(progress.operations());
        }
    }
    write(b"\n");
    // SAFETY: `raise` has no preconditions; the handler is gone, so this ends the process.
    unsafe { libc::raise(signal) };
}

/// Nothing here allocates: the allocator may be broken, and the system's is not for signal handlers.
fn write(bytes: &[u8]) {
    // SAFETY: the bytes are readable.
    unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
}

fn write_number(mut number: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b"0123456789"[usize::try_from(number % 10).unwrap_or(0)];
        number /= 10;
        if number == 0 {
            break;
        }
    }
    write(&digits[first..]);
}
