//! The recording: one buffer behind one spin lock, written out when it is full and at exit.

use std::alloc::Layout;
use std::cell::{Cell, UnsafeCell};
use std::ffi::CStr;
use std::io::{self, Write};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, Ordering};
use std::{hint, thread};

use crate::raw::{Event, HEADER, RECORD, Step};

/// The environment variable that names the raw file.
const VARIABLE: &CStr = c"ALLOC_TRACE";

/// Records that the buffer holds.
const CAPACITY: usize = 4096;

/// Rounds for which a thread spins before it lets others run.
const SPINS: u32 = 100;

/// Before the first event: the variable was not looked at yet.
const UNKNOWN: u8 = 0;
const OFF: u8 = 1;
const ON: u8 = 2;

// ORDERING: the release in `record` publishes `PROCESS` to the acquires there and in `at_exit`. The
// rest is relaxed: what a recording that is stopping misses is no loss.
static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// The process that is recorded.
// ORDERING: relaxed; written once, before `STATE` publishes it.
static PROCESS: AtomicI32 = AtomicI32::new(0);

static LOG: Log = Log {
    is_held: AtomicBool::new(false),
    file: UnsafeCell::new(File {
        descriptor: -1,
        events: 0,
        used: 0,
        buffer: [0; RECORD * CAPACITY],
    }),
};

/// The one branch of a program that is not recorded.
#[inline(always)]
pub(super) fn may_be_on() -> bool {
    STATE.load(Ordering::Relaxed) != OFF
}

/// Notes an event if there is a recording, which the first event begins.
#[cold]
pub(super) fn record(step: Step, layout: Layout, block: *mut u8) {
    if STATE.load(Ordering::Relaxed) == UNKNOWN {
        let mut file = LOG.lock();
        if STATE.load(Ordering::Relaxed) == UNKNOWN {
            let state = if file.begin() { ON } else { OFF };
            STATE.store(state, Ordering::Release);
        }
    }
    // In a child the lock may be that of a thread which is not there; so the question comes first.
    if STATE.load(Ordering::Acquire) != ON || !is_recorded_process() {
        return;
    }
    let thread = thread_number();
    let mut file = LOG.lock();
    if STATE.load(Ordering::Relaxed) == ON {
        file.push(Event {
            step,
            // A shift of an alignment: below 64.
            align_log2: layout.align().trailing_zeros() as u8,
            thread,
            size: layout.size() as u64,
            address: block.addr() as u64,
        });
    }
}

/// Asked of the kernel each time: no handler that `fork` calls could come before all others.
fn is_recorded_process() -> bool {
    // SAFETY: 1. no requirements.
    let process = unsafe { libc::getpid() };
    process == PROCESS.load(Ordering::Relaxed)
}

/// The calling thread's number, given at its first event.
fn thread_number() -> u32 {
    // ORDERING: relaxed; a counter that publishes nothing.
    static LAST: AtomicU32 = AtomicU32::new(0);
    thread_local! {
        // Without a destructor and constant: neither the first use nor the last one allocates.
        static NUMBER: Cell<u32> = const { Cell::new(0) };
    }
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
        }
        number.get()
    })
}

extern "C" fn at_exit() {
    if STATE.load(Ordering::Acquire) == ON && is_recorded_process() {
        let mut file = LOG.lock();
        if STATE.load(Ordering::Relaxed) == ON {
            file.end();
        }
    }
}

struct Log {
    is_held: AtomicBool,
    file: UnsafeCell<File>,
}

// SAFETY: 1. the file is reached through `Guard` only, of which the lock allows one at a time.
unsafe impl Sync for Log {}

impl Log {
    fn lock(&'static self) -> Guard {
        let mut spins = 0;
        // ORDERING: acquire pairs with the release of the guard's `drop`: the file as it left it.
        while self.is_held.swap(true, Ordering::Acquire) {
            spins += 1;
            if spins < SPINS {
                hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
        Guard(self)
    }
}

/// Proves that the lock is held by this thread.
struct Guard(&'static Log);

impl Deref for Guard {
    type Target = File;

    fn deref(&self) -> &File {
        // SAFETY: 1. the lock is held, and a unique borrow would be of this guard too.
        unsafe { &*self.0.file.get() }
    }
}

impl DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut File {
        // SAFETY: 1. the lock is held, and this guard is borrowed by nobody else.
        unsafe { &mut *self.0.file.get() }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // ORDERING: publishes the file to the next `lock`.
        self.0.is_held.store(false, Ordering::Release);
    }
}

struct File {
    descriptor: i32,
    events: u64,
    /// Bytes of the buffer that hold records.
    used: usize,
    buffer: [u8; RECORD * CAPACITY],
}

impl File {
    /// Opens the file that the environment names, if it does; whether there is a recording now.
    fn begin(&mut self) -> bool {
        // SAFETY: 1. a C string. A program that changes its environment on another thread during
        // its first allocation races with this call as with any other `getenv`.
        let path = unsafe { libc::getenv(VARIABLE.as_ptr()) };
        if path.is_null() {
            return false;
        }
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
        // SAFETY: 1. a C string, of the environment. 2. a mode comes along with `O_CREAT`.
        let descriptor = unsafe { libc::open(path, flags, 0o644) };
        if descriptor < 0 {
            complain("the file cannot be created");
            return false;
        }
        self.descriptor = descriptor;
        if !self.write(&HEADER) {
            return false;
        }
        // SAFETY: 1. the handler lives as long as the program. Registered at the first event, it
        // runs after almost all others.
        if unsafe { libc::atexit(at_exit) } != 0 {
            complain("no handler for the program's exit");
            return false;
        }
        // SAFETY: 1. no requirements.
        PROCESS.store(unsafe { libc::getpid() }, Ordering::Relaxed);
        true
    }

    fn push(&mut self, event: Event) {
        self.buffer[self.used..self.used + RECORD].copy_from_slice(&event.to_bytes());
        self.used += RECORD;
        self.events += 1;
        if self.used == self.buffer.len() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let used = std::mem::take(&mut self.used);
        self.write(&self.buffer[..used]);
    }

    fn end(&mut self) {
        self.push(Event {
            step: Step::End,
            align_log2: 0,
            thread: 0,
            size: self.events,
            address: 0,
        });
        self.flush();
        STATE.store(OFF, Ordering::Relaxed);
    }

    /// Writes all of it, or stops the recording.
    fn write(&self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            // SAFETY: 1. `bytes` is readable for its length.
            let written =
                unsafe { libc::write(self.descriptor, bytes.as_ptr().cast(), bytes.len()) };
            match usize::try_from(written) {
                Ok(written) if written > 0 => bytes = &bytes[written..],
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                _ => {
                    complain("the file cannot be written, recording stops");
                    STATE.store(OFF, Ordering::Relaxed);
                    return false;
                }
            }
        }
        true
    }
}

/// One line on standard error, past std's lock: its holder may be waiting for ours.
fn complain(what: &str) {
    let code = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    let mut line = [0; 160];
    let room = line.len();
    let mut rest = line.as_mut_slice();
    // A line that is cut short will do.
    let _ = writeln!(rest, "ALLOC_TRACE: {what} (errno {code})");
    let length = room - rest.len();
    // SAFETY: 1. `line` is readable for its length. Nothing can be done about a failure.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), length) };
}
