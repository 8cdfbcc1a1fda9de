//! Sorts more text than there is memory for, in a heap that spills to the disk: the kernel writes what does not fit, and
//! a run at a time is sorted in memory.
//!
//! ```text
//! cargo run --release --example spill -- --generate 2G --output sorted --check
//! cargo run --release --example spill -- src/lib.rs README.md | head -3
//! systemd-run --user --scope -p MemoryMax=128M target/release/examples/spill --generate 2G --check > /dev/null
//! ```
//!
//! Lines are compared by their bytes, as by `LC_ALL=C sort`. What the sort took is said on stderr at the end. In a
//! control group the resident size stays below the group's limit, and the sort still ends.
//!
//! Exit code: 0; 1 if something failed, such as a full disk; 2 for a bad command line, a file or a folder that cannot be
//! used; 130 after Ctrl-C.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use flagstone::{Flagstone, Mapped, MappedError};

#[expect(dead_code, reason = "the examples do not need all of it")]
#[path = "../common/mod.rs"]
mod common;
mod input;
#[path = "../common/mapped.rs"]
mod mapped;
mod runs;

use common::{human, interrupt, rss, say};
use input::Input;
use mapped::{bar, bytes_of, why};
use runs::{Merge, Sorter};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

/// The name before every message on stderr.
const PROGRAM: &str = "spill";

/// Room for text of unknown length: addresses, which take room on the disk where they are used.
const UNKNOWN: u64 = 64 << 30;

/// After so many lines the bar moves, and the program looks whether Ctrl-C was pressed.
const STEP: u64 = 4096;

/// Sort the lines of files that are larger than memory.
#[derive(Parser)]
#[command(name = PROGRAM)]
struct Args {
    /// Files with the lines
    #[arg(required_unless_present = "generate", conflicts_with = "generate")]
    files: Vec<PathBuf>,
    /// Make up lines of so many bytes instead, such as 500M or 2G
    #[arg(long, value_name = "SIZE", value_parser = mapped::size)]
    generate: Option<usize>,
    /// Which lines are made up
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Folder on the disk that has room for all
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
    /// Bytes that the heap can have [default: what the files need; 64G for pipes]
    #[arg(long, value_name = "SIZE", value_parser = mapped::capacity)]
    capacity: Option<usize>,
    /// Bytes of text that are sorted at once: memory for twice as many should be free
    #[arg(long, value_name = "SIZE", default_value = "32M", value_parser = run_size)]
    run: usize,
    /// File for the sorted lines [default: stdout]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// See that each line comes behind the one before it, and that none is lost
    #[arg(long)]
    check: bool,
}

fn run_size(text: &str) -> Result<usize, String> {
    let bytes = mapped::size(text)?;
    if (4096..=1 << 30).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("from 4K to 1G".into())
    }
}

/// Why the lines were not sorted.
enum Failure {
    /// What was asked for cannot be.
    Refused(String),
    NoRoom,
    Interrupted,
    /// Who read the lines has gone.
    NoReader,
    Other(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Other(message)
    }
}

impl From<MappedError> for Failure {
    fn from(error: MappedError) -> Self {
        match error {
            MappedError::NoSpace => Self::NoRoom,
            error => Self::Other(why(error)),
        }
    }
}

/// What was read or written: two of them are equal if no line is lost, as good as surely.
#[derive(Default, PartialEq)]
struct Tally {
    lines: u64,
    bytes: u64,
    sum: u64,
}

impl Tally {
    /// Counts a line without its end.
    fn note(&mut self, line: &[u8]) {
        let hash = line.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        self.lines += 1;
        self.bytes += line.len() as u64 + 1;
        // In any order.
        self.sum = self.sum.wrapping_add(hash);
    }

    fn is_time_to_look(&self) -> bool {
        self.lines.is_multiple_of(STEP)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = interrupt::install() {
        say::line(PROGRAM, format_args!("Ctrl-C will not be handled: {error}"));
    }
    let (code, message) = match run(&args) {
        Ok(()) | Err(Failure::NoReader) => return ExitCode::SUCCESS,
        Err(Failure::Refused(message)) => (2, message),
        Err(Failure::NoRoom) => {
            let folder = args.folder.display();
            (
                1,
                format!("no room: the heap's capacity is used up, or the disk of {folder} is full"),
            )
        }
        Err(Failure::Interrupted) => (interrupt::EXIT_CODE, "interrupted".into()),
        Err(Failure::Other(message)) => (1, message),
    };
    say::line(PROGRAM, format_args!("{message}"));
    ExitCode::from(code)
}

fn run(args: &Args) -> Result<(), Failure> {
    let input = match args.generate {
        Some(bytes) => Input::MadeUp {
            bytes: bytes as u64,
            seed: args.seed,
        },
        None => Input::Files(&args.files),
    };
    let length = input.length().map_err(Failure::Refused)?;
    let heap = heap(args, length)?;
    let mut sorter = Sorter::new(&heap, args.run)?;
    let mut read = Tally::default();
    let progress = bar(length.unwrap_or(0), true).with_message("read");
    input.each(|line| {
        sorter.push(line)?;
        read.note(line);
        if read.is_time_to_look() {
            progress.set_position(read.bytes);
            if interrupt::requested() {
                return Err(Failure::Interrupted);
            }
        }
        Ok(())
    })?;
    progress.finish_and_clear();
    let held = heap.stats().held;
    let mut merge = sorter.merge()?;
    let written = match &args.output {
        // Made when all is read: it may be one of the files that were sorted.
        Some(path) => {
            let refuse = |error| Failure::Other(format!("{}: {error}", path.display()));
            write(
                &mut merge,
                File::create(path).map_err(refuse)?,
                &read,
                args.check,
            )?
        }
        None => write(&mut merge, io::stdout().lock(), &read, args.check)?,
    };
    if args.check && written != read {
        return Err(Failure::Other("lines are lost".into()));
    }
    report(&written, merge.runs(), held, args.check);
    Ok(())
}

/// The heap, in a file of this folder that has no name.
fn heap(args: &Args, length: Option<u64>) -> Result<Mapped, Failure> {
    let capacity = args.capacity.map_or_else(
        || {
            // The text, once more at most for what is left at the ends of blocks, and the run that is being filled.
            let bytes = length.unwrap_or(UNKNOWN).checked_mul(2)?;
            let bytes = bytes.checked_add(4 * args.run as u64 + (64 << 20))?;
            usize::try_from(bytes)
                .ok()?
                .checked_next_multiple_of(64 << 10)
        },
        Some,
    );
    let capacity = capacity.ok_or_else(|| Failure::Refused("too much".into()))?;
    let options = Mapped::options().capacity(capacity);
    options.spill(bytes_of(&args.folder)).map_err(|error| {
        let folder = args.folder.display();
        match error {
            MappedError::NoSpace => Failure::NoRoom,
            MappedError::NotFound => Failure::Refused(format!("{folder}: there is no such folder")),
            MappedError::Capacity => {
                let bytes = human::bytes(capacity);
                Failure::Refused(format!("a heap cannot have {bytes}"))
            }
            error => Failure::Refused(format!("{folder}: {}", why(error))),
        }
    })
}

/// Writes all lines in order.
fn write(
    merge: &mut Merge,
    out: impl Write,
    read: &Tally,
    is_checked: bool,
) -> Result<Tally, Failure> {
    let refuse = |error: io::Error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::NoReader,
        _ => Failure::Other(format!("cannot write: {error}")),
    };
    let mut out = BufWriter::with_capacity(1 << 16, out);
    let mut written = Tally::default();
    let mut last = Vec::new();
    let progress = bar(read.bytes, true);
    loop {
        let is_there = merge.next(|line| {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            if is_checked {
                if written.lines > 0 && *last > *text {
                    return Err(Failure::Other(format!(
                        "line {} is out of order",
                        written.lines
                    )));
                }
                last.clear();
                last.extend_from_slice(text);
            }
            written.note(text);
            out.write_all(line).map_err(refuse)
        })?;
        if !is_there {
            break;
        }
        if written.is_time_to_look() {
            progress.set_position(written.bytes);
            if interrupt::requested() {
                return Err(Failure::Interrupted);
            }
        }
    }
    out.flush().map_err(refuse)?;
    progress.finish_and_clear();
    Ok(written)
}

fn report(written: &Tally, runs: usize, held: usize, is_checked: bool) {
    let bytes = |count: Option<usize>| count.map_or_else(|| "?".into(), human::bytes);
    let text = human::bytes(usize::try_from(written.bytes).unwrap_or(usize::MAX));
    let lines = written.lines;
    let checked = if is_checked { ", in order" } else { "" };
    let status = |name| bytes(rss::field("/proc/self/status", name));
    let (peak, own) = (status("VmHWM:"), status("RssAnon:"));
    let held = human::bytes(held);
    say::line(
        PROGRAM,
        format_args!("{lines} lines, {text} in {runs} runs{checked}"),
    );
    say::line(
        PROGRAM,
        format_args!(
            "the heap had {held}; resident were {peak} at most, with pages that the kernel can \
         take at any time; of the program itself {own} are"
        ),
    );
}
