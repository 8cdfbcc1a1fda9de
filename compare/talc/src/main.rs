//! The workload rows over talc: one heap behind one spin lock, 1 MiB at a time from the system
//! allocator.

use std::alloc::System;
use std::process::ExitCode;

use spinning_top::RawSpinlock;
use talc::TalcLock;
use talc::source::GlobalAllocSource;

#[cfg(feature = "in_binary")]
#[path = "../../workload/src/lib.rs"]
#[expect(unreachable_pub, reason = "public where it is a library")]
mod workload;

#[global_allocator]
static GLOBAL: TalcLock<RawSpinlock, GlobalAllocSource<System>> =
    TalcLock::new(GlobalAllocSource::new(System));

fn main() -> ExitCode {
    workload::main(purge, None)
}

/// talc gives a heap back when it is empty: what is left to do is the source's.
#[cfg(target_env = "gnu")]
fn purge() {
    // SAFETY: malloc_trim has no precondition; 0 keeps no slack at the top of the heap.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn purge() {}
