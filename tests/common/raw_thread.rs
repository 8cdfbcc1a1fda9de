//! Threads that do nothing before the test does: `std::thread` allocates on a new thread first.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;

struct Start<'a, T> {
    work: fn(&mut T),
    state: &'a mut T,
}

/// Runs `work` on a thread of its own, made by `pthread_create`, and waits until that thread is gone.
///
/// Neither side allocates. A panic in `work` ends the process with its message.
pub(crate) fn on_raw_thread<T: Send>(state: &mut T, work: fn(&mut T)) {
    let mut start = Start { work, state };
    let mut thread = MaybeUninit::uninit();
    // SAFETY: 1. `thread` is writable. 2. `run::<T>` expects a `Start<T>` and `start` is one. 3. it
    // outlives the thread, which is joined below.
    let result = unsafe {
        libc::pthread_create(
            thread.as_mut_ptr(),
            ptr::null(),
            run::<T>,
            (&raw mut start).cast(),
        )
    };
    assert_eq!(result, 0, "pthread_create refused");
    // SAFETY: `pthread_create` succeeded and wrote it.
    let thread = unsafe { thread.assume_init() };
    // SAFETY: the thread is joinable and joined once.
    let result = unsafe { libc::pthread_join(thread, ptr::null_mut()) };
    assert_eq!(result, 0, "pthread_join refused");
}

extern "C" fn run<T>(arg: *mut c_void) -> *mut c_void {
    // SAFETY: `on_raw_thread` passes a `Start<T>` and does not touch it before the thread has ended.
    let start = unsafe { &mut *arg.cast::<Start<'_, T>>() };
    (start.work)(start.state);
    ptr::null_mut()
}
