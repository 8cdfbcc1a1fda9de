//! The program around the rows: `ROW [--scale F] [--soak]` or `--list`.

use std::env;
use std::process::ExitCode;

use super::rows;
use super::setting::Setting;

const USAGE: &str = "usage: ROW [--scale F] [--soak] | --list";

enum Command {
    List,
    Run { row: String, scale: f64, soak: bool },
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
                    "--soak" => soak = true,
                    _ => return Err(format!("unknown argument {option}\n{USAGE}")),
                }
            }
            Command::Run {
                row: first,
                scale,
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
    println!("{}", outcome.line(name));
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
            Command::Run { row, scale, soak } => {
                let setting = Setting {
                    scale,
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
