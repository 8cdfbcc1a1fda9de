//! The workload rows over dlmalloc: one heap behind one lock.

use std::process::ExitCode;

use dlmalloc::GlobalDlmalloc;

#[cfg(feature = "in_binary")]
#[path = "../../workload/src/lib.rs"]
#[expect(unreachable_pub, reason = "public where it is a library")]
mod workload;

#[global_allocator]
static GLOBAL: GlobalDlmalloc = GlobalDlmalloc;

fn main() -> ExitCode {
    // `Dlmalloc::trim` would do it, but the global instance is private to its crate.
    workload::main(|| {}, None)
}
