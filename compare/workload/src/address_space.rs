//! The kernel's table of mappings, `/proc/self/maps`, read without allocating.

use std::fs::File;
use std::io::Read;

use super::rss::NEEDS_LINUX;

/// Longer than any line without a path; a longer line loses its end, which holds nothing we need.
const BUFFER: usize = 8192;

/// What the table adds up to.
#[derive(Clone, Copy, Default)]
pub(crate) struct AddressSpace {
    /// Private, writable, anonymous; without the main thread's stack.
    pub(crate) committed_kb: u64,
    pub(crate) mappings: u64,
}

impl AddressSpace {
    pub(crate) fn read() -> Result<Self, &'static str> {
        let mut file = File::open("/proc/self/maps").map_err(|_| NEEDS_LINUX)?;
        let mut buffer = [0_u8; BUFFER];
        let mut filled = 0;
        let mut sum = Self::default();
        loop {
            let more = file.read(&mut buffer[filled..]).map_err(|_| NEEDS_LINUX)?;
            if more == 0 {
                return Ok(sum);
            }
            filled += more;
            let mut done = 0;
            while let Some(end) = buffer[done..filled].iter().position(|&byte| byte == b'\n') {
                sum.add(&buffer[done..done + end]);
                done += end + 1;
            }
            if done == 0 && filled == BUFFER {
                // keep the fields, overwrite the path
                filled = BUFFER / 2;
            }
            buffer.copy_within(done..filled, 0);
            filled -= done;
        }
    }

    fn add(&mut self, line: &[u8]) {
        self.mappings += 1;
        self.committed_kb += committed_bytes(line).unwrap_or(0) / 1024;
    }
}

/// The bytes of a line `start-end rw-p offset device inode [name]` if they count.
fn committed_bytes(line: &[u8]) -> Option<u64> {
    let mut fields = line.split(|&byte| byte == b' ').filter(|f| !f.is_empty());
    let range = fields.next()?;
    let access = fields.next()?;
    let inode = fields.nth(2)?;
    let private_writable = access.starts_with(b"rw") && access.ends_with(b"p");
    let stack = fields.next() == Some(b"[stack]");
    if !private_writable || inode != b"0" || stack {
        return None;
    }
    let dash = range.iter().position(|&byte| byte == b'-')?;
    let start = hexadecimal(&range[..dash])?;
    let end = hexadecimal(&range[dash + 1..])?;
    end.checked_sub(start)
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_private_writable_and_anonymous() {
        let counted = [
            ("7f00000000-7f00003000 rw-p 00000000 00:00 0 ", Some(0x3000)),
            (
                "5500000000-5500001000 rw-p 00000000 00:00 0   [heap]",
                Some(0x1000),
            ),
            ("7f00000000-7f00003000 ---p 00000000 00:00 0 ", None),
            ("7f00000000-7f00003000 rw-s 00000000 00:00 0 ", None),
            (
                "7f00000000-7f00003000 rw-p 00000000 08:01 77 /lib/libc.so",
                None,
            ),
            ("7f00000000-7f00003000 rw-p 00000000 00:00 0 [stack]", None),
        ];
        for (line, bytes) in counted {
            assert_eq!(committed_bytes(line.as_bytes()), bytes, "{line}");
        }
    }

    #[test]
    fn a_fresh_mapping_is_seen() {
        // Other tests run meanwhile, and give back stacks and more: not all the time.
        let is_seen = (0..100).any(|_| {
            let before = AddressSpace::read().expect("Linux");
            let large = vec![0_u8; 256 << 20];
            let after = AddressSpace::read().expect("Linux");
            assert!(after.mappings > 1);
            after.committed_kb >= before.committed_kb + (large.len() / 1024) as u64
        });
        assert!(is_seen);
    }
}
