//! The workload rows over flagstone, with the locks counted that it takes: on few processors times do not show
//! how threads would get in each other's way on many.

use std::process::ExitCode;

use flagstone::{Flagstone, counters};

#[global_allocator]
static GLOBAL: Flagstone = Flagstone::new();

fn main() -> ExitCode {
    workload::main(
        || {
            Flagstone::purge();
        },
        Some(counters::locks),
    )
}
