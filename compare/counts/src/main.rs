//! Counts the instructions that flagstone's rows take for each operation, in this tree and in
//! another commit. A count tells an added instruction from noise, which times do not on a busy
//! machine.

#![forbid(unsafe_code)]

// The command line, and what can go wrong.
mod args;
mod error;

// From a commit to a program.
mod build;
mod trees;

// From a program to counts.
mod callgrind;
mod measure;
mod rows;

// What was found.
mod report;

use std::fs::File;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::build::Folders;
use crate::error::Error;
use crate::measure::Mode;
use crate::report::Report;
use crate::trees::Repository;

/// A row grew by more than `--at-most`.
const GREW: u8 = 1;
/// Something is missing or failed, as after a wrong command line.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let done = run(&Args::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        FAILED
    });
    ExitCode::from(done)
}

/// Counts and shows; the exit status.
fn run(args: &Args) -> Result<u8, Error> {
    // What is missing is told before a minute is spent on building.
    callgrind::is_there()?;
    let repository = Repository::here()?;
    let against = args.against.as_deref();
    let commit = against.map(|name| repository.commit(name)).transpose()?;
    let folders = Folders::new(args.lto)?;
    // Two runs at once would lay their trees over each other.
    let _lock = locked(&folders)?;

    let this = repository.this_tree(&folders.scratch_index())?;
    let mut programs = vec![build::program(&repository, &folders, "this", &this)?];
    if let Some(commit) = &commit {
        let other = repository.with_our_compare(commit, &this, &folders.scratch_index())?;
        programs.push(build::program(&repository, &folders, "that", &other)?);
    }

    let rows = rows::chosen(&programs[0], args.filter.as_deref())?;
    let mut report = Report::new(repository.describe(&this)?, commit.as_ref(), args.lto);
    for mode in Mode::all(args.hardened) {
        let rows = measure::all(&programs, &rows, mode, &folders)?;
        report.add(mode, rows);
    }
    report.print()?;
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    let Some(most) = args.at_most else {
        return Ok(0);
    };
    let grown = report.grown(most);
    for line in &grown {
        eprintln!("{line}");
    }
    Ok(if grown.is_empty() { 0 } else { GREW })
}

/// Waits for another run in the same folder to end.
fn locked(folders: &Folders) -> Result<File, Error> {
    let path = folders.lock();
    let file = File::create(&path).map_err(Error::file(&path))?;
    file.lock().map_err(Error::file(&path))?;
    Ok(file)
}
