//! Running one program under one allocator.

use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::Allocator;

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Seconds on the wall.
    pub(crate) wall: f64,
    /// Seconds of processors.
    pub(crate) processor: f64,
    /// Peak resident KiB of the largest process.
    pub(crate) peak: f64,
}

/// Whether a command is on the path.
pub(crate) fn exists(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(command).is_file())
}

/// Runs a command with an allocator until it ends with success: what it took and wrote.
pub(crate) fn run(command: &mut Command, allocator: &Allocator) -> Result<(Sample, Vec<u8>)> {
    let mut output = tempfile::tempfile()?;
    let mut errors = tempfile::tempfile()?;
    allocator.apply(command);
    let start = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(errors.try_clone()?)
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    let (status, mut sample) = wait(&child)?;
    sample.wall = start.elapsed().as_secs_f64();
    if !status.success() {
        bail!(
            "{command:?} ended with {status}: {}",
            text(&mut errors)?.trim_end()
        );
    }
    let mut written = Vec::new();
    output.seek(SeekFrom::Start(0))?;
    output.read_to_end(&mut written)?;
    Ok((sample, written))
}

fn text(file: &mut std::fs::File) -> Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a process ended well.
pub(crate) fn exited(name: &str, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("{name} ended with {status}");
    }
    Ok(())
}

/// Waits for a process; how it ended, and what it and its own took, but for the wall's time.
pub(crate) fn wait(child: &Child) -> Result<(ExitStatus, Sample)> {
    let process = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: 1. all zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: 1. both are writable.
    let found = unsafe { libc::wait4(process, &raw mut status, 0, &raw mut usage) };
    if found != process {
        return Err(std::io::Error::last_os_error()).context("wait4");
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let sample = Sample {
        wall: 0.0,
        processor: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        peak: usage.ru_maxrss as f64,
    };
    Ok((ExitStatus::from_raw(status), sample))
}
