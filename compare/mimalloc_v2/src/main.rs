//! The workload rows over mimalloc v2.

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[cfg(feature = "in_binary")]
#[path = "../../workload/src/lib.rs"]
#[expect(unreachable_pub, reason = "public where it is a library")]
mod workload;

#[global_allocator]
static GLOBAL: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // SAFETY: mi_version has no precondition.
    let version = unsafe { libmimalloc_sys::mi_version() };
    assert_eq!(
        version / 10_000,
        2,
        "this peer is meant to be mimalloc v2, linked is {version}"
    );
    workload::main(purge, None)
}

fn purge() {
    // SAFETY: mi_collect has no precondition.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
