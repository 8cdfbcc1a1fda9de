//! The workload rows over rpmalloc.

use std::ffi::c_int;
use std::process::ExitCode;

use rpmalloc::RpMalloc;

#[cfg(feature = "in_binary")]
#[path = "../../workload/src/lib.rs"]
#[expect(unreachable_pub, reason = "public where it is a library")]
mod workload;

#[global_allocator]
static GLOBAL: RpMalloc = RpMalloc;

fn main() -> ExitCode {
    workload::main(purge, None)
}

// Ours, because rpmalloc-sys declares the first without its parameter.
unsafe extern "C" {
    fn rpmalloc_thread_finalize(release_caches: c_int);
    safe fn rpmalloc_thread_initialize();
}

/// Hands the calling thread's cached spans to the global cache, which keeps up to 200 MiB of them
/// and unmaps the rest. Nothing shrinks the global cache while the program runs.
fn purge() {
    // SAFETY: as at a thread's end, with a new beginning below. The list of heaps is unguarded when
    // the main thread does this; the rows purge while no thread begins or ends.
    unsafe { rpmalloc_thread_finalize(1) };
    rpmalloc_thread_initialize();
}
