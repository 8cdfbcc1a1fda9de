//! `flagstone run -- PROGRAM`: the program with flagstone as its allocator. `flagstone inspect`, `verify` and `meminfo`: heaps
//! over mappings, which they look at and do not change. `flagstone snapshot`: a copy of one.

mod child;
mod inspect;
mod meminfo;
mod options;
mod output;
mod place;
mod preload;
mod smaps;
mod snapshot;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::child::Ending;
use crate::inspect::{Inspect, Verify};
use crate::meminfo::Meminfo;
use crate::options::Tuning;
use crate::snapshot::Snapshot;

/// Runs programs with flagstone as their memory allocator, without recompiling them; looks at heaps that processes share, and
/// copies them.
#[derive(Parser)]
#[command(version)]
struct CommandLine {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a program, and all that it starts, with flagstone preloaded.
    ///
    /// Ends as the program does; with 127 if there is no such program, with 126 if it cannot be run, and with
    /// 125 if the library is missing.
    Run(Run),
    /// Say what a heap over a mapping is, who has it, how it was left, and what lies in it.
    ///
    /// Changes nothing, and needs no more than the right to read the file. Ends with 0, with 1 if the heap is
    /// damaged, and with 2 if there is none or it cannot be read.
    Inspect(Inspect),
    /// Check the tables of a heap over a mapping.
    ///
    /// Changes nothing, and takes no lock: what other processes are at is looked at twice, and not judged. Ends with 0
    /// if the heap is sound, with 1 if it is damaged, and with 2 if there is none or it cannot be read.
    Verify(Verify),
    /// Say what memory the heaps over mappings of a process take, in KiB.
    ///
    /// ACCESS: the process uses the heap, maps it and has not allocated, reads it, or has a copy of one that it closed.
    /// Ends with 2 if there is no such process, or it is not to be looked at.
    Meminfo(Meminfo),
    /// Copy a heap over a mapping to a new file, a heap by itself.
    ///
    /// The heap is opened for it, and closed: one that its last users left is mended. Programs that open it meanwhile wait.
    /// The copy is for its owner alone, and is on the disk when the command ends. Ends with 0, with 1 if the heap is damaged,
    /// and with 2 if there is none, others have it, it is dirty, or NEW is there already or cannot be made. There is no file
    /// then.
    Snapshot(Snapshot),
}

#[derive(clap::Args)]
struct Run {
    /// Say at the end what each process held, and how long the program took.
    #[arg(long)]
    summary: bool,
    /// The library to preload; otherwise the one beside this command, or in ../lib.
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
    #[command(flatten)]
    tuning: Tuning,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

fn main() -> ExitCode {
    let run = match CommandLine::parse().command {
        Verb::Run(run) => run,
        Verb::Inspect(arguments) => return looked(inspect::inspect(&arguments)),
        Verb::Verify(arguments) => return looked(inspect::verify(&arguments)),
        Verb::Meminfo(arguments) => return looked(meminfo::meminfo(&arguments)),
        Verb::Snapshot(arguments) => return looked(snapshot::snapshot(&arguments)),
    };
    match start(&run) {
        Ok(code) => code,
        Err(error) => {
            say(format_args!("{error:#}"));
            ExitCode::from(125)
        }
    }
}

/// How a look, or a copy, ended: with what it says, or with an error of its own.
fn looked(done: Result<ExitCode>) -> ExitCode {
    done.unwrap_or_else(|error| {
        let (message, code) = place::fault(&error);
        say(format_args!("{message}"));
        ExitCode::from(code)
    })
}

/// One line on standard error. Where that is closed or full, the program's own end counts.
fn say(message: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "flagstone: {message}");
}

fn start(run: &Run) -> Result<ExitCode> {
    let (program, arguments) = run.program.split_first().context("no program")?;
    let library = preload::library(run.library.as_deref())?;
    let mut command = Command::new(program);
    command.args(arguments);
    command.env("LD_PRELOAD", preload::list(&library, run.tuning.samples())?);
    command.envs(run.tuning.environment());
    let name = program.display();
    if let Some(reason) = preload::unaffected(program) {
        say(format_args!(
            "{name}: {reason}, so that it keeps its own allocator"
        ));
    }
    if !run.summary {
        // Returns only if it fails.
        return Ok(not_run(program, &command.exec()));
    }
    command.env("FLAGSTONE_SUMMARY", "1");
    let child = match child::spawn(&mut command) {
        Ok(child) => child,
        Err(error) => return Ok(not_run(program, &error)),
    };
    let (ending, usage) = child
        .wait()
        .with_context(|| format!("waiting for {name}"))?;
    say(format_args!("{name}: {usage}"));
    match ending {
        Ending::Exit(code) => Ok(ExitCode::from(code)),
        Ending::Signal(signal) => child::die_by(signal),
    }
}

fn not_run(program: &OsStr, error: &io::Error) -> ExitCode {
    say(format_args!("{}: {error}", program.display()));
    let missing = error.kind() == io::ErrorKind::NotFound;
    ExitCode::from(if missing { 127 } else { 126 })
}
