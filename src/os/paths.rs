//! Paths: how files are opened, made and named.

use super::failpoints;
use super::shared::{File, Refusal, again, descriptor};
use super::syscall::{Word, call, word};

/// Bytes of the longest path, its zero included.
const LONGEST: usize = libc::PATH_MAX as usize;

/// Whether a refusal says that a filesystem does not know the call.
fn is_unknown(refusal: Refusal) -> bool {
    matches!(refusal, libc::EOPNOTSUPP | libc::EISDIR | libc::ENOSYS)
}

/// A path as the kernel takes it.
pub(crate) struct Path {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Path {
    pub(crate) fn new(path: &[u8]) -> Result<Self, Refusal> {
        let mut whole = Self {
            bytes: [0; LONGEST],
            length: 0,
        };
        whole.push(path)?;
        Ok(whole)
    }

    /// Puts more behind it.
    fn push(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if bytes.contains(&0) {
            return Err(libc::EINVAL);
        }
        let end = self.length + bytes.len();
        // With a zero behind it.
        if end >= LONGEST {
            return Err(libc::ENAMETOOLONG);
        }
        self.bytes[self.length..end].copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The folder that it lies in.
    fn folder(&self) -> Result<Self, Refusal> {
        match self.as_bytes().iter().rposition(|byte| *byte == b'/') {
            None => Self::new(b"."),
            Some(0) => Self::new(b"/"),
            Some(end) => Self::new(&self.bytes[..end]),
        }
    }

    /// Another in the same folder, which nobody uses.
    fn beside(&self, random: u64) -> Result<Self, Refusal> {
        let mut other = Self::new(self.as_bytes())?;
        other.push(b".new-")?;
        for place in (0..16).rev() {
            let digit = (random >> (place * 4) & 15) as usize;
            other.push(&b"0123456789abcdef"[digit..=digit])?;
        }
        Ok(other)
    }

    fn word(&self) -> Word {
        self.bytes.as_ptr().cast_mut().cast()
    }

    fn open_with(&self, flags: i32, mode: u32) -> Result<File, Refusal> {
        if failpoints::refuses() {
            let is_nameless = flags & libc::O_TMPFILE == libc::O_TMPFILE;
            return Err(if is_nameless {
                libc::EOPNOTSUPP
            } else {
                libc::EACCES
            });
        }
        let flags = flags | libc::O_CLOEXEC;
        let arguments = [
            here(),
            self.word(),
            word(flags as usize),
            word(mode as usize),
        ];
        // SAFETY: 1. the path ends with a zero.
        again(|| unsafe { call(libc::SYS_openat, arguments) }).map(descriptor)
    }

    /// Opens the file there.
    pub(crate) fn open(&self, is_for_reading: bool) -> Result<File, Refusal> {
        let access = if is_for_reading {
            libc::O_RDONLY
        } else {
            libc::O_RDWR
        };
        // Whatever else lies there is not waited for.
        self.open_with(access | libc::O_NONBLOCK, 0)
    }

    /// Opens a file of the kernel's.
    pub(super) fn open_for_reading(&self) -> Result<File, Refusal> {
        self.open_with(libc::O_RDONLY, 0)
    }

    /// A file without a name, in the folder that this is.
    pub(crate) fn nameless_in(&self, mode: u32, random: u64) -> Result<File, Refusal> {
        let nameless = self.open_with(libc::O_TMPFILE | libc::O_EXCL | libc::O_RDWR, mode);
        nameless.or_else(|refusal| {
            if !is_unknown(refusal) {
                return Err(refusal);
            }
            let mut named = Self::new(self.as_bytes())?;
            named.push(b"/flagstone")?;
            let named = named.beside(random)?;
            let file = named.create(mode)?;
            named.remove().inspect_err(|_| file.close())?;
            Ok(file)
        })
    }

    /// A file that is to have this name once it is whole.
    pub(crate) fn begin(&self, mode: u32, random: u64) -> Result<Unnamed, Refusal> {
        let nameless = self
            .folder()?
            .open_with(libc::O_TMPFILE | libc::O_RDWR, mode);
        match nameless {
            Ok(file) => Ok(Unnamed { file, other: None }),
            Err(refusal) if is_unknown(refusal) => {
                let other = self.beside(random)?;
                let file = other.create(mode)?;
                let other = Some(other);
                Ok(Unnamed { file, other })
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn create(&self, mode: u32) -> Result<File, Refusal> {
        self.open_with(libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, mode)
    }

    /// Whether something has the name, as far as one can tell.
    pub(crate) fn is_taken(&self) -> bool {
        let arguments = [here(), self.word(), word(libc::F_OK as usize)];
        // SAFETY: 1. the path ends with a zero.
        !failpoints::refuses() && unsafe { call(libc::SYS_faccessat, arguments) }.is_ok()
    }

    /// Takes the name away.
    pub(crate) fn remove(&self) -> Result<(), Refusal> {
        if failpoints::refuses() {
            return Err(libc::EIO);
        }
        let arguments = [here(), self.word(), word(0)];
        // SAFETY: 1. the path ends with a zero.
        unsafe { call(libc::SYS_unlinkat, arguments) }.map(|_| ())
    }

    /// Sees to it that the names in this file's folder outlive the machine.
    pub(crate) fn keep_name(&self) -> Result<(), Refusal> {
        let folder = self.folder()?;
        let folder = match folder.open_with(libc::O_RDONLY | libc::O_DIRECTORY, 0) {
            // Files can be made there, but not listed.
            Err(libc::EACCES) => return Ok(()),
            folder => folder?,
        };
        let kept = folder.sync();
        folder.close();
        match kept {
            // Some filesystems do so by themselves.
            Err(libc::EINVAL) => Ok(()),
            kept => kept,
        }
    }
}

/// A file that has no name yet, or one that nobody looks for.
pub(crate) struct Unnamed {
    pub(crate) file: File,
    other: Option<Path>,
}

impl Unnamed {
    /// Gives the file its name, unless something has it: [`EXISTS`]. What nobody looks for is gone in any case.
    pub(crate) fn name(&self, path: &Path) -> Result<(), Refusal> {
        if failpoints::refuses() {
            self.forget();
            return Err(libc::EIO);
        }
        let by_number = self.file.path();
        let (from, flags) = match &self.other {
            Some(other) => (other.word(), 0),
            None => (
                by_number.as_ptr().cast_mut().cast(),
                libc::AT_SYMLINK_FOLLOW,
            ),
        };
        let arguments = [here(), from, here(), path.word(), word(flags as usize)];
        // SAFETY: 1. both paths end with a zero.
        let named = unsafe { call(libc::SYS_linkat, arguments) }.map(|_| ());
        self.forget();
        named
    }

    /// Takes the name away that nobody looks for. If the kernel refuses, an empty file stays there.
    pub(crate) fn forget(&self) {
        if let Some(other) = &self.other {
            let _ = other.remove();
        }
    }
}

fn here() -> Word {
    word(libc::AT_FDCWD as isize as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &str) -> std::string::String {
        let folder = Path::new(path.as_bytes()).and_then(|path| path.folder());
        std::string::String::from_utf8_lossy(folder.expect("short").as_bytes()).into()
    }

    #[test]
    fn paths_and_their_folders() {
        assert_eq!(folder("heap"), ".");
        assert_eq!(folder("/heap"), "/");
        assert_eq!(folder("/dev/shm/heap"), "/dev/shm");
        assert_eq!(Path::new(b"a\0b").err(), Some(libc::EINVAL));
        assert_eq!(Path::new(&[b'a'; LONGEST]).err(), Some(libc::ENAMETOOLONG));
        let longest = Path::new(&[b'a'; LONGEST - 1]).expect("it fits");
        assert_eq!(longest.beside(7).err(), Some(libc::ENAMETOOLONG));
        let beside = Path::new(b"heap").and_then(|path| path.beside(0xab));
        assert_eq!(
            beside.expect("short").as_bytes(),
            b"heap.new-00000000000000ab"
        );
    }
}
