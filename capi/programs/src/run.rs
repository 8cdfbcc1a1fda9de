//! Running one program under one allocator.

use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Seconds on the wall.
    pub(crate) wall: f64,
    /// Peak resident KiB of the largest process.
    pub(crate) peak: f64,
}

/// Whether a command is on the path.
pub(crate) fn exists(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(command).is_file())
}

/// Runs a command with a library preloaded until it ends with success: what it took and wrote.
pub(crate) fn run(command: &mut Command, library: &Path) -> Result<(Sample, Vec<u8>)> {
    let mut output = tempfile::tempfile()?;
    let mut errors = tempfile::tempfile()?;
    let start = Instant::now();
    let child = command
        .env("LD_PRELOAD", library)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(errors.try_clone()?)
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    let (status, peak) = wait(&child)?;
    let wall = start.elapsed().as_secs_f64();
    if !status.success() {
        bail!(
            "{command:?} ended with {status}: {}",
            text(&mut errors)?.trim_end()
        );
    }
    let mut written = Vec::new();
    output.seek(SeekFrom::Start(0))?;
    output.read_to_end(&mut written)?;
    Ok((Sample { wall, peak }, written))
}

fn text(file: &mut std::fs::File) -> Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Waits for a process; how it ended, and the peak resident KiB of the largest of it and its own.
pub(crate) fn wait(child: &Child) -> Result<(ExitStatus, f64)> {
    let process = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: 1. all zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: 1. both are writable.
    let found = unsafe { libc::wait4(process, &raw mut status, 0, &raw mut usage) };
    if found != process {
        return Err(std::io::Error::last_os_error()).context("wait4");
    }
    Ok((ExitStatus::from_raw(status), usage.ru_maxrss as f64))
}
