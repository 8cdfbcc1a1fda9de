//! A process's mappings, as the kernel lists them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;

/// Which file lies in a mapping: the device, as the kernel writes it, and the file's number there.
pub(crate) type FileNumber = ((u64, u64), u64);

/// Kibibytes of one or several mappings; `None` where the kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) size: u64,
    pub(crate) rss: Option<u64>,
    pub(crate) pss: Option<u64>,
    pub(crate) shared: Option<u64>,
    pub(crate) private: Option<u64>,
    pub(crate) swap: Option<u64>,
}

fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    }
}

impl Amounts {
    pub(crate) fn add(&mut self, other: Self) {
        self.size = self.size.saturating_add(other.size);
        self.rss = sum(self.rss, other.rss);
        self.pss = sum(self.pss, other.pss);
        self.shared = sum(self.shared, other.shared);
        self.private = sum(self.private, other.private);
        self.swap = sum(self.swap, other.swap);
    }

    /// A line of the list that is about one mapping.
    fn note(&mut self, key: &str, kibibytes: u64) {
        let place = match key {
            "Rss" => &mut self.rss,
            "Pss" => &mut self.pss,
            "Shared_Clean" | "Shared_Dirty" => &mut self.shared,
            "Private_Clean" | "Private_Dirty" => &mut self.private,
            "Swap" => &mut self.swap,
            _ => return,
        };
        *place = sum(*place, Some(kibibytes));
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// As in `rw-s`.
    pub(crate) access: String,
    pub(crate) offset: u64,
    pub(crate) file: FileNumber,
    /// Bytes that somebody else chose.
    pub(crate) path: Vec<u8>,
    pub(crate) amounts: Amounts,
}

impl Mapping {
    /// By a line as `start-end access offset device number path`.
    fn parse(line: &[u8]) -> Option<Self> {
        let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
        let mut rest = line;
        let mut next = || {
            let begin = rest.iter().position(|byte| *byte != b' ')?;
            let word = &rest[begin..];
            let end = word.iter().position(|byte| *byte == b' ');
            let (word, behind) = word.split_at(end.unwrap_or(word.len()));
            rest = behind;
            std::str::from_utf8(word).ok()
        };
        let (start, end) = next()?.split_once('-')?;
        let (start, end) = (hexadecimal(start)?, hexadecimal(end)?);
        let access = next().filter(|access| access.len() >= 4)?.to_owned();
        let offset = hexadecimal(next()?)?;
        let (major, minor) = next()?.split_once(':')?;
        let device = (hexadecimal(major)?, hexadecimal(minor)?);
        let file = (device, next()?.parse().ok()?);
        let amounts = Amounts {
            size: end.checked_sub(start)? >> 10,
            ..Amounts::default()
        };
        Some(Self {
            start,
            end,
            access,
            offset,
            file,
            path: rest.trim_ascii_start().to_vec(),
            amounts,
        })
    }

    /// Its name in `/proc/PID/map_files`.
    pub(crate) fn range(&self) -> String {
        format!("{:x}-{:x}", self.start, self.end)
    }

    pub(crate) fn path(&self) -> &OsStr {
        OsStr::from_bytes(&self.path)
    }
}

/// All of a list, of whatever kernel: lines that mean nothing here are passed over.
pub(crate) fn parse(text: &[u8]) -> Vec<Mapping> {
    let mut mappings = Vec::<Mapping>::new();
    for line in text.split(|byte| *byte == b'\n') {
        if let Some(mapping) = Mapping::parse(line) {
            mappings.push(mapping);
            continue;
        }
        let amount = std::str::from_utf8(line).ok().and_then(|line| {
            let (key, value) = line.split_once(':')?;
            let value = value.split_whitespace().next()?;
            Some((key, value.parse().ok()?))
        });
        if let (Some(mapping), Some((key, kibibytes))) = (mappings.last_mut(), amount) {
            mapping.amounts.note(key, kibibytes);
        }
    }
    mappings
}

/// The mappings of a process.
pub(crate) fn of(process: u32) -> io::Result<Vec<Mapping>> {
    let read = |name: &str| fs::read(format!("/proc/{process}/{name}"));
    let text = match read("smaps") {
        // Kernels can be built without.
        Err(error) if error.kind() == io::ErrorKind::NotFound => read("maps"),
        text => text,
    }?;
    Ok(parse(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"\
7f0000000000-7f0000010000 rw-s 00000000 00:01 77                         /memfd:a b (deleted)
Size:                 64 kB
Rss:                  12 kB
Pss:                   6 kB
Shared_Clean:          4 kB
Shared_Dirty:          4 kB
Private_Clean:         0 kB
Private_Dirty:         4 kB
FutureKey:          1000 kB
VmFlags: rd wr sh mr mw me ms sd
7f0000010000-7f0000012000 ---p 00000000 00:00 0
Rss: nonsense
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    #[test]
    fn lists_are_read() {
        let mappings = parse(LIST);
        assert_eq!(mappings.len(), 3);
        let first = &mappings[0];
        assert_eq!(first.range(), "7f0000000000-7f0000010000");
        assert_eq!(
            (&*first.access, first.offset, first.file),
            ("rw-s", 0, ((0, 1), 77))
        );
        assert_eq!(first.path, b"/memfd:a b (deleted)");
        let amounts = Amounts {
            size: 64,
            rss: Some(12),
            pss: Some(6),
            shared: Some(8),
            private: Some(4),
            swap: None,
        };
        assert_eq!(first.amounts, amounts);
        assert_eq!(
            (mappings[1].amounts.size, mappings[1].amounts.rss),
            (8, None)
        );
        assert!(mappings[1].path.is_empty());
        assert_eq!(mappings[2].path, b"[vsyscall]");
    }

    #[test]
    fn what_is_no_list_has_no_mappings() {
        for text in [
            &b""[..],
            b"\n\n",
            b"12-10 rw-s 0 0:0 0",
            b"a-b",
            b"\xff-\xff x",
        ] {
            assert_eq!(parse(text), []);
        }
    }
}
