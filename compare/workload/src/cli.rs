//! The program around the rows: `ROW [OPTION...]` or `--list`.

use std::env;
use std::process::ExitCode;
use std::str::FromStr;

use super::meter::MOST_SLICES;
use super::rows;
use super::rss::Resident;
use super::setting::{Extent, Setting};
use super::small_pages;

const USAGE: &str = "usage: ROW [--scale F] [--slices N] [--soak] [--small-pages]
       [--bytes N] [--calls] [--settle] | --list";

enum Command {
    List,
    Run(Run),
}

struct Run {
    row: String,
    scale: f64,
    slices: Option<usize>,
    soak: bool,
    small_pages: bool,
    extent: Extent,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Command, String> {
    let first = args.next().ok_or(USAGE)?;
    match first.as_str() {
        "--list" => match args.next() {
            None => Ok(Command::List),
            Some(extra) => Err(format!("unexpected argument {extra}\n{USAGE}")),
        },
        option if option.starts_with('-') => Err(format!("unknown option {option}\n{USAGE}")),
        _ => options(first, args).map(Command::Run),
    }
}

fn options(row: String, mut args: impl Iterator<Item = String>) -> Result<Run, String> {
    let mut run = Run {
        row,
        scale: 1.0,
        slices: None,
        soak: false,
        small_pages: false,
        extent: Extent::default(),
    };
    while let Some(option) = args.next() {
        let mut value = || {
            args.next()
                .ok_or_else(|| format!("{option} needs a number"))
        };
        match option.as_str() {
            "--scale" => {
                run.scale = number(&option, &value()?, "a positive number", |scale: &f64| {
                    scale.is_finite() && *scale > 0.0
                })?;
            }
            "--slices" => {
                let range = format!("between 1 and {MOST_SLICES}");
                let slices = number(&option, &value()?, &range, |slices| {
                    (1..=MOST_SLICES).contains(slices)
                })?;
                run.slices = Some(slices);
            }
            "--bytes" => {
                run.extent.bytes = number(&option, &value()?, "1 MiB or more", |bytes| {
                    *bytes >= 1 << 20
                })?;
            }
            "--soak" => run.soak = true,
            "--small-pages" => run.small_pages = true,
            "--calls" => run.extent.calls = true,
            "--settle" => run.extent.settle = true,
            _ => return Err(format!("unknown argument {option}\n{USAGE}")),
        }
    }
    Ok(run)
}

fn number<T: FromStr>(
    option: &str,
    text: &str,
    range: &str,
    is_right: impl FnOnce(&T) -> bool,
) -> Result<T, String> {
    let number = text.parse().ok().filter(is_right);
    number.ok_or_else(|| format!("{option}: {text} is not {range}"))
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
            Command::Run(told) => {
                if told.small_pages {
                    small_pages::only()?;
                }
                let setting = Setting {
                    scale: told.scale,
                    slices: told.slices,
                    soak: told.soak,
                    extent: told.extent,
                    purge,
                    locks,
                };
                run(&told.row, &setting)?;
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
