//! The clock, read by the function that the kernel itself provides: under a lock, where neither the C library's, which
//! others may replace, nor a system call is wanted. Without such a function, as under valgrind, it is a system call.

use core::ffi::c_int;
use core::slice;

use super::linux::kernel_object;
use super::syscall::{call, word};
use super::vdso;
use crate::sync::{AtomicUsize, Ordering};

#[cfg(target_arch = "x86_64")]
const NAME: &[u8] = b"__vdso_clock_gettime";
#[cfg(target_arch = "aarch64")]
const NAME: &[u8] = b"__kernel_clock_gettime";

type Read = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> c_int;

/// The kernel's function; 0 before it is looked for, [`NONE`] where there is none.
static READ: AtomicUsize = AtomicUsize::new(0);
const NONE: usize = 1;

/// Reads the coarse clock that never goes back; zeros if the kernel refuses.
pub(super) fn read() -> libc::timespec {
    read_clock(libc::CLOCK_MONOTONIC_COARSE)
}

/// Reads the fine one, which takes somewhat longer.
pub(super) fn read_fine() -> libc::timespec {
    read_clock(libc::CLOCK_MONOTONIC)
}

#[inline(never)]
fn read_clock(clock: libc::clockid_t) -> libc::timespec {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if let Some(read) = function() {
        // SAFETY: 1. `now` is writable.
        let failed = unsafe { read(clock, &raw mut now) } != 0;
        if !failed {
            return now;
        }
    }
    let place = (&raw mut now).cast();
    // SAFETY: 1. `now` is writable.
    let _ = unsafe { call(libc::SYS_clock_gettime, [word(clock as usize), place]) };
    now
}

fn function() -> Option<Read> {
    // ORDERING: a number that is always the same; what it leads to was there before the process.
    let place = match READ.load(Ordering::Relaxed) {
        0 => {
            let place = find().unwrap_or(NONE);
            READ.store(place, Ordering::Relaxed);
            place
        }
        place => place,
    };
    // SAFETY: 1. the kernel's function of this name has this type.
    (place != NONE).then(|| unsafe { core::mem::transmute::<usize, Read>(place) })
}

#[cold]
fn find() -> Option<usize> {
    let base = kernel_object();
    if base.is_null() {
        return None;
    }
    // SAFETY: 1. the kernel maps whole pages, readable, and never changes them.
    let head = unsafe { slice::from_raw_parts(base, vdso::HEAD) };
    let length = vdso::length(head)?;
    // SAFETY: 1. so much the kernel says it has mapped, readable, and never changes.
    let image = unsafe { slice::from_raw_parts(base, length) };
    base.addr().checked_add(vdso::find(image, NAME)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use std::vec::Vec;

    fn image() -> Option<&'static [u8]> {
        let base = kernel_object();
        if base.is_null() {
            std::println!("skipped: the kernel shows no functions of its own");
            return None;
        }
        // SAFETY: 1. as in `find`.
        let head = unsafe { slice::from_raw_parts(base, vdso::HEAD) };
        let length = vdso::length(head).expect("a length");
        // SAFETY: 1. as in `find`.
        Some(unsafe { slice::from_raw_parts(base, length) })
    }

    #[test]
    fn the_kernels_function_is_found_and_tells_the_time() {
        let Some(image) = image() else { return };
        assert!(function().is_some());
        assert_eq!(vdso::find(image, b"no_such_function"), None);
        let time = |now: libc::timespec| {
            let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
            Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
        };
        let theirs = || {
            let mut now = read();
            // SAFETY: 1. `now` is writable.
            let failed = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
            assert_eq!(failed, 0);
            time(now)
        };
        let (before, ours, after) = (theirs(), time(read()), theirs());
        assert!(
            before <= ours && ours <= after,
            "{before:?} {ours:?} {after:?}"
        );
        assert!(!before.is_zero());
    }

    /// Cut off anywhere, or with any byte another: an answer inside, or none, and no panic.
    #[test]
    fn a_broken_image_is_survived() {
        let Some(image) = image() else { return };
        for length in 0..image.len() {
            let found = vdso::find(&image[..length], NAME);
            assert!(found.is_none_or(|place| place < length), "{length}");
        }
        let mut broken: Vec<u8> = image.to_vec();
        // The tables stand in front of the code.
        for place in 0..broken.len().min(0x900) {
            let before = broken[place];
            for other in [0, 1, 0x7f, 0xff, before ^ 0x80] {
                broken[place] = other;
                let _ = vdso::length(&broken);
                let found = vdso::find(&broken, NAME);
                assert!(
                    found.is_none_or(|found| found < broken.len()),
                    "{place} {other}"
                );
            }
            broken[place] = before;
        }
    }
}
