//! `flagstone snapshot`: a heap over a mapping once more, by another name.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use engine::MappedError;

use crate::output::tame;
use crate::place::Place;

#[derive(clap::Args)]
pub(crate) struct Snapshot {
    /// The heap's file: a path, /proc/PID/fd/N of a process that has it, or the number of a descriptor.
    #[arg(value_name = "PATH|FD", value_parser = Place::parser())]
    place: Place,
    /// The file of the copy, which is made.
    #[arg(value_name = "NEW")]
    copy: PathBuf,
}

pub(crate) fn snapshot(arguments: &Snapshot) -> Result<ExitCode> {
    let Snapshot { place, copy } = arguments;
    let heap = place.open_for_use()?;
    // SAFETY: 1. this is the only thread that has it. 2. there are no children, and who uses it by a descriptor has a slot.
    let made = unsafe { heap.snapshot(copy.as_os_str().as_bytes()) };
    // SAFETY: 1. as above. 2. nothing of it was looked at.
    let closed = unsafe { heap.close() };
    made.map_err(|error| explained(arguments, error))?;
    closed.with_context(|| place.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// What is wrong, and with which of the two.
fn explained(arguments: &Snapshot, error: MappedError) -> anyhow::Error {
    let copy = tame(&arguments.copy.display().to_string());
    match error {
        MappedError::NotFound => anyhow!("{copy}: its folder is not there"),
        MappedError::NoSpace => anyhow!("{copy}: its disk has no room for the heap"),
        MappedError::Exists | MappedError::Unsupported | MappedError::System { .. } => {
            anyhow::Error::new(error).context(copy)
        }
        _ => anyhow::Error::new(error).context(arguments.place.to_string()),
    }
}
