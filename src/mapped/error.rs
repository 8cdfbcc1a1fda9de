//! What can go wrong with a heap over a mapping.
#![forbid(unsafe_code)]

use core::fmt;

use super::header::Unfit;
use crate::os::files::words_of;
use crate::os::maps::{NAME, name_at};

/// Why there is no heap over a mapping, or it does not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MappedError {
    /// The capacity is no multiple of 64 KiB, too little for the heap's own tables, or more than there can be.
    Capacity,
    /// Something else lies at the address that the heap has in every process.
    BaseBusy {
        /// That address.
        base: usize,
        /// What lies there.
        by: MappingName,
    },
    /// What the descriptor leads to is no heap.
    NoHeap,
    /// It is a heap of another version.
    Version,
    /// It is a heap of a machine with another order of bytes.
    ByteOrder,
    /// It is a heap of a machine whose pages have another length: by those its file got space.
    PageSize,
    /// It is a heap of another kind: [`Committed`](super::Committed) opens heaps that commit, and [`Mapped`](super::Mapped)
    /// all others.
    Kind,
    /// It is a heap whose tables contradict each other.
    Damaged,
    /// The file is shorter or longer than the heap in it was.
    Length,
    /// The heap is in a file, nobody closed it, and the machine went down since.
    Dirty,
    /// There is no such file.
    NotFound,
    /// A file, or something in the heap, has that name.
    Exists,
    /// What a heap was to lie in is no file of this machine's, or its filesystem cannot reserve space.
    Unsupported,
    /// As many processes use the heap as can, 512.
    TooManyProcesses,
    /// The heap has no room for what was asked, or its disk has none for the heap.
    NoSpace,
    /// As many things have names as can, 64, or a name is empty or longer than 48 bytes.
    Name,
    /// What has the name is of another type, or of one that has changed.
    Type,
    /// The address is none of the heap's.
    Foreign,
    /// The heap was closed in this process.
    Closed,
    /// The process was forked from the one that has the heap, which commits, and is one process's.
    Forked,
    /// The kernel could not write what was committed. The last commit is what who opens the file finds.
    Poisoned,
    /// Somebody has the lock.
    Held,
    /// The heap can be read alone, in this process or, once it was frozen, in all.
    ReadOnly,
    /// Other processes have the heap.
    InUse,
    /// A process was killed in the midst of changing a map.
    Torn,
    /// The kernel refused a call.
    System {
        /// Its number, `errno`.
        errno: i32,
    },
}

/// The name of a mapping, as the kernel lists it: the path of its file, or one in brackets. The last 62 bytes are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MappingName {
    bytes: [u8; NAME],
    length: usize,
}

impl MappingName {
    /// That of what lies between two addresses.
    pub(super) fn at(from: usize, to: usize) -> Self {
        let (bytes, length) = name_at(from, to).unwrap_or(([0; NAME], 0));
        Self { bytes, length }
    }

    /// The name, which is empty for what has none, or if nobody can tell.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Display for MappingName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_bytes() {
            [] => out.write_str("something without a name"),
            name => write!(out, "{}", name.escape_ascii()),
        }
    }
}

impl fmt::Debug for MappingName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl From<Unfit> for MappedError {
    fn from(why: Unfit) -> Self {
        match why {
            Unfit::NoHeap => Self::NoHeap,
            Unfit::Version => Self::Version,
            Unfit::ByteOrder => Self::ByteOrder,
            Unfit::PageSize => Self::PageSize,
            Unfit::Length => Self::Length,
            Unfit::Damaged => Self::Damaged,
        }
    }
}

impl fmt::Display for MappedError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Capacity => "the capacity is no multiple of 64 KiB, too little, or too much",
            Self::BaseBusy { base, by } => {
                return write!(out, "{by} lies at the heap's address, {base:#x}");
            }
            Self::NoHeap => "there is no heap",
            Self::Version => "a heap of another version",
            Self::ByteOrder => "a heap of a machine with another order of bytes",
            Self::PageSize => "a heap of a machine with pages of another length",
            Self::Kind => "a heap of another kind, that commits or does not",
            Self::Forked => "the heap commits, and is the process's that this one was forked from",
            Self::Poisoned => "the kernel could not write what was committed",
            Self::Damaged => "the heap is damaged",
            Self::Length => "the file is shorter or longer than the heap in it was",
            Self::Dirty => "nobody closed the heap, and the machine went down since",
            Self::NotFound => "there is no such file",
            Self::Unsupported => "no file of this machine's, or one that cannot reserve space",
            Self::TooManyProcesses => "too many processes use the heap",
            Self::NoSpace => "the heap or its disk has no room",
            Self::Name => "too many names, or one that is empty or too long",
            Self::Exists => "something has the name",
            Self::Type => "what has the name is of another type",
            Self::Foreign => "the address is none of the heap's",
            Self::Closed => "the heap was closed",
            Self::Held => "somebody has the lock",
            Self::ReadOnly => "the heap can only be read",
            Self::InUse => "other processes have the heap",
            Self::Torn => "a process was killed while it changed the map",
            Self::System { errno } => {
                let words = words_of(*errno);
                let colon = if words.is_empty() { "" } else { ": " };
                return write!(
                    out,
                    "the kernel refused a call{colon}{words} (errno {errno})"
                );
            }
        })
    }
}

impl core::error::Error for MappedError {}
