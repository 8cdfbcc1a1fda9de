//! The file of a heap, as this process knows it.
#![forbid(unsafe_code)]

use super::error::MappedError;
use super::header::{Constants, Kind};
use crate::os::PageLen;
use crate::os::files::{self, FileKind};
use crate::os::shared::{File, FileId, NO_MEMORY};
use crate::sync::{AtomicU32, Ordering};
use crate::units::UNIT;

pub(super) struct Source {
    /// The descriptor, which the program may have closed.
    descriptor: AtomicU32,
    pub(super) id: FileId,
    /// As they stood in it when this process found it.
    pub(super) constants: Constants,
    /// Units of the file of which space comes and goes together: see `space`.
    pub(super) step: u32,
    /// Whether it lies on a device, which has all its space.
    is_device: bool,
}

pub(super) fn refused(errno: i32) -> MappedError {
    match errno {
        files::MISSING => MappedError::NotFound,
        files::EXISTS => MappedError::Exists,
        errno if files::is_no_space(errno) => MappedError::NoSpace,
        files::UNKNOWN => MappedError::Unsupported,
        errno => MappedError::System { errno },
    }
}

/// What a file is; an error if no heap can lie in such a one.
pub(super) fn kind_for_heaps(file: File) -> Result<FileKind, MappedError> {
    match file.kind().map_err(refused)? {
        kind @ (FileKind::Regular | FileKind::Memory) => Ok(kind),
        _ => Err(MappedError::Unsupported),
    }
}

/// Units of the longest piece (*folio*) that the kernel has of a file's pages: as long as a huge page where pages have
/// 4 KiB, and by the kernel's tables (`MAX_XAS_ORDER`) else. Whoever stores in a page has the disk asked for all of its piece.
fn longest_folio() -> u32 {
    let page = PageLen::pages(1).bytes();
    let order = if page == 4096 { 9 } else { 11 };
    u32::try_from((page << order) / UNIT).unwrap_or(1).max(1)
}

/// The kernel does not tell a process of itself: what is not found is none of the program's files.
pub(super) fn without_proc(errno: i32) -> MappedError {
    MappedError::System { errno }
}

/// What stands for no memory.
pub(super) fn no_memory() -> MappedError {
    refused(NO_MEMORY)
}

impl Source {
    pub(super) fn new(file: File, id: FileId, constants: Constants, kind: FileKind) -> Self {
        let descriptor = AtomicU32::new(file.0.cast_unsigned());
        Self {
            descriptor,
            id,
            constants,
            is_device: kind == FileKind::Device,
            step: match kind {
                FileKind::Regular => longest_folio(),
                _ => 1,
            },
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.constants.kind
    }

    /// Whether a page that has no space yet could end who touches it: space is reserved first.
    pub(super) fn has_space_reserved(&self) -> bool {
        self.kind().is_on_disk() && !self.is_device
    }

    pub(super) fn file(&self) -> File {
        // ORDERING: a number, that is looked at before it is used.
        File(self.descriptor.load(Ordering::Relaxed).cast_signed())
    }

    /// Has another descriptor of the same file from now on.
    pub(super) fn set(&self, file: File) {
        self.descriptor
            .store(file.0.cast_unsigned(), Ordering::Relaxed);
    }

    /// The descriptor, if it is still that of the file.
    pub(super) fn open(&self) -> Option<File> {
        let is_own = |file: &File| file.identify().is_ok_and(|(id, _)| id == self.id);
        Some(self.file()).filter(is_own)
    }

    /// The file opened anew, unless the program has closed the descriptor, or has another file by that number.
    pub(super) fn open_anew(&self) -> Result<File, MappedError> {
        let opened = self.file().reopen().map_err(without_proc)?;
        match opened.identify() {
            Ok((id, _)) if id == self.id => Ok(opened),
            _ => {
                opened.close();
                Err(MappedError::Closed)
            }
        }
    }
}
