//! The workload rows over the system allocator.

use std::alloc::System;
use std::process::ExitCode;

#[cfg(feature = "in_binary")]
#[path = "../../workload/src/lib.rs"]
#[expect(unreachable_pub, reason = "public where it is a library")]
mod workload;

#[global_allocator]
static GLOBAL: System = System;

fn main() -> ExitCode {
    workload::main(purge, None)
}

#[cfg(target_env = "gnu")]
fn purge() {
    // SAFETY: malloc_trim has no precondition; 0 keeps no slack at the top of the heap.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn purge() {}
