//! Stores of keys and values beside one another: a map in a heap in a file, redb, LMDB and SQLite.

mod cells;
mod disk;
mod driver;
mod report;
mod store;
mod stores;
mod workload;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use serde_json::json;

use cells::Cell;
use driver::Plan;
use report::Report;
use store::Failure;

/// Entries of stores of a gigabyte: ten million values of 100 bytes.
const BIG: u64 = 10_000_000;

/// A store, by its name.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Values in the table of a map
    Flagstone,
    /// Values in blocks of their own, by name alone
    FlagstoneBoxed,
    Redb,
    Lmdb,
    Sqlite,
}

impl Name {
    fn as_str(self) -> &'static str {
        match self {
            Self::Flagstone => "flagstone",
            Self::FlagstoneBoxed => "flagstone-boxed",
            Self::Redb => "redb",
            Self::Lmdb => "lmdb",
            Self::Sqlite => "sqlite",
        }
    }
}

/// Runs each store in turn, and prints medians, the spread, and how many times as good flagstone's are.
#[derive(Parser)]
struct Args {
    /// Entries that a store is loaded with
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    entries: u64,
    /// Repetitions of each cell
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    reps: u64,
    /// The folder that the stores lie in, on a disk
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    folder: PathBuf,
    /// Only these, and flagstone, which comes first
    #[arg(long, value_name = "STORES", value_delimiter = ',', default_values = ["redb", "lmdb", "sqlite"])]
    only: Vec<Name>,
    /// Open stores of a gigabyte, not of as many entries as the others have
    #[arg(long)]
    big: bool,
    /// Look at all that a store holds, after each change
    #[arg(long)]
    check: bool,
    /// Write what was measured to this file
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    #[command(subcommand)]
    cell: Option<Cell>,
}

fn measure(args: &Args) -> Result<ExitCode, Failure> {
    let mount = disk::mount(&args.folder)?;
    driver::catch_interrupts()?;
    let folder = driver::folder_in(&args.folder)?;
    let page_time = disk::page_time(folder.path())?;
    let mut stores = vec![Name::Flagstone];
    for store in &args.only {
        if !stores.contains(store) {
            stores.push(*store);
        }
    }
    let plan = Plan {
        reps: args.reps,
        entries: args.entries,
        opened: if args.big { BIG } else { args.entries },
        check: args.check,
        folder: folder.path().into(),
        stores,
    };
    println!(
        "{} ({} on {}): a page that is written and waited for takes {page_time:.0} us",
        args.folder.display(),
        mount.kind,
        mount.source
    );
    println!(
        "{} entries, {} in stores that are opened; medians of {}, least .. most, times",
        plan.entries, plan.opened, plan.reps
    );
    let mut report = Report::new(&plan.stores);
    let done = driver::measure(&plan, &mut report);
    println!("{report}");
    let is_interrupted = driver::is_interrupted();
    if let Some(out) = &args.json {
        let all = json!({
            "entries": plan.entries,
            "opened": plan.opened,
            "reps": plan.reps,
            "filesystem": mount.kind,
            "device": mount.source,
            "page_us": page_time,
            "interrupted": is_interrupted,
            "rows": report.to_json(),
        });
        fs::write(out, all.to_string())?;
    }
    folder.close()?;
    done?;
    Ok(match is_interrupted {
        // As a shell has it for SIGINT.
        true => ExitCode::from(130),
        false => ExitCode::SUCCESS,
    })
}

fn run_cell(cell: &Cell) -> Result<ExitCode, Failure> {
    // It ends with who started it.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    cell.run()?;
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.cell {
        Some(cell) => run_cell(cell),
        None => measure(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("stores: {error}");
        ExitCode::FAILURE
    })
}
