//! A store for several tenants, each in a heap of its own: what one holds is known and bounded, a
//! tenant that is full is refused while all others go on, and one that leaves is gone at once.
//!
//! ```text
//! cargo run --release --example tenants -- --demo 100000
//! printf 'a color red\nb size 7\nlist\ndrop a\n' | cargo run --release --example tenants
//! ```
//!
//! A line is `TENANT KEY VALUE`, where the value may have spaces and replaces what the key had,
//! `drop TENANT`, or `list`.
//!
//! Exit code: 0, or 1 if a line made no sense or the input cannot be read, 2 for a bad command
//! line, 130 after Ctrl-C. To refuse a tenant that is full is no failure.

use std::process::ExitCode;

use clap::Parser;
use flagstone::Flagstone;

#[path = "../common/mod.rs"]
mod common;
mod input;
mod report;
mod store;
mod tenant;

use common::{interrupt, say};
use input::{Line, Lines};
use store::Store;

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

/// The name before every message on stderr.
const PROGRAM: &str = "tenants";

/// Keep keys and values of several tenants, each in a heap with a limit.
#[derive(Parser)]
#[command(name = PROGRAM)]
struct Args {
    /// Make up N lines instead of reading them from stdin
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    demo: Option<u64>,
    /// Most memory of one tenant, in KiB
    #[arg(long, value_name = "KIB", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(16..=1 << 20))]
    limit: u32,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = interrupt::install() {
        say::line(PROGRAM, format_args!("Ctrl-C will not be handled: {error}"));
    }
    let lines = match args.demo {
        Some(count) => Ok(Lines::made_up(count)),
        None => Lines::of_stdin(),
    };
    match lines {
        Ok(lines) => run(lines, Store::new((args.limit as usize) << 10)),
        Err(error) => {
            say::line(PROGRAM, format_args!("cannot start a thread: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(lines: Lines, mut store: Store) -> ExitCode {
    let mut failed = false;
    for (number, line) in (1_u64..).zip(lines) {
        if let Err(message) = line.and_then(|line| obey(&mut store, &line)) {
            say::line(PROGRAM, format_args!("line {number}: {message}"));
            failed = true;
        }
    }
    report::table(&store.rows());
    if interrupt::requested() {
        say::line(PROGRAM, format_args!("interrupted"));
        return ExitCode::from(interrupt::EXIT_CODE);
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Does what a line says. An `Err` is a line that makes no sense.
fn obey(store: &mut Store, text: &str) -> Result<(), String> {
    match input::parse(text)? {
        Line::Nothing => {}
        Line::Put { tenant, key, value } => store.put(tenant, key, value)?,
        Line::Drop(tenant) => {
            let row = store.drop(tenant)?;
            report::dropped(&row);
        }
        Line::List => report::table(&store.rows()),
    }
    Ok(())
}
