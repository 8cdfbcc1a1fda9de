//! The program around the rows: `ROW [--scale F]`, `--list` or `--memory`.

use std::env;
use std::process::ExitCode;

use super::memory::{self, MEMORY_ROWS};
use super::meter::Meter;
use super::rows::ROWS;
use super::rss::Resident;

const USAGE: &str = "usage: ROW [--scale F] | --list | --memory";

enum Command {
    ListTime,
    ListMemory,
    Run { row: String, scale: f64 },
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Command, String> {
    let first = args.next().ok_or(USAGE)?;
    let command = match first.as_str() {
        "--list" => Command::ListTime,
        "--memory" => Command::ListMemory,
        option if option.starts_with('-') => {
            return Err(format!("unknown option {option}\n{USAGE}"));
        }
        _ => {
            let mut scale = 1.0;
            if let Some(option) = args.next() {
                if option != "--scale" {
                    return Err(format!("unknown argument {option}\n{USAGE}"));
                }
                let value = args.next().ok_or("--scale needs a number")?;
                scale = value
                    .parse()
                    .ok()
                    .filter(|scale: &f64| scale.is_finite() && *scale > 0.0)
                    .ok_or_else(|| format!("--scale: {value} is not a positive number"))?;
            }
            Command::Run { row: first, scale }
        }
    };
    match args.next() {
        None => Ok(command),
        Some(extra) => Err(format!("unexpected argument {extra}\n{USAGE}")),
    }
}

fn run(row: &str, scale: f64, purge: fn()) -> Result<(), String> {
    if let Some(row) = ROWS.iter().find(|candidate| candidate.name == row) {
        let reading = (row.run)(&Meter::new(scale));
        let peak = Resident::read().map_or(0, |resident| resident.peak_kb);
        println!(
            "{}\t{:.5}\t{:016x}\t{peak}",
            row.name, reading.ns_per_op, reading.checksum
        );
        return Ok(());
    }
    if let Some(row) = MEMORY_ROWS.iter().find(|candidate| candidate.name == row) {
        return memory::run(row, scale, purge);
    }
    Err(format!("no row named {row}; --list and --memory name them"))
}

/// The whole of an allocator's program. `purge` makes it return what memory it can.
pub fn main(purge: fn()) -> ExitCode {
    let done = parse(env::args().skip(1)).and_then(|command| {
        match command {
            Command::ListTime => {
                ROWS.iter()
                    .for_each(|row| println!("{}\t{}", row.name, row.about));
            }
            Command::ListMemory => {
                MEMORY_ROWS
                    .iter()
                    .for_each(|row| println!("{}\t{}", row.name, row.about));
            }
            Command::Run { row, scale } => run(&row, scale, purge)?,
        }
        Ok(())
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
