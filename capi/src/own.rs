//! What is flagstone's own: `include/flagstone.h`, and the summary at exit.

use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use engine::{Flagstone, OptionError, Stats, raw};

use crate::text::Text;

/// `struct flagstone_stats`, in bytes: see [`engine::Stats`].
#[repr(C)]
#[derive(Debug)]
pub struct FlagstoneStats {
    live: usize,
    cached: usize,
    committed: usize,
    resident: usize,
    metadata: usize,
}

/// What the allocator holds at the moment, into `*out`.
///
/// # Safety
/// 1. `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_get_stats(out: *mut FlagstoneStats) {
    let Stats {
        live,
        cached,
        committed,
        resident,
        metadata,
        ..
    } = Flagstone::stats().unwrap_or_default();
    let stats = FlagstoneStats {
        live,
        cached,
        committed,
        resident,
        metadata,
    };
    // SAFETY: 1. the caller's.
    unsafe { out.write(stats) };
}

/// Gives all memory back to the kernel that can be given back; bytes.
#[unsafe(no_mangle)]
pub extern "C" fn flagstone_purge() -> usize {
    Flagstone::purge()
}

/// Checks the allocator's tables: 0, or -1 after a line on standard error that says what is wrong.
#[unsafe(no_mangle)]
pub extern "C" fn flagstone_verify() -> c_int {
    match Flagstone::verify() {
        Ok(()) => 0,
        Err(violation) => {
            let mut line = Text::<256>::new();
            line.add(format_args!("flagstone: {violation}\n"));
            line.write_to(libc::STDERR_FILENO);
            -1
        }
    }
}

/// Starts the background thread, which gives memory back when the program has gone idle: 0, or `EAGAIN` if the system
/// refuses a thread. A second call does nothing; a child of `fork` has none.
#[unsafe(no_mangle)]
pub extern "C" fn flagstone_start_background() -> c_int {
    match raw::start_background() {
        Ok(()) => 0,
        Err(_) => libc::EAGAIN,
    }
}

/// Changes an option of the running process, named and valued as in the environment: 0, `EINVAL` for a name
/// or a value that is none, `EBUSY` for an option that is decided at the first call, `ENOMEM` without memory for that.
///
/// # Safety
/// 1. Both are C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_set_option(name: *const c_char, value: *const c_char) -> c_int {
    // SAFETY: 1. the caller's.
    let (name, value) = (unsafe { CStr::from_ptr(name) }, unsafe {
        CStr::from_ptr(value)
    });
    let Ok(name) = name.to_str() else {
        return libc::EINVAL;
    };
    match raw::set_option(name, value.to_bytes()) {
        Ok(()) => 0,
        Err(OptionError::Decided) => libc::EBUSY,
        Err(OptionError::NoMemory) => libc::ENOMEM,
        Err(_) => libc::EINVAL,
    }
}

/// The library's version.
#[unsafe(no_mangle)]
pub extern "C" fn flagstone_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Where the summary goes; -1 if none is wished for.
static SUMMARY: AtomicI32 = AtomicI32::new(-1);
/// What that is, as [`identity`] says: a program may close all its files and open others.
static IDENTITY: AtomicU64 = AtomicU64::new(0);

/// Whether the variable is set to 1.
fn wishes(variable: &CStr) -> bool {
    // SAFETY: 1. a C string. As with the engine's options, nobody changes the environment meanwhile.
    let value = unsafe { libc::getenv(variable.as_ptr()) };
    // SAFETY: 1. a C string of the environment's.
    !value.is_null() && unsafe { CStr::from_ptr(value) } == c"1"
}

/// Before the program's own code. The background thread begins here, if the options ask for it, which are not read
/// where the program runs with raised privileges.
extern "C" fn prepare() {
    raw::begin();
    // SAFETY: 1. no precondition.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return;
    }
    if wishes(c"FLAGSTONE_SUMMARY") {
        keep_stderr();
    }
}

/// Keeps standard error for the summary: some programs close it before they exit.
fn keep_stderr() {
    // Above the numbers that programs count on, if there may be such.
    for least in [200, 3] {
        // SAFETY: 1. no precondition.
        let kept = unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, least) };
        if kept >= 0 {
            // ORDERING: the loader runs this before any thread, and `summarise` last.
            IDENTITY.store(identity(kept), Ordering::Relaxed);
            SUMMARY.store(kept, Ordering::Relaxed);
            return;
        }
    }
}

/// A number for the file behind a descriptor.
fn identity(file: c_int) -> u64 {
    // SAFETY: 1. all zero is a value.
    let mut about: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: 1. `about` is writable.
    let _ = unsafe { libc::fstat(file, &raw mut about) };
    about.st_dev.rotate_left(32) ^ about.st_ino
}

/// At the end of the process: one line, if wished for.
extern "C" fn summarise() {
    // ORDERING: as in `prepare`.
    let file = SUMMARY.load(Ordering::Relaxed);
    if file < 0 || identity(file) != IDENTITY.load(Ordering::Relaxed) {
        return;
    }
    let stats = Flagstone::stats().unwrap_or_default();
    // SAFETY: 1. no precondition.
    let process = unsafe { libc::getpid() };
    let mut line = Text::<512>::new();
    line.add(format_args!(
        "flagstone: process {process} at exit: {} KiB live, {} KiB cached by threads, {} KiB committed, {} KiB \
         of that resident, {} KiB of tables; peak of the whole process {} KiB\n",
        stats.live >> 10,
        stats.cached >> 10,
        stats.committed >> 10,
        stats.resident >> 10,
        stats.metadata >> 10,
        peak_kib(),
    ));
    line.write_to(file);
}

/// Most memory that the process ever had resident, in KiB.
fn peak_kib() -> i64 {
    // SAFETY: 1. all zero is a value.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    // SAFETY: 1. `usage` is writable. It cannot fail with these arguments.
    let _ = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    usage.ru_maxrss
}

/// Has the loader call [`prepare`] when the process begins.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = prepare;

/// Has the loader call [`summarise`] when the process exits.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = summarise;
