//! `Recorder`: passes every call on, and writes it down when asked to.

mod log;

use std::alloc::{GlobalAlloc, Layout};

use crate::raw::Step;

/// A global allocator that records what it is asked for, around the one that does the work.
///
/// ```
/// use std::alloc::System;
/// use trace::Recorder;
///
/// #[global_allocator]
/// static ALLOCATOR: Recorder<System> = Recorder::new(System);
/// ```
///
/// With the environment variable `ALLOC_TRACE` set when the program first allocates, every
/// successful call is written to the raw file of that name, until the program exits. The file must
/// not exist yet: neither a recording nor a file named by mistake is overwritten, and a child
/// process that inherits the variable says so and records nothing. Without the variable a call
/// costs one branch more.
///
/// * The recorder does not allocate. Events of all threads are put in one order by one lock.
/// * A child made by `fork` records nothing; its parent goes on.
/// * When the file cannot be made or written, one line on standard error says so, recording stops,
///   and the program goes on.
/// * The end of the recording is written by an `atexit` handler. A program that is killed, aborts or
///   calls `_exit` leaves out the last events, and `trace pack` says so.
/// * All recorders of a process share the file; do not wrap one in another.
#[derive(Debug)]
pub struct Recorder<A> {
    inner: A,
}

impl<A> Recorder<A> {
    /// A recorder around `inner`.
    pub const fn new(inner: A) -> Self {
        Self { inner }
    }

    /// The allocator that does the work.
    pub const fn inner(&self) -> &A {
        &self.inner
    }
}

// SAFETY: 1. every call is answered by `inner`, whose contract is the same; what is done besides
// neither unwinds nor allocates.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Recorder<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: 1. the caller's promise.
        let block = unsafe { self.inner.alloc(layout) };
        if log::may_be_on() && !block.is_null() {
            log::record(Step::Alloc, layout, block);
        }
        block
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: 1. the caller's promise.
        let block = unsafe { self.inner.alloc_zeroed(layout) };
        if log::may_be_on() && !block.is_null() {
            log::record(Step::AllocZeroed, layout, block);
        }
        block
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let is_recorded = log::may_be_on();
        if is_recorded {
            log::record(Step::ReallocFrom, layout, block);
        }
        // SAFETY: 1. the caller's promise.
        let moved = unsafe { self.inner.realloc(block, layout, new_size) };
        if is_recorded {
            // SAFETY: 1. the alignment is that of a layout. 2. the caller promised that the size,
            // rounded up to it, is at most `isize::MAX`.
            let layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
            log::record(Step::ReallocTo, layout, moved);
        }
        moved
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if log::may_be_on() {
            log::record(Step::Free, layout, block);
        }
        // SAFETY: 1. the caller's promise.
        unsafe { self.inner.dealloc(block, layout) };
    }
}
