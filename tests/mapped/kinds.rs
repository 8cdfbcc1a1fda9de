//! The kinds of files that heaps can lie in: what a test asks of one, it asks of all.

use std::env;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use flagstone::{Mapped, MappedError};

use crate::children::{end_of, start};
use crate::files::Folder;

/// One in so many is tried each time where some stand for all.
pub(crate) const FEW: usize = 4;

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

    /// Of so many calls or moments one is tried each time, as each takes long to come to: of the first kind all are,
    /// and of the others with `TEST_LONG` or `MAPPED_ALL`.
    pub(crate) fn one_call_in(&self) -> usize {
        let is_long = ["TEST_LONG", "MAPPED_ALL"].map(|name| env::var_os(name).is_some());
        if self.one_in == 1 || is_long.contains(&true) {
            1
        } else {
            FEW
        }
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

/// Asks something of each kind in a process of its own, of all at once: while one waits, for a disk most often, others
/// are at work.
pub(crate) fn of_each(ask: impl Fn(&Kind)) {
    let children = KINDS
        .each_ref()
        .map(|kind| (kind.name, start(|| ask(kind))));
    // SAFETY: `alarm` has no preconditions. Each of them has an alarm of its own, and one may set it anew.
    unsafe { libc::alarm(0) };
    // None is left behind when another has failed.
    let ends = children.map(|(name, child)| (name, end_of(child)));
    assert!(ends.iter().all(|(_, status)| *status == 0), "{ends:x?}");
}

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
