//! The workload rows over scudo, a hardened allocator.

use std::process::ExitCode;

use scudo::GlobalScudoAllocator;

#[cfg(feature = "in_binary")]
#[path = "../../workload/src/lib.rs"]
#[expect(unreachable_pub, reason = "public where it is a library")]
mod workload;

#[global_allocator]
static GLOBAL: GlobalScudoAllocator = GlobalScudoAllocator;

fn main() -> ExitCode {
    // `releaseToOS` is reached through `mallopt`, which the crate leaves out of its library.
    workload::main(|| {}, None)
}
