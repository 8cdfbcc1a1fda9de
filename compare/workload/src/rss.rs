//! Resident sizes of this process, read without allocating.

use std::fs::File;
use std::io::Read;

/// KiB.
#[derive(Clone, Copy)]
pub(crate) struct Resident {
    pub(crate) now_kb: u64,
    pub(crate) peak_kb: u64,
}

impl Resident {
    /// `smaps_rollup` walks the page tables and is exact; the counters in `status` may lag by some
    /// pages per processor, but only there is the peak.
    pub(crate) fn read() -> Result<Self, &'static str> {
        let peak_kb = field("/proc/self/status", b"VmHWM:");
        let now_kb = field("/proc/self/smaps_rollup", b"Rss:");
        now_kb
            .zip(peak_kb)
            .map(|(now_kb, peak_kb)| Self {
                now_kb,
                peak_kb: peak_kb.max(now_kb),
            })
            .ok_or("no /proc/self/smaps_rollup and status here: resident sizes need Linux")
    }
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
