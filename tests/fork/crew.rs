//! Threads that have done something and stand by, made and waited for without an allocation.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

static READY: AtomicUsize = AtomicUsize::new(0);
static DISMISSED: AtomicBool = AtomicBool::new(false);

/// `N` threads that have done their work and did not end. One crew at a time in a process.
#[must_use]
pub(crate) struct Crew<const N: usize>([libc::pthread_t; N]);

impl<const N: usize> Crew<N> {
    /// Has `N` threads do `work`, and waits until they have.
    pub(crate) fn gather(work: fn()) -> Self {
        READY.store(0, Ordering::Relaxed);
        DISMISSED.store(false, Ordering::Relaxed);
        let threads = [(); N].map(|()| start(work));
        while READY.load(Ordering::Acquire) < N {
            thread::yield_now();
        }
        Self(threads)
    }

    /// Has the threads end.
    pub(crate) fn dismiss(self) {
        DISMISSED.store(true, Ordering::Release);
        for thread in self.0 {
            // SAFETY: the thread is joinable and joined once.
            let result = unsafe { libc::pthread_join(thread, ptr::null_mut()) };
            assert_eq!(result, 0, "pthread_join refused");
        }
    }
}

fn start(work: fn()) -> libc::pthread_t {
    let mut thread = MaybeUninit::uninit();
    // SAFETY: 1. `thread` is writable. 2. `run` expects a `fn()`, and this is one.
    let result =
        unsafe { libc::pthread_create(thread.as_mut_ptr(), ptr::null(), run, work as *mut c_void) };
    assert_eq!(result, 0, "pthread_create refused");
    // SAFETY: `pthread_create` succeeded and wrote it.
    unsafe { thread.assume_init() }
}

extern "C" fn run(work: *mut c_void) -> *mut c_void {
    // SAFETY: `start` passes a `fn()`.
    let work = unsafe { core::mem::transmute::<*mut c_void, fn()>(work) };
    work();
    READY.fetch_add(1, Ordering::Release);
    while !DISMISSED.load(Ordering::Acquire) {
        thread::yield_now();
    }
    ptr::null_mut()
}
