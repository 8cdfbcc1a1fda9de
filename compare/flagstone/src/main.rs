//! The workload rows over flagstone.

use std::process::ExitCode;

use flagstone::Flagstone;

#[cfg(feature = "in_binary")]
#[path = "../../workload/src/lib.rs"]
#[expect(unreachable_pub, reason = "public where it is a library")]
mod workload;

#[global_allocator]
static GLOBAL: Flagstone = Flagstone::new();

fn main() -> ExitCode {
    workload::main(
        || {
            Flagstone::purge();
        },
        None,
    )
}
