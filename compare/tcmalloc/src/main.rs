//! The workload rows over tcmalloc.

use std::ffi::c_int;
use std::process::ExitCode;

use tcmalloc_better::TCMalloc;

#[cfg(feature = "in_binary")]
#[path = "../../workload/src/lib.rs"]
#[expect(unreachable_pub, reason = "public where it is a library")]
mod workload;

#[global_allocator]
static GLOBAL: TCMalloc = TCMalloc;

fn main() -> ExitCode {
    workload::main(purge, None)
}

// What `MallocExtension` of the C++ interface calls; the crate binds none of it.
unsafe extern "C" {
    /// Empties and ends the calling thread's cache.
    safe fn MallocExtension_Internal_MarkThreadIdle();
    /// Empties the cache of a processor, if caches are per processor.
    fn MallocExtension_Internal_ReleaseCpuMemory(processor: c_int) -> usize;
    /// Gives back free pages, at least `bytes` if there are as many.
    safe fn MallocExtension_Internal_ReleaseMemoryToSystem(bytes: usize) -> usize;
}

fn purge() {
    MallocExtension_Internal_MarkThreadIdle();
    // SAFETY: sysconf has no precondition.
    let processors = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
    for processor in 0..c_int::try_from(processors).unwrap_or(0) {
        // SAFETY: a processor that is there.
        unsafe { MallocExtension_Internal_ReleaseCpuMemory(processor) };
    }
    MallocExtension_Internal_ReleaseMemoryToSystem(isize::MAX.unsigned_abs());
}
