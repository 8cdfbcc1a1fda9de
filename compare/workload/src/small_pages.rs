//! The kernel's switch that turns huge pages off for one process.

use std::env;
use std::io::Error;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Starts this program anew with huge pages off, unless they are: the allocator is to find them so
/// from its first call.
pub(crate) fn only() -> Result<(), String> {
    // SAFETY: 1. asks; all other arguments must be zero.
    let is_off = unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) };
    if is_off == 1 {
        return Ok(());
    }
    // SAFETY: 1. a flag of this process that its memory can do without.
    let set = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    if set != 0 {
        let error = Error::last_os_error();
        return Err(format!("huge pages cannot be turned off: {error}"));
    }
    let program = env::current_exe().map_err(|error| error.to_string())?;
    // The flag outlives it. Returns only if it fails.
    let error = Command::new(program).args(env::args_os().skip(1)).exec();
    Err(format!("the program does not start anew: {error}"))
}
