//! The process forks while threads are inside stdio, whose locks `fork` itself takes: an allocator that
//! holds locks across `fork` hangs there.

use core::ffi::{c_char, c_void};
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::thread;

use super::child::{alone, fork};
use super::estate::use_all_sizes;
use crate::ALLOC;
use crate::common::block::Block;
use crate::common::child::one_in;
use crate::common::process::{begin, verify};

const FORKS: usize = 100;

static STOPS: AtomicBool = AtomicBool::new(false);

/// A stream whose buffer is filled and emptied by functions of ours, under the stream's lock.
struct Stream(*mut libc::FILE);

// SAFETY: stdio locks its streams.
unsafe impl Sync for Stream {}

#[repr(C)]
struct Functions {
    read: Option<extern "C" fn(*mut c_void, *mut c_char, usize) -> isize>,
    write: Option<extern "C" fn(*mut c_void, *const c_char, usize) -> isize>,
    seek: Option<extern "C" fn()>,
    close: Option<extern "C" fn()>,
}

unsafe extern "C" {
    fn fopencookie(
        cookie: *mut c_void,
        mode: *const c_char,
        functions: Functions,
    ) -> *mut libc::FILE;
}

/// Slow paths of every kind.
fn allocate() {
    for size in [100, 3_000, 100_000, 400_000, 2 << 20] {
        let blocks = [(); 4].map(|()| Block::filled(&ALLOC, size, 8, 1));
        blocks.into_iter().for_each(|block| block.free(&ALLOC));
    }
}

extern "C" fn read(_: *mut c_void, buffer: *mut c_char, length: usize) -> isize {
    allocate();
    let line: &[u8] = b"line\n";
    let taken = line.len().min(length);
    // SAFETY: 1. the line is readable that far. 2. the buffer is as long as said. 3. they are apart.
    unsafe { ptr::copy_nonoverlapping(line.as_ptr(), buffer.cast(), taken) };
    taken.cast_signed()
}

extern "C" fn write(_: *mut c_void, _: *const c_char, length: usize) -> isize {
    allocate();
    length.cast_signed()
}

impl Stream {
    fn open() -> Self {
        let functions = Functions {
            read: Some(read),
            write: Some(write),
            seek: None,
            close: None,
        };
        // SAFETY: 1. no function looks at the cookie. 2. the mode is a C string.
        let stream = unsafe { fopencookie(ptr::null_mut(), c"r+".as_ptr(), functions) };
        assert!(!stream.is_null(), "fopencookie refused");
        Self(stream)
    }
}

/// Repeats `work` with pauses, in which who waits for the locks gets them.
fn until_stopped(mut work: impl FnMut()) {
    while !STOPS.load(Ordering::Relaxed) {
        work();
        thread::sleep(Duration::from_micros(100));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the line that libc allocated by itself"
)]
fn read_lines(stream: &Stream) {
    let mut line = ptr::null_mut();
    let mut room = 0;
    until_stopped(|| {
        // SAFETY: the line is null or from the last call, and the stream is open.
        let length = unsafe { libc::getline(&raw mut line, &raw mut room, stream.0) };
        assert_eq!(length, 5, "a line");
    });
    // SAFETY: from `getline`.
    unsafe { libc::free(line.cast()) };
}

fn write_lines(stream: &Stream) {
    until_stopped(|| {
        // SAFETY: 1. a C string. 2. the stream is open.
        let result = unsafe { libc::fputs(c"line\n".as_ptr(), stream.0) };
        assert!(result >= 0, "a line");
        // SAFETY: the stream is open.
        let result = unsafe { libc::fflush(stream.0) };
        assert_eq!(result, 0, "a flush");
    });
}

fn flush_all() {
    until_stopped(|| {
        // SAFETY: null means every stream.
        unsafe { libc::fflush(ptr::null_mut()) };
    });
}

#[test]
fn threads_may_be_inside_stdio() {
    let _turn = begin();
    alone(|| {
        let (input, output) = (Stream::open(), Stream::open());
        thread::scope(|scope| {
            scope.spawn(|| read_lines(&input));
            scope.spawn(|| write_lines(&output));
            scope.spawn(flush_all);
            for _ in 0..FORKS / one_in(2, 6) {
                let ended = fork(|| {
                    use_all_sizes();
                    verify();
                });
                if !ended.is_fine() {
                    // Without waiting for the threads, which may be stuck, too.
                    ended.expect_fine();
                }
            }
            STOPS.store(true, Ordering::Relaxed);
        });
    });
}
