//! The workload rows over jemalloc.

use std::ffi::CStr;
use std::process::ExitCode;
use std::ptr::null_mut;

use tikv_jemallocator::Jemalloc;

#[cfg(feature = "in_binary")]
#[path = "../../workload/src/lib.rs"]
#[expect(unreachable_pub, reason = "public where it is a library")]
mod workload;

#[global_allocator]
static GLOBAL: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    workload::main(purge, None)
}

/// The calling thread's cache goes back to its arena, then the unused pages of all arenas (4096 is
/// jemalloc's `MALLCTL_ARENAS_ALL`) to the system.
fn purge() {
    control(c"thread.tcache.flush");
    control(c"arena.4096.purge");
}

/// Runs a control that neither takes nor gives a value.
fn control(name: &CStr) {
    // SAFETY: the name ends with a null, and null pointers stand for no value.
    let error =
        unsafe { tikv_jemalloc_sys::mallctl(name.as_ptr(), null_mut(), null_mut(), null_mut(), 0) };
    assert_eq!(error, 0, "jemalloc refuses {name:?}");
}
