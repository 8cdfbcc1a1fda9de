//! The workload rows over hardened_malloc, in its light variant.
//!
//! The library defines the C names, so it serves the whole process. The crate's `GlobalAlloc`
//! disregards alignments above two words; `System` calls the same names with due regard.

use std::alloc::System;
use std::ffi::c_void;
use std::process::ExitCode;

// Links the library.
use hardened_malloc_rs as _;

#[cfg(feature = "in_binary")]
#[path = "../../workload/src/lib.rs"]
#[expect(unreachable_pub, reason = "public where it is a library")]
mod workload;

#[global_allocator]
static GLOBAL: System = System;

unsafe extern "C" {
    /// How many bytes the block can hold: a function of this library only.
    fn malloc_object_size(block: *const c_void) -> usize;
}

fn main() -> ExitCode {
    let word = Box::new(0_u64);
    // SAFETY: a live block.
    let size = unsafe { malloc_object_size((&raw const *word).cast()) };
    assert!(
        (8..=16).contains(&size),
        "hardened_malloc does not serve: a word has {size} bytes"
    );
    workload::main(purge, None)
}

fn purge() {
    // SAFETY: malloc_trim has no precondition. This one is the library's.
    unsafe { libc::malloc_trim(0) };
}
