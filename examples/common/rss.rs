//! This process's resident memory as the kernel counts it; `None` where there is no `/proc`.

use std::fs;

/// Resident bytes now. `smaps_rollup` is exact but counts page by page; `status` is the fallback.
pub(crate) fn now() -> Option<usize> {
    field("/proc/self/smaps_rollup", "Rss:").or_else(|| field("/proc/self/status", "VmRSS:"))
}

/// The value of the line that starts with `name`, given there in kB.
pub(crate) fn field(file: &str, name: &str) -> Option<usize> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}
