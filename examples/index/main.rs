//! An inverted word index of every text file below a folder: which words occur in which files, how
//! often. Many small strings and growing vectors, built by several threads and merged by one: the
//! kind of program that a memory allocator is for.
//!
//! ```text
//! cargo run --release --example index -- FOLDER [--threads N] [--top N]
//! ```
//!
//! Exit code: 0, or 1 if a file could not be read, 2 for a bad command line, 130 after Ctrl-C.

use core::num::NonZeroUsize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use clap::Parser;
use flagstone::Flagstone;

mod build;
#[expect(dead_code, reason = "the examples do not need all of it")]
#[path = "../common/mod.rs"]
mod common;
mod postings;
mod read;
mod report;
mod walk;

use common::{interrupt, say};

#[global_allocator]
static GLOBAL: Flagstone = Flagstone::new();

/// The name before every message on stderr.
const PROGRAM: &str = "index";

/// Index every text file below a folder and print its most frequent words.
#[derive(Parser)]
#[command(name = PROGRAM)]
struct Args {
    /// Folder to index
    folder: PathBuf,
    /// Worker threads [default: one per available CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// How many words to print
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = interrupt::install() {
        say::line(PROGRAM, format_args!("Ctrl-C will not be handled: {error}"));
    }
    match run(&args) {
        Ok(code) => code,
        Err(message) => {
            say::line(PROGRAM, format_args!("{message}"));
            ExitCode::from(2)
        }
    }
}

/// Lists, indexes, prints. An `Err` is a folder that cannot be indexed at all.
fn run(args: &Args) -> Result<ExitCode, String> {
    check_folder(&args.folder)?;
    let started = Instant::now();
    let listing = walk::list(&args.folder)?;
    let mut part = build::build(&listing.files, threads(args));
    part.tally.unreadable += listing.unreadable;
    if interrupt::requested() {
        say::line(PROGRAM, format_args!("interrupted"));
        return Ok(ExitCode::from(interrupt::EXIT_CODE));
    }
    let failed = part.tally.unreadable > 0;
    let printed = report::print(&part, args.top, started.elapsed());
    Ok(if printed && !failed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn check_folder(folder: &Path) -> Result<(), String> {
    let found = fs::metadata(folder).map_err(|error| format!("cannot open {folder:?}: {error}"))?;
    if found.is_dir() {
        Ok(())
    } else {
        Err(format!("{folder:?} is not a folder"))
    }
}

fn threads(args: &Args) -> usize {
    match args.threads {
        Some(count) => count.into(),
        None => thread::available_parallelism().map_or(1, NonZeroUsize::get),
    }
}
