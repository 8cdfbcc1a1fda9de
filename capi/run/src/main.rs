//! `flagstone run -- PROGRAM`: the program with flagstone as its allocator.

mod child;
mod options;
mod preload;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::child::Ending;
use crate::options::Tuning;

/// Runs programs with flagstone as their memory allocator, without recompiling them.
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
    program: Vec<std::ffi::OsString>,
}

fn main() -> ExitCode {
    let Verb::Run(run) = CommandLine::parse().command;
    match start(&run) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("flagstone: {error:#}");
            ExitCode::from(125)
        }
    }
}

fn start(run: &Run) -> Result<ExitCode> {
    let (program, arguments) = run.program.split_first().expect("clap requires one");
    let library = preload::library(run.library.as_deref())?;
    let mut command = Command::new(program);
    command.args(arguments);
    command.env("LD_PRELOAD", preload::list(&library, run.tuning.samples())?);
    command.envs(run.tuning.environment());
    if let Some(reason) = preload::unaffected(program) {
        eprintln!(
            "flagstone: {}: {reason}, so that it keeps its own allocator",
            program.display()
        );
    }
    if !run.summary {
        // Returns only if it fails.
        return Ok(not_run(program, &command.exec()));
    }
    command.env("FLAGSTONE_SUMMARY", "1");
    match child::run(&mut command) {
        Ok((ending, usage)) => {
            eprintln!("flagstone: {}: {usage}", program.display());
            match ending {
                Ending::Exit(code) => Ok(ExitCode::from(code)),
                Ending::Signal(signal) => child::die_by(signal),
            }
        }
        Err(error) => Ok(not_run(program, &error)),
    }
}

fn not_run(program: &std::ffi::OsStr, error: &std::io::Error) -> ExitCode {
    eprintln!("flagstone: {}: {error}", program.display());
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    ExitCode::from(if missing { 127 } else { 126 })
}
