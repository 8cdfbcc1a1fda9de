//! `trace pack RAW OUT` and `trace info FILE`.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use trace::{Summary, Trace};

/// Packs recordings of allocations and says what is in them.
///
/// A recording is made by running a program whose global allocator is `trace::Recorder` with the
/// environment variable ALLOC_TRACE naming a file that does not exist yet.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check a raw recording and write it in compact form.
    Pack {
        /// What ALLOC_TRACE named.
        raw: PathBuf,
        /// The file to write.
        out: PathBuf,
        /// Pack only so many operations from the beginning; what follows is not looked at.
        #[arg(long, value_name = "N")]
        first: Option<u64>,
    },
    /// Print counts, live bytes, sizes and threads of a packed trace.
    Info {
        /// A packed trace.
        file: PathBuf,
    },
}

fn pack(raw: &Path, out: &Path, first: Option<u64>) -> Result<(), Box<dyn Error>> {
    let at = |error: &dyn Error, path: &Path| format!("{}: {error}", path.display());
    let input = File::open(raw).map_err(|error| at(&error, raw))?;
    let packed = trace::pack(BufReader::new(input), first).map_err(|error| at(&error, raw))?;
    // Read back before it is written: what is written can be replayed.
    let trace = Trace::from_bytes(&packed).map_err(|error| at(&error, out))?;
    fs::write(out, &packed).map_err(|error| at(&error, out))?;
    let ops = trace.ops().len();
    writeln!(io::stdout(), "{ops} operations, {} bytes", packed.len())?;
    Ok(())
}

fn info(file: &Path) -> Result<(), Box<dyn Error>> {
    let trace = Trace::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
    write!(io::stdout(), "{}", Summary::of(&trace))?;
    Ok(())
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Pack { raw, out, first } => pack(&raw, &out, first),
        Command::Info { file } => info(&file),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trace: {error}");
            ExitCode::FAILURE
        }
    }
}
