//! The program around the rows: `ROW [--scale F] [--slices N] [--soak]` or `--list`.

use std::env;
use std::process::ExitCode;

use super::meter::MOST_SLICES;
use super::rows;
use super::rss::Resident;
use super::setting::Setting;

const USAGE: &str = "usage: ROW [--scale F] [--slices N] [--soak] | --list";

enum Command {
    List,
    Run {
        row: String,
        scale: f64,
        slices: Option<usize>,
        soak: bool,
    },
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Command, String> {
    let first = args.next().ok_or(USAGE)?;
    let command = match first.as_str() {
        "--list" => Command::List,
        option if option.starts_with('-') => {
            return Err(format!("unknown option {option}\n{USAGE}"));
        }
        _ => {
            let mut scale = 1.0;
            let mut slices = None;
            let mut soak = false;
            while let Some(option) = args.next() {
                match option.as_str() {
                    "--scale" => {
                        let value = args.next().ok_or("--scale needs a number")?;
                        scale = value
                            .parse()
                            .ok()
                            .filter(|scale: &f64| scale.is_finite() && *scale > 0.0)
                            .ok_or_else(|| format!("--scale: {value} is not a positive number"))?;
                    }
                    "--slices" => {
                        let value = args.next().ok_or("--slices needs a number")?;
                        let number = value
                            .parse()
                            .ok()
                            .filter(|slices| (1..=MOST_SLICES).contains(slices));
                        slices = Some(number.ok_or_else(|| {
                            format!("--slices: {value} is not between 1 and {MOST_SLICES}")
                        })?);
                    }
                    "--soak" => soak = true,
                    _ => return Err(format!("unknown argument {option}\n{USAGE}")),
                }
            }
            Command::Run {
                row: first,
                scale,
                slices,
                soak,
            }
        }
    };
    match args.next() {
        None => Ok(command),
        Some(extra) => Err(format!("unexpected argument {extra}\n{USAGE}")),
    }
}

fn run(name: &str, setting: &Setting) -> Result<(), String> {
    let row = rows::all()
        .find(|row| row.name == name)
        .ok_or_else(|| format!("no row named {name}; --list names them"))?;
    let outcome = row.run(setting)?;
    // Reading it takes more or fewer instructions from run to run: not where they are counted.
    let peak = setting
        .slices
        .is_none()
        .then(Resident::read)
        .and_then(Result::ok);
    println!("{}", outcome.line(name, peak));
    Ok(())
}

/// The whole of an allocator's program. `purge` makes it return what memory it can; `locks`, of one that
/// counts them, tells all locks taken and those that it had to wait for.
pub fn main(purge: fn(), locks: Option<fn() -> (usize, usize)>) -> ExitCode {
    let done = parse(env::args().skip(1)).and_then(|command| {
        match command {
            Command::List => {
                rows::all().for_each(|row| println!("{}\t{}\t{}", row.name, row.kind(), row.about));
            }
            Command::Run {
                row,
                scale,
                slices,
                soak,
            } => {
                let setting = Setting {
                    scale,
                    slices,
                    soak,
                    purge,
                    locks,
                };
                run(&row, &setting)?;
            }
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
