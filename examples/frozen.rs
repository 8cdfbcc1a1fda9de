//! A table that is built once, and read by many programs: the heap that it lies in is frozen, so that nobody can change it
//! any more, and its memory is there once, however many read it.
//!
//! ```text
//! cargo run --release --example frozen -- --mib 100 --readers 8
//! ```
//!
//! The readers are this program again, which find the heap by a descriptor that they inherit. `Rss` counts the memory
//! that a process has at hand, `Pss` its share of it: where N programs have the same memory, each counts an N-th.
//!
//! Exit code: 0; 1 if something failed; 2 for a bad command line; 130 after Ctrl-C.

use core::ffi::c_int;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::{env, process};

use clap::Parser;
use flagstone::mapped::{Mutex, Vec as MappedVec};
use flagstone::{Flagstone, Mapped, MappedError};

#[expect(dead_code, reason = "the examples do not need all of it")]
#[path = "common/mod.rs"]
mod common;
#[expect(dead_code, reason = "as above")]
#[path = "common/mapped.rs"]
mod mapped;

use common::{human, interrupt, rss, say};
use mapped::{bar, why};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

/// The name before every message on stderr.
const PROGRAM: &str = "frozen";

/// What a reader says when it has looked everything up.
const DONE: &str = "done";

/// Build a table, freeze it, and have other programs read it.
#[derive(Parser)]
#[command(name = PROGRAM)]
struct Args {
    /// Size of the table in MiB
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    mib: u32,
    /// Programs that read it
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100))]
    readers: u32,
    /// Keys that each of them looks up
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    lookups: u32,
    /// Be a reader, and find the heap by this descriptor
    #[arg(long, value_name = "NUMBER", hide = true, value_parser = clap::value_parser!(c_int).range(3..))]
    descriptor: Option<c_int>,
}

flagstone::persist! {
    struct Entry {
        key: u64,
        value: u64,
    }
}

flagstone::persist! {
    /// Sorted by key, for binary search.
    struct Table {
        entries: MappedVec<Entry>,
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.descriptor {
        Some(descriptor) => read(descriptor, args.lookups),
        None => {
            if let Err(error) = interrupt::install() {
                say::line(PROGRAM, format_args!("Ctrl-C will not be handled: {error}"));
            }
            build_and_share(&args)
        }
    };
    if interrupt::requested() {
        say::line(PROGRAM, format_args!("interrupted"));
        return ExitCode::from(interrupt::EXIT_CODE);
    }
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            say::line(PROGRAM, format_args!("{message}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints a line. A reader that has gone away is no failure.
fn print(line: &str) -> Result<(), String> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write: {error}"))
        }
        _ => Ok(()),
    }
}

/// The key of a value: SplitMix64's function, by which no two are the same.
fn key_of(value: u64) -> u64 {
    let mixed = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Table {
    fn find(&self, key: u64) -> Option<u64> {
        let found = self.entries.binary_search_by_key(&key, |entry| entry.key);
        Some(self.entries[found.ok()?].value)
    }

    /// Looks up keys from all of it, and some that are not there.
    fn look_up(&self, count: u32, seed: u64) -> Result<(), String> {
        let length = self.entries.len() as u64;
        for number in 0..u64::from(count) {
            let value = key_of(seed.wrapping_add(number)) % (length + length / 8 + 1);
            let expected = (value < length).then_some(value);
            if self.find(key_of(value)) != expected {
                return Err(format!("the value of {:#x} is wrong", key_of(value)));
            }
        }
        Ok(())
    }
}

fn build_and_share(args: &Args) -> Result<(), String> {
    let (heap, table) = build(args.mib)?;
    // For the readers: the heap's own descriptor is closed when a program begins.
    // SAFETY: 1. the heap's, which stays open.
    let descriptor = unsafe { BorrowedFd::borrow_raw(heap.as_raw_fd()) };
    let descriptor = rustix::io::dup(descriptor).map_err(|error| error.to_string())?;
    // SAFETY: 1. this process has no other thread that changes what lies there, and this one does not any more.
    unsafe { heap.freeze() }.map_err(why)?;
    if heap.insert("more", Mutex::new(0_u32)).is_ok() {
        return Err("the heap is not frozen".into());
    }
    // This process reads it, too, and is one of those who share it.
    table.look_up(args.lookups, process::id().into())?;
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let mut readers = Vec::new();
    for _ in 0..args.readers {
        let mut command = Command::new(&program);
        command.args(["--descriptor", &descriptor.as_raw_fd().to_string()]);
        command.args(["--lookups", &args.lookups.to_string()]);
        readers.push(Reader::start(command)?);
    }
    for reader in &mut readers {
        reader.wait_until_done()?;
    }
    let (all, shares) = report(&readers)?;
    let bytes = human::bytes(table.entries.len() * size_of::<Entry>());
    print(&format!(
        "a table of {bytes}: the readers together have {} at hand, and {} is their share",
        human::bytes(all),
        human::bytes(shares)
    ))?;
    readers.into_iter().try_for_each(Reader::end)
}

/// A table of so many MiB, in a heap of its own.
fn build(mib: u32) -> Result<(Mapped, &'static Table), String> {
    let bytes = (mib as usize) << 20;
    let options = Mapped::options().name(PROGRAM);
    // As much again for the heap's own tables, which takes no memory before it is used.
    let heap = options
        .capacity(2 * bytes + (1 << 20))
        .create()
        .map_err(why)?;
    let count = bytes / size_of::<Entry>();
    let mut entries = MappedVec::new_in(heap.handle());
    let reserved = entries.try_reserve_exact(count);
    reserved.map_err(|_| why(MappedError::NoSpace))?;
    let progress = bar(count as u64, false);
    for value in 0..count as u64 {
        let key = key_of(value);
        entries.push(Entry { key, value });
        if value % (1 << 16) == 0 {
            progress.set_position(value);
            if interrupt::requested() {
                return Err("interrupted".into());
            }
        }
    }
    progress.finish_and_clear();
    entries.sort_unstable_by_key(|entry| entry.key);
    let table = heap.insert("table", Table { entries }).map_err(why)?;
    Ok((heap, table))
}

/// A program that reads the table, and waits until it has been looked at. It is killed when this is dropped.
struct Reader {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Reader {
    fn start(mut command: Command) -> Result<Self, String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn();
        let mut child = child.map_err(|error| format!("cannot start a reader: {error}"))?;
        let out = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Self { child, out })
    }

    fn wait_until_done(&mut self) -> Result<(), String> {
        let mut line = String::new();
        let read = self.out.read_line(&mut line);
        read.map_err(|error| error.to_string())?;
        let is_done = line.trim_end() == DONE;
        is_done
            .then_some(())
            .ok_or_else(|| "a reader failed".into())
    }

    fn end(mut self) -> Result<(), String> {
        drop(self.child.stdin.take());
        let status = self.child.wait().map_err(|error| error.to_string())?;
        status
            .success()
            .then_some(())
            .ok_or_else(|| "a reader failed".into())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // One that has ended has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prints what each process has at hand, and its share; the sums of the readers'.
fn report(readers: &[Reader]) -> Result<(usize, usize), String> {
    let mut sums = (0, 0);
    print("process          Rss        Pss")?;
    let own = [("builder", process::id())];
    let others = readers.iter().map(|reader| ("reader", reader.child.id()));
    for (who, number) in own.into_iter().chain(others) {
        let file = format!("/proc/{number}/smaps_rollup");
        let field = |name| rss::field(&file, name).ok_or_else(|| format!("{file} cannot be read"));
        let (all, share) = (field("Rss:")?, field("Pss:")?);
        print(&format!(
            "{who:7} {:>12} {:>10}",
            human::bytes(all),
            human::bytes(share)
        ))?;
        if who == "reader" {
            sums = (sums.0 + all, sums.1 + share);
        }
    }
    Ok(sums)
}

/// The other program.
fn read(descriptor: c_int, lookups: u32) -> Result<(), String> {
    // SAFETY: 1. the heap is frozen: nobody changes it.
    let heap = unsafe { Mapped::options().read_only(true).attach(descriptor) }.map_err(why)?;
    let table: &Table = heap.get("table").map_err(why)?.ok_or("there is no table")?;
    table.look_up(lookups, process::id().into())?;
    print(DONE)?;
    // Until the builder has seen what memory this takes, or is gone.
    let waited = io::stdin().read_to_end(&mut Vec::new());
    waited.map(drop).map_err(|error| error.to_string())
}
