//! The workload rows over sefer_alloc.

use std::process::ExitCode;

use sefer_alloc::SeferAlloc;

#[cfg(feature = "in_binary")]
#[path = "../../workload/src/lib.rs"]
#[expect(unreachable_pub, reason = "public where it is a library")]
mod workload;

#[global_allocator]
static GLOBAL: SeferAlloc = SeferAlloc::new();

fn main() -> ExitCode {
    // It has no call that gives memory back; its cache of large blocks decays by itself.
    workload::main(|| {}, None)
}
