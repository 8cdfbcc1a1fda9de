//! Lists the regular files below a folder, in an order that does not depend on the file system.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::PROGRAM;
use crate::common::{interrupt, say};

/// What a walk found.
pub(crate) struct Listing {
    /// Every regular file; its place here is its number in the index.
    pub(crate) files: Vec<PathBuf>,
    /// Folders that could not be listed, each already reported.
    pub(crate) unreadable: usize,
}

/// Symbolic links are not followed, except `root` itself. Stops early on Ctrl-C.
pub(crate) fn list(root: &Path) -> Result<Listing, String> {
    let mut listing = Listing {
        files: Vec::new(),
        unreadable: 0,
    };
    for entry in WalkDir::new(root).sort_by_file_name() {
        if interrupt::requested() {
            break;
        }
        match entry {
            Ok(entry) if entry.file_type().is_file() => listing.files.push(entry.into_path()),
            Ok(_) => {}
            Err(error) if error.depth() == 0 => return Err(describe(&error, root)),
            Err(error) => {
                say::line(PROGRAM, format_args!("{}", describe(&error, root)));
                listing.unreadable += 1;
            }
        }
    }
    // The index numbers files with 32 bits.
    u32::try_from(listing.files.len()).map_err(|_| format!("{root:?} holds too many files"))?;
    Ok(listing)
}

fn describe(error: &walkdir::Error, root: &Path) -> String {
    let path = error.path().unwrap_or(root);
    match error.io_error() {
        Some(reason) => format!("cannot list {path:?}: {reason}"),
        None => format!("cannot list {path:?}: {error}"),
    }
}
