//! The workload rows over snmalloc.

use std::process::ExitCode;

use snmalloc_rs::SnMalloc;

#[cfg(feature = "in_binary")]
#[path = "../../workload/src/lib.rs"]
#[expect(unreachable_pub, reason = "public where it is a library")]
mod workload;

#[global_allocator]
static GLOBAL: SnMalloc = SnMalloc;

fn main() -> ExitCode {
    // Its Rust interface has nothing that gives memory back.
    workload::main(|| {}, None)
}
