//! The kinds of files that heaps can lie in: what a test asks of one, it asks of all.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use flagstone::{Mapped, MappedError};

/// A kind of file.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// A heap in a new file.
    pub(crate) create: fn(usize) -> Result<Mapped, MappedError>,
    /// A new file of so many bytes, all zero, for an image of a heap.
    pub(crate) blank: fn(usize) -> OwnedFd,
    /// The heap in such a file.
    pub(crate) attach: fn(&OwnedFd) -> Result<Mapped, MappedError>,
}

pub(crate) const KINDS: [Kind; 1] = [Kind {
    name: "memory",
    create: Mapped::create,
    blank: memory_file,
    // SAFETY: the tests' own file; what is wrong in it is what they are about.
    attach: |file| unsafe { Mapped::attach(file.as_raw_fd()) },
}];

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
