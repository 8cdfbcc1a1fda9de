//! The kinds of files that heaps can lie in: what a test asks of one, it asks of all.

use std::env;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use flagstone::{Mapped, MappedError};

use crate::files::Folder;

/// A kind of file.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Of so many like cases one is tried: what differs from the first kind is little.
    one_in: usize,
    /// A heap in a new file.
    pub(crate) create: fn(usize) -> Result<Mapped, MappedError>,
    /// A new file of so many bytes, all zero, for an image of a heap.
    pub(crate) blank: fn(usize) -> OwnedFd,
    /// The heap in such a file.
    pub(crate) attach: fn(&OwnedFd) -> Result<Mapped, MappedError>,
}

impl Kind {
    /// How many of like cases are tried: all with `MAPPED_ALL`.
    pub(crate) fn share(&self, cases: usize) -> usize {
        if env::var_os("MAPPED_ALL").is_some() {
            return cases;
        }
        cases.div_ceil(self.one_in)
    }
}

pub(crate) const KINDS: [Kind; 3] = [
    Kind {
        name: "memory",
        one_in: 1,
        create: Mapped::create,
        blank: memory_file,
        attach,
    },
    Kind {
        name: "a file in memory",
        one_in: 8,
        create: |bytes| create_file("/dev/shm", bytes),
        blank: |bytes| file("/dev/shm", bytes),
        attach,
    },
    Kind {
        name: "a file on a disk",
        one_in: 32,
        create: |bytes| create_file("/var/tmp", bytes),
        blank: |bytes| file("/var/tmp", bytes),
        attach,
    },
];

fn attach(file: &OwnedFd) -> Result<Mapped, MappedError> {
    // SAFETY: the tests' own file; what is wrong in it is what they are about.
    unsafe { Mapped::attach(file.as_raw_fd()) }
}

/// A heap in a file whose name is gone at once.
fn create_file(folder: &str, bytes: usize) -> Result<Mapped, MappedError> {
    let folder = Folder::new(folder);
    let options = Mapped::options().capacity(bytes);
    options.create_file(folder.path("heap"))
}

fn file(folder: &str, bytes: usize) -> OwnedFd {
    let folder = Folder::new(folder);
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    let file = options.open(folder.path("image")).expect("a file");
    file.set_len(bytes as u64).expect("a length");
    file.into()
}

#[expect(
    clippy::disallowed_methods,
    reason = "an object that the allocator does not own"
)]
pub(crate) fn memory_file(bytes: usize) -> OwnedFd {
    // SAFETY: the name is a C string.
    let file = unsafe { libc::memfd_create(c"image".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(file >= 0, "memfd_create refused");
    // SAFETY: open, and nobody else's.
    let file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(file) });
    file.set_len(bytes as u64).expect("a length");
    file.into()
}
