//! Resident sizes of this process, read without allocating.

use std::fs::File;
use std::io::Read;

pub(crate) const NEEDS_LINUX: &str = "sizes of the process are read from /proc: Linux only";

/// KiB.
#[derive(Clone, Copy)]
pub(crate) struct Resident {
    pub(crate) now_kb: u64,
    pub(crate) peak_kb: u64,
}

impl Resident {
    pub(crate) fn read() -> Result<Self, &'static str> {
        let peak_kb = peak_kb()?;
        let now_kb = now_kb()?;
        Ok(Self {
            now_kb,
            peak_kb: peak_kb.max(now_kb),
        })
    }
}

/// `smaps_rollup` walks the page tables and is exact (6 ms for 1 GiB); the counters in `status`
/// may lag by some pages per processor, but only there is the peak.
pub(crate) fn now_kb() -> Result<u64, &'static str> {
    field("/proc/self/smaps_rollup", b"Rss:").ok_or(NEEDS_LINUX)
}

pub(crate) fn peak_kb() -> Result<u64, &'static str> {
    field("/proc/self/status", b"VmHWM:").ok_or(NEEDS_LINUX)
}

fn field(path: &str, name: &[u8]) -> Option<u64> {
    let mut text = [0_u8; 8192];
    let mut length = 0;
    let mut file = File::open(path).ok()?;
    loop {
        match file.read(&mut text[length..]).ok()? {
            0 => break,
            more => length += more,
        }
    }
    let line = text[..length]
        .split(|&byte| byte == b'\n')
        .find_map(|l| l.strip_prefix(name))?;
    let digits = line.iter().filter(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |value, digit| value * 10 + u64::from(digit - b'0')))
}
