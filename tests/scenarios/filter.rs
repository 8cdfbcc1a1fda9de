//! A seccomp filter of this thread's: the kernel itself refuses calls from then on.

use core::ffi::{c_int, c_long, c_ulong};
use core::ptr;
use std::io;

/// The lower half of a call's third argument, in what a filter looks at: behind number, processor and place.
const THIRD_ARGUMENT: u32 = 16 + 2 * 8;

/// At most so many system calls are refused.
const MOST: usize = 8;

#[expect(
    clippy::cast_possible_truncation,
    reason = "the codes of a filter's instructions have 16 bits"
)]
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
#[expect(
    clippy::cast_possible_truncation,
    reason = "the codes of a filter's instructions have 16 bits"
)]
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
#[expect(
    clippy::cast_possible_truncation,
    reason = "the codes of a filter's instructions have 16 bits"
)]
const ANSWER: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const fn instruction(code: u16, jump: u8, value: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: jump,
        jf: 0,
        k: value,
    }
}

/// Has the kernel answer `errno` to each of `calls`, for as long as this thread lives and for threads that
/// it starts. `false`, and a line that says so, where the kernel has no filters.
pub(crate) fn refuse(calls: &[c_long], errno: i32) -> bool {
    assert!(calls.len() <= MOST, "room for so many calls is needed");
    let allow = instruction(ANSWER, 0, libc::SECCOMP_RET_ALLOW);
    let mut program = [allow; MOST + 3];
    // The number is the first word of what a filter looks at.
    program[0] = instruction(LOAD_WORD, 0, 0);
    for (index, call) in calls.iter().enumerate() {
        let number = u32::try_from(*call).expect("a system call");
        let left = u8::try_from(calls.len() - index).expect("a few");
        program[1 + index] = instruction(IF_EQUAL, left, number);
    }
    let refusal = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
    program[1 + calls.len()] = allow;
    program[2 + calls.len()] = instruction(ANSWER, 0, refusal);
    let result = install(&mut program[..calls.len() + 3]);
    if result.is_err() {
        println!("skipped: the kernel takes no filter of system calls");
    }
    result.is_ok()
}

/// A filter under which a call that is not among `calls`, or advice to `madvise` that is not among `advices`, ends the
/// process by `SIGSYS`.
pub(crate) fn kill_others(calls: &[c_long], advices: &[c_int]) -> Vec<libc::sock_filter> {
    let allow = instruction(ANSWER, 0, libc::SECCOMP_RET_ALLOW);
    let kill = instruction(ANSWER, 0, libc::SECCOMP_RET_KILL_PROCESS);
    // The answer follows at once, or is jumped over.
    let allowed = |value: u32| {
        let mut compare = instruction(IF_EQUAL, 0, value);
        compare.jf = 1;
        [compare, allow]
    };
    let mut program = vec![instruction(LOAD_WORD, 0, 0)];
    for call in calls {
        let number = u32::try_from(*call).expect("a system call");
        if *call != libc::SYS_madvise {
            program.extend(allowed(number));
            continue;
        }
        let mut advice = vec![instruction(LOAD_WORD, 0, THIRD_ARGUMENT)];
        for value in advices {
            advice.extend(allowed(value.unsigned_abs()));
        }
        advice.push(kill);
        let mut compare = instruction(IF_EQUAL, 0, number);
        compare.jf = u8::try_from(advice.len()).expect("a few");
        program.push(compare);
        program.extend(advice);
    }
    program.push(kill);
    program
}

/// Puts a filter in force for this thread, its program's end and beyond. Allocates nothing.
pub(crate) fn install(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).expect("a filter's length"),
        filter: program.as_mut_ptr(),
    };
    let (yes, no): (c_ulong, c_ulong) = (1, 0);
    // SAFETY: this option takes plain numbers.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, no, no, no) };
    assert_eq!(result, 0, "PR_SET_NO_NEW_PRIVS refused");
    let mode = c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: the filter is as long as it says, and the kernel copies it.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, ptr::from_ref(&filter), no, no) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
