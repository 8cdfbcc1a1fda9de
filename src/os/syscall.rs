//! System calls made by instruction. A program, or a library that is preloaded, may put functions of its own in the
//! place of the C library's, and such a function may allocate: that would wait for the lock that its caller holds.
//! `errno` stays as it is.

use core::arch::asm;
use core::ffi::{c_int, c_long, c_void};
use core::ptr;

/// What a system call takes or answers: a number or an address.
pub(super) type Word = *mut c_void;

/// A number as an argument.
pub(super) const fn word(number: usize) -> Word {
    ptr::without_provenance_mut(number)
}

/// The kernel's answers from here on are errors, counted back from 0.
const FIRST_ERROR: usize = 4095_usize.wrapping_neg();

/// Makes the system call; what it answers, or its error.
///
/// # Safety
/// 1. What the call does to memory, the caller may do.
#[inline]
pub(super) unsafe fn call<const N: usize>(
    number: c_long,
    arguments: [Word; N],
) -> Result<Word, c_int> {
    let mut all = [word(0); 6];
    all[..N].copy_from_slice(&arguments);
    let [first, second, third, ..] = all;
    let answer = if N <= 3 {
        // SAFETY: 1. the same call with as many zeros as it does not look at.
        unsafe { short(number, first, second, third) }
    } else {
        // SAFETY: 1. as above.
        unsafe { enter(number, all) }
    };
    if answer.addr() < FIRST_ERROR {
        return Ok(answer);
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most 4095")]
    Err(answer.addr().wrapping_neg() as c_int)
}

/// The call with at most three arguments, once for all.
///
/// # Safety
/// 1. What the call does to memory, the caller may do.
#[inline(never)]
unsafe fn short(number: c_long, first: Word, second: Word, third: Word) -> Word {
    let none = word(0);
    // SAFETY: 1. our own.
    unsafe { enter(number, [first, second, third, none, none, none]) }
}

/// # Safety
/// 1. What the call does to memory, the caller may do.
#[inline(always)]
unsafe fn enter(number: c_long, arguments: [Word; 6]) -> Word {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let answer: Word;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: 1. the kernel changes three registers, and no memory but what the call is about: that
    // the caller may.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            in("r9") sixth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: 1. the kernel changes one register, and no memory but what the call is about: that
    // the caller may. It drops what SVE adds to the vector registers, of which only the whole can
    // be said to be lost.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") first => answer,
            in("x1") second,
            in("x2") third,
            in("x3") fourth,
            in("x4") fifth,
            in("x5") sixth,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
            out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v24") _, out("v25") _, out("v26") _, out("v27") _,
            out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            out("p0") _, out("p1") _, out("p2") _, out("p3") _,
            out("p4") _, out("p5") _, out("p6") _, out("p7") _,
            out("p8") _, out("p9") _, out("p10") _, out("p11") _,
            out("p12") _, out("p13") _, out("p14") _, out("p15") _,
            out("ffr") _,
            options(nostack),
        );
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of the six counts: the bytes come from a file, at a place behind its beginning.
    #[test]
    fn six_arguments_arrive_and_errors_return() {
        // SAFETY: 1. the path is a C string.
        let open = || unsafe { libc::open(c"/proc/self/exe".as_ptr(), libc::O_RDONLY) };
        let (file, page) = (open() as usize, super::super::page_size());
        let map = |access: c_int, offset: usize| {
            let numbers = [
                0,
                page,
                access as usize,
                libc::MAP_PRIVATE as usize,
                file,
                offset,
            ];
            // SAFETY: 1. a fresh mapping replaces nothing.
            unsafe { call(libc::SYS_mmap, numbers.map(word)) }
        };
        let bytes = map(libc::PROT_READ, 0)
            .expect("a mapping")
            .cast::<[u8; 4]>();
        // SAFETY: 1. mapped above.
        assert_eq!(unsafe { bytes.read() }, *b"\x7fELF");
        assert_eq!(map(libc::PROT_READ, 1), Err(libc::EINVAL));
        // SAFETY: 1. mapped above, not used again.
        assert!(unsafe { call(libc::SYS_munmap, [bytes.cast(), word(page)]) }.is_ok());
        // SAFETY: 1. opened above, not used again.
        assert!(unsafe { call(libc::SYS_close, [word(file)]) }.is_ok());
        // SAFETY: 1. no file has this number.
        let refused = unsafe { call(libc::SYS_close, [word(usize::MAX)]) };
        assert_eq!(refused, Err(libc::EBADF));
    }
}
