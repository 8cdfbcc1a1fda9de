//! What can go wrong.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("valgrind does not start ({0}): it counts, and most systems have a package of it")]
    NoValgrind(io::Error),

    #[error("valgrind has no callgrind that works here: {0}")]
    NoCallgrind(String),

    #[error("git does not start ({0}): it holds the commits")]
    NoGit(io::Error),

    #[error("git {command}: {message}")]
    Git { command: String, message: String },

    #[error("there is no commit {0:?}")]
    NoCommit(String),

    #[error("cargo does not start: {0}")]
    NoCargo(io::Error),

    /// `tree` is `this` or `that`.
    #[error("{tree} tree does not build under these rows: {first} (see {})", log.display())]
    Build {
        tree: &'static str,
        first: String,
        log: PathBuf,
    },

    #[error("--filter {filter}: no row matches; rows: {rows}")]
    NoRow { filter: String, rows: String },

    #[error("{row}, {tree} tree: {reason}")]
    Run {
        row: String,
        tree: &'static str,
        reason: String,
    },

    #[error("{row}: the two trees did not do the same work, their checksums differ")]
    Checksums { row: String },

    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },

    #[error("standard output cannot be written: {0}")]
    Output(io::Error),
}

impl Error {
    /// What to make of an error about this file.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            path: path.to_owned(),
            source,
        }
    }
}
