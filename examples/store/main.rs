//! Keys and values in a file that is a heap. Several of these programs may use it at once, each may be killed at any
//! time (`kill -9`), and what was set is there for the next.
//!
//! ```text
//! cargo run --release --example store -- /tmp/ages set Ada 36
//! cargo run --release --example store -- /tmp/ages get Ada
//! cargo run --release --example store -- /tmp/ages fill 1000000   # kill it, then:
//! cargo run --release --example store -- /tmp/ages check -v
//! ```
//!
//! The pattern is for whatever must outlive a kill:
//!
//! 1. The *truth* is a chain of records. Each is a block of its own, whole before anybody can find it, and never changed.
//! 2. What changes the truth is *one store* of eight bytes: the word that leads to a record leads to another, or past it.
//!    A kill loses the block that was on its way, and nothing else.
//! 3. A `Map` is torn by a kill in the midst of a change. So it is an *index*, which is made from the truth: anew when
//!    the mutex says `Abandoned` (its holder was killed), or the map says that it is torn.
//! 4. A new index is built aside, and published by one store, too: a kill meanwhile does no harm.
//!
//! `records.rs` has it. When the machine went down, too, parts of the file may be older than others. It is opened with
//! `--may-be-dirty` alone then, which looks at all records by their sums, and keeps those that are whole. As that may be
//! killed, too, the state has the name of the machine's start in which it was last known to be whole.
//!
//! A store that is made with `--durable` is a `Committed` heap instead:
//!
//! ```text
//! cargo run --release --example store -- /var/tmp/ages --durable set Ada 36
//! printf 'set\tBob\t41\ndelete\tAda\n' | cargo run --release --example store -- /var/tmp/ages batch
//! cargo run --release --example store -- /var/tmp/torn torture 10
//! ```
//!
//! It is one process's at a time, and others find `InUse`. What was committed is there also after the loss of power, and
//! what was not is not: there is nothing to mend, so that 1. to 4. are not needed. They do no harm, and the records are the
//! same. `session.rs` has the commits, `batch.rs` the changes that come together, and `torture.rs` kills such a program at
//! random, and looks for what is lost.
//!
//! Exit code: 0; 1 if a key is not there or something failed; 2 for a bad command line or a path that is no store's, or
//! none for what was asked; 130 after Ctrl-C.

use core::time::Duration;
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use flagstone::Flagstone;
use flagstone::mapped::Mutex;

mod batch;
#[expect(dead_code, reason = "the examples do not need all of it")]
#[path = "../common/mod.rs"]
mod common;
mod load;
#[path = "../common/mapped.rs"]
mod mapped;
mod records;
mod session;
mod torture;

use common::{human, interrupt, say};
use records::Records;
use session::{Failure, Session, Wanted};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

/// The name before every message on stderr.
const PROGRAM: &str = "store";

/// Keep keys and values in a file that several processes use at once, or that survives the loss of power.
#[derive(Parser)]
#[command(name = PROGRAM)]
struct Args {
    /// The file
    path: PathBuf,
    #[command(subcommand)]
    command: Command,
    /// Bytes that a new store can have, such as 64M or 2G: they take room on the disk where they are used
    #[arg(long, global = true, value_name = "SIZE", default_value = "1G", value_parser = mapped::capacity)]
    capacity: usize,
    /// Make a new store one whose changes are on the disk before the program ends, and that one process uses at a time
    #[arg(long, global = true)]
    durable: bool,
    /// How long to wait for a durable store that another process has
    #[arg(long, global = true, value_name = "SECONDS", default_value = "0")]
    wait: u32,
    /// Open a store that was in use when the machine went down, check it, and keep what is whole
    #[arg(long, global = true)]
    may_be_dirty: bool,
    /// Say on stderr how the store was found, and what was committed
    #[arg(short, long, global = true)]
    verbose: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Give a key a value
    Set {
        #[arg(value_parser = key)]
        key: String,
        #[arg(value_parser = value, allow_hyphen_values = true)]
        value: String,
    },
    /// Print the value of a key
    Get { key: String },
    /// Remove a key
    Delete { key: String },
    /// Print all keys and values, or those whose keys begin so
    List {
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Print how many keys there are
    Count,
    /// Set what the lines KEY<TAB>VALUE of a file say
    Load {
        file: PathBuf,
        #[command(flatten)]
        batch: BatchSize,
    },
    /// Set N random keys: to be killed meanwhile
    Fill {
        #[arg(value_name = "N")]
        count: u64,
        #[command(flatten)]
        batch: BatchSize,
    },
    /// Do all that the lines on stdin say, set<TAB>KEY<TAB>VALUE and delete<TAB>KEY, or nothing of it; in durable stores
    Batch,
    /// Look at the heap, all records and the index
    Check,
    /// Make a durable store, kill who changes it at random moments, and see that nothing is lost
    Torture {
        #[arg(default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
    },
    /// What is killed: changes a store for ever, and prints the number of each batch that is committed
    #[command(hide = true)]
    Victim { seed: u64 },
}

#[derive(clap::Args)]
struct BatchSize {
    /// Records of each commit of a durable store [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    batch: Option<u64>,
}

impl Command {
    /// Whether a store is to be made if there is none.
    fn makes_a_store(&self) -> bool {
        use Command::{Batch, Fill, Load, Set, Victim};
        matches!(
            self,
            Set { .. } | Load { .. } | Fill { .. } | Batch | Victim { .. }
        )
    }

    /// Whether it is for durable stores alone.
    fn needs_commits(&self) -> bool {
        matches!(self, Self::Batch | Self::Victim { .. })
    }
}

/// A key of the command line: what `list` prints is what `load` reads.
pub(crate) fn key(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['\t', '\n']) {
        return Err("a key has at least one character, no tab and no end of line".into());
    }
    Ok(text.into())
}

fn value(text: &str) -> Result<String, String> {
    if text.contains('\n') {
        return Err("a value has no end of line".into());
    }
    Ok(text.into())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut input = Vec::new();
    if matches!(args.command, Command::Batch) {
        // Before the store is opened, as who writes it may have the store. Ctrl-C ends the program here, which has nothing yet.
        if let Err(error) = io::stdin().read_to_end(&mut input) {
            say::line(PROGRAM, format_args!("cannot read: {error}"));
            return ExitCode::FAILURE;
        }
    }
    if let Err(error) = interrupt::install() {
        say::line(PROGRAM, format_args!("Ctrl-C will not be handled: {error}"));
    }
    let done = match args.command {
        Command::Torture { seconds } => torture::run(&args, seconds),
        _ => in_session(&args, &input),
    };
    let Err(failure) = done else {
        return ExitCode::SUCCESS;
    };
    let (code, message) = match failure {
        Failure::NotThere(key) => (1, format!("there is no key {key:?}")),
        Failure::Interrupted => (interrupt::EXIT_CODE, "interrupted".into()),
        Failure::Unfit(message) => (2, format!("{}: {message}", args.path.display())),
        Failure::Other(message) => (1, message),
    };
    say::line(PROGRAM, format_args!("{message}"));
    ExitCode::from(code)
}

fn in_session(args: &Args, input: &[u8]) -> Result<(), Failure> {
    let mut session = Session::open(Wanted {
        path: &args.path,
        capacity: args.command.makes_a_store().then_some(args.capacity),
        is_durable: args.durable || args.command.needs_commits(),
        may_be_dirty: args.may_be_dirty,
        patience: Duration::from_secs(args.wait.into()),
        is_verbose: args.verbose,
    })?;
    let done = obey(&mut session, args, input);
    // In order, so that the next finds the file clean. Before anything is printed, as who reads that may be slow, or be about
    // to open the store.
    let closed = session.close().map_err(|error| {
        let why = mapped::why(error);
        Failure::Other(format!("the store cannot be closed: {why}"))
    });
    done.and_then(print).and(closed)
}

/// What is to be printed.
fn obey(session: &mut Session, args: &Args, input: &[u8]) -> Result<Vec<String>, Failure> {
    let done = match &args.command {
        Command::Set { key, value } => session
            .with(|records| records.set(key, value))
            .and_then(|()| session.commit()),
        Command::Get { key } => {
            let value = session.with(|records| Ok(records.get(key)?.map(String::from)))?;
            return Ok(vec![value.ok_or_else(|| Failure::NotThere(key.clone()))?]);
        }
        Command::Delete { key } => {
            let was_there = session.with(|records| records.delete(key))?;
            session.commit()?;
            was_there
                .then_some(())
                .ok_or_else(|| Failure::NotThere(key.clone()))
        }
        Command::List { prefix } => {
            let mut lines = session.with(|records| lines(records, prefix))?;
            lines.sort_unstable();
            return Ok(lines);
        }
        Command::Count => return Ok(vec![session.with(|records| records.count())?.to_string()]),
        Command::Load { file, batch } => load::file(session, args, file, batch.batch),
        Command::Fill { count, batch } => load::fill(session, args, *count, batch.batch),
        Command::Batch => batch::run(session, input, args.verbose),
        Command::Check => return Ok(vec![check(session)?]),
        Command::Victim { seed } => torture::suffer(session, *seed),
        Command::Torture { .. } => Ok(()),
    };
    done.map(|()| Vec::new())
}

fn lines(records: &Records<'_>, prefix: &str) -> Result<Vec<String>, flagstone::MappedError> {
    let mut lines = Vec::new();
    records.each(|key, value| {
        if key.starts_with(prefix) {
            lines.push(format!("{key}\t{value}"));
        }
    })?;
    Ok(lines)
}

fn check(session: &Session) -> Result<String, Failure> {
    let stats = session.heap().stats();
    let verified = session.heap().verify();
    verified.map_err(|error| Failure::Other(format!("the heap: {}", mapped::why(error))))?;
    let records = session
        .with(|records| Ok(records.check()))?
        .map_err(Failure::Other)?;
    let kind = if session.is_durable() {
        ", durable"
    } else {
        ""
    };
    Ok(format!(
        "{records} records, all whole; {} in use of {}{kind}",
        human::bytes(stats.live),
        human::bytes(stats.capacity)
    ))
}

/// Prints lines to stdout. A reader that has gone away is no failure.
fn print(lines: impl IntoIterator<Item = String>) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = lines
        .into_iter()
        .try_for_each(|line| writeln!(out, "{line}"));
    written = written.and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Other(format!("cannot write: {error}")))
        }
        _ => Ok(()),
    }
}

/// How long a wait for the lock lasts before the program looks whether Ctrl-C was pressed.
pub(crate) const PATIENCE: Duration = Duration::from_millis(200);

/// What has the name in the heap.
pub(crate) type Root = Mutex<records::State>;
