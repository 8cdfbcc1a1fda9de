//! The file of a heap, as this process knows it.
#![forbid(unsafe_code)]

use super::error::MappedError;
use crate::os::shared::{File, FileId};

#[derive(Clone, Copy)]
pub(super) struct Source {
    pub(super) file: File,
    pub(super) id: FileId,
}

pub(super) fn refused(errno: i32) -> MappedError {
    MappedError::System { errno }
}

impl Source {
    /// Whether the descriptor is still that of the file.
    pub(super) fn is_open(self) -> bool {
        self.file.identify().is_ok_and(|(id, _)| id == self.id)
    }

    /// The file opened anew, unless the program has closed the descriptor, or has another file by that number.
    pub(super) fn open_anew(self) -> Result<File, MappedError> {
        let opened = self.file.reopen().map_err(refused)?;
        match opened.identify() {
            Ok((id, _)) if id == self.id => Ok(opened),
            _ => {
                opened.close();
                Err(MappedError::Closed)
            }
        }
    }
}
