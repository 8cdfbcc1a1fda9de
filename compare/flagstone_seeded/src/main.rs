//! The workload rows over flagstone, for counts of instructions: by nothing but what every commit has. The random
//! numbers of commits that ask the C library for their seeds are the same in every process: which block
//! the hardened mode hands out next, hence how much work it is, depends on them.

use std::ffi::c_uint;
use std::process::ExitCode;
use std::ptr;

use flagstone::Flagstone;

#[global_allocator]
static GLOBAL: Flagstone = Flagstone::new();

/// Takes the place of the C library's function of this name: the allocator's seeds come from there.
///
/// # Safety
///
/// 1. `buffer` is writable for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: c_uint) -> isize {
    // SAFETY: 1. the caller's.
    unsafe { ptr::write_bytes(buffer, 0x5a, length) };
    isize::try_from(length).unwrap_or(-1)
}

fn main() -> ExitCode {
    workload::main(
        || {
            Flagstone::purge();
        },
        None,
    )
}
