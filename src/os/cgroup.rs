//! The memory that a control group leaves to this process.
//!
//! The group is read once, as the process begins: files are opened for it, which a process that goes
//! into a sandbox later may not be able to do.

use core::ffi::{CStr, c_int};

use super::syscall::{call, word};

/// The longest path that is looked at.
const PATH: usize = 512;

/// Where the kernel's two versions of groups have their files, and what these are called.
const VERSIONS: [Version; 2] = [
    Version {
        controller: b"",
        root: b"/sys/fs/cgroup",
        file: b"/memory.max",
    },
    Version {
        controller: b"memory",
        root: b"/sys/fs/cgroup/memory",
        file: b"/memory.limit_in_bytes",
    },
];

struct Version {
    controller: &'static [u8],
    root: &'static [u8],
    file: &'static [u8],
}

/// The least number of bytes that the groups that this process is in allow to all that are in them;
/// `None` if there is no limit, or none can be read.
pub(crate) fn memory_limit() -> Option<usize> {
    if cfg!(any(miri, flagstone_portable)) {
        // There are no files.
        return None;
    }
    let mut groups = [0; 4096];
    let length = read(c"/proc/self/cgroup", &mut groups)?;
    let groups = &groups[..length];
    let limits = VERSIONS.iter().filter_map(|version| {
        let group = groups
            .split(|byte| *byte == b'\n')
            .find_map(|line| version.group_of(line))?;
        version.limit_of(group)
    });
    limits.min()
}

impl Version {
    /// The path of the group, if the line names one of this version.
    fn group_of<'a>(&self, line: &'a [u8]) -> Option<&'a [u8]> {
        let mut parts = line.splitn(3, |byte| *byte == b':');
        let (_, controllers) = (parts.next()?, parts.next()?);
        let group = parts.next()?;
        let mut controllers = controllers.split(|byte| *byte == b',');
        controllers
            .any(|controller| controller == self.controller)
            .then_some(group)
    }

    /// The least limit of a group and those that it is in. In a container, the path that the kernel
    /// tells may be one that only its host sees; then the root is the group.
    fn limit_of(&self, group: &[u8]) -> Option<usize> {
        let mut group = group.strip_suffix(b"/").unwrap_or(group);
        let mut least = None;
        loop {
            least = self.limit_at(group).into_iter().chain(least).min();
            let parent = group.iter().rposition(|byte| *byte == b'/');
            match parent {
                Some(end) => group = &group[..end],
                None => return least,
            }
        }
    }

    fn limit_at(&self, group: &[u8]) -> Option<usize> {
        let mut path = [0; PATH];
        let mut end = 0;
        for part in [self.root, group, self.file] {
            // The last byte stays 0.
            let place = path[..PATH - 1].get_mut(end..end + part.len())?;
            place.copy_from_slice(part);
            end += part.len();
        }
        let mut text = [0; 32];
        let length = read(CStr::from_bytes_until_nul(&path).ok()?, &mut text)?;
        number(&text[..length])
    }
}

/// A number on a line; `None` for a word, as `max` is.
fn number(text: &[u8]) -> Option<usize> {
    let digits = text.trim_ascii();
    core::str::from_utf8(digits).ok()?.parse().ok()
}

/// Reads the beginning of a file; how many bytes there were.
fn read(path: &CStr, buffer: &mut [u8]) -> Option<usize> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let open = [
        word(libc::AT_FDCWD as usize),
        path.as_ptr().cast_mut().cast(),
        word(flags as usize),
    ];
    // SAFETY: 1. the path is a C string, which is read.
    let file = unsafe { call(libc::SYS_openat, open) }.ok()?;
    let into = [file, buffer.as_mut_ptr().cast(), word(buffer.len())];
    // SAFETY: 1. the buffer is writable for that length.
    let got = unsafe { call(libc::SYS_read, into) };
    // SAFETY: 1. the file was opened here.
    let closed: Result<_, c_int> = unsafe { call(libc::SYS_close, [file]) };
    closed.ok()?;
    got.ok().map(|count| count.addr().min(buffer.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_groups_by_controller() {
        let [second, first] = VERSIONS;
        assert_eq!(second.group_of(b"0::/a/b"), Some(&b"/a/b"[..]));
        assert_eq!(second.group_of(b"4:memory:/a"), None);
        assert_eq!(first.group_of(b"4:memory:/a"), Some(&b"/a"[..]));
        assert_eq!(first.group_of(b"4:cpu,memory:/a:b"), Some(&b"/a:b"[..]));
        assert_eq!(first.group_of(b"4:memory_recursive:/a"), None);
        assert_eq!(first.group_of(b"4"), None);
    }

    #[test]
    fn limits_are_numbers() {
        assert_eq!(number(b"268435456\n"), Some(268_435_456));
        assert_eq!(number(b"max\n"), None);
        assert_eq!(number(b"99999999999999999999999\n"), None);
        assert_eq!(number(b""), None);
    }

    #[test]
    fn long_paths_are_none() {
        assert_eq!(VERSIONS[0].limit_at(&[b'a'; PATH]), None);
    }
}
