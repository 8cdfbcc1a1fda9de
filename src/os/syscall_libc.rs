//! System calls by the C library's names: the thread sanitizer has to see what becomes of memory, and Miri knows no
//! other. The same names as in `syscall.rs`.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the layer that the ban points to"
)]

use core::ffi::{c_int, c_long, c_void};
use core::ptr;

use super::posix::{errno, keeping_errno};

/// What a system call takes or answers: a number or an address.
pub(super) type Word = *mut c_void;

/// A number as an argument.
pub(super) const fn word(number: usize) -> Word {
    ptr::without_provenance_mut(number)
}

/// Makes the system call; what it answers, or its error.
///
/// # Safety
/// 1. What the call does to memory, the caller may do.
pub(super) unsafe fn call<const N: usize>(
    number: c_long,
    arguments: [Word; N],
) -> Result<Word, c_int> {
    let mut all = [word(0); 6];
    all[..N].copy_from_slice(&arguments);
    keeping_errno(|| {
        // SAFETY: 1. the same call with as many zeros as it does not look at.
        let answer = unsafe { enter(number, all) };
        if answer.addr() == usize::MAX {
            Err(errno())
        } else {
            Ok(answer)
        }
    })
}

/// A C library's `int` among the arguments.
fn int(argument: Word) -> c_int {
    #[expect(clippy::cast_possible_truncation, reason = "it was an `int`")]
    let int = argument.addr() as c_int;
    int
}

/// A number as an answer, all ones for an error.
fn answer(number: c_long) -> Word {
    word(usize::try_from(number).unwrap_or(usize::MAX))
}

/// # Safety
/// 1. What the call does to memory, the caller may do.
unsafe fn enter(number: c_long, arguments: [Word; 6]) -> Word {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let length = second.addr();
    let result = match number {
        libc::SYS_mmap => {
            let (access, flags, file) = (int(third), int(fourth), int(fifth));
            // SAFETY: 1. the same call by its name, so what it does to memory the caller may do.
            return unsafe { libc::mmap(first, length, access, flags, file, 0) };
        }
        libc::SYS_mremap => {
            // SAFETY: 1. the same call by its name.
            return unsafe { libc::mremap(first, length, third.addr(), int(fourth)) };
        }
        // SAFETY: 1. the same call by its name.
        libc::SYS_munmap => unsafe { libc::munmap(first, length) },
        // SAFETY: 1. the same call by its name.
        libc::SYS_mprotect => unsafe { libc::mprotect(first, length, int(third)) },
        // SAFETY: 1. the same call by its name.
        libc::SYS_madvise => unsafe { libc::madvise(first, length, int(third)) },
        libc::SYS_write => {
            // SAFETY: 1. the same call by its name.
            return answer(unsafe { libc::write(int(first), second, third.addr()) } as c_long);
        }
        libc::SYS_sched_getaffinity => {
            // SAFETY: 1. the same call by its name.
            unsafe { libc::sched_getaffinity(int(first), length, third.cast()) }
        }
        // SAFETY: 1. the same call by its name.
        libc::SYS_nanosleep => unsafe { libc::nanosleep(first.cast(), second.cast()) },
        // SAFETY: 1. the same call by its name.
        libc::SYS_prctl => unsafe { libc::prctl(int(first), second) },
        libc::SYS_futex => {
            let (operation, value) = (int(second), int(third));
            // SAFETY: 1. the same call by its name.
            let woken = unsafe { libc::syscall(number, first, operation, value, fourth) };
            return answer(woken);
        }
        _ => {
            // SAFETY: 1. the same call by its name.
            let result =
                unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) };
            return answer(result);
        }
    };
    answer(result.into())
}
