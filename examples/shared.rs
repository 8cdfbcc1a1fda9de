//! Processes that count words together: each forked child has a part of the files, and builds a map in a
//! heap that all share. The parent reads the maps where they lie, and copies nothing.
//!
//! ```text
//! cargo run --release --example shared -- src docs
//! ```
//!
//! Exit code: 0, 1 if a child failed, 2 for a bad command line or a folder that is not there.

use std::collections::HashMap as StdMap;
use std::hash::RandomState;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{fs, io};

use clap::Parser;
use flagstone::allocator_api2::boxed::Box as MappedBox;
use flagstone::allocator_api2::vec::Vec as MappedVec;
use flagstone::{Flagstone, Handle, Mapped, MappedError};
use hashbrown::HashMap;
use walkdir::WalkDir;

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

/// Count the words of all files below folders, by several processes.
#[derive(Parser)]
#[command(name = "shared")]
struct Args {
    /// Processes that count
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    workers: u32,
    /// Folders, or files
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

/// Lies in the heap, with all that it leads to. `RandomState` is two numbers, which lie in the map.
type Words = HashMap<MappedVec<u8, Handle>, u64, RandomState, Handle>;

/// Room for the maps: addresses, of which the kernel gives memory where it is touched.
const CAPACITY: usize = 4 << 30;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(missing) = args.paths.iter().find(|path| !path.exists()) {
        eprintln!("shared: {} is not there", missing.display());
        return ExitCode::from(2);
    }
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("shared: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool, MappedError> {
    let files = args
        .paths
        .iter()
        .flat_map(WalkDir::new)
        .filter_map(Result::ok);
    let files: Vec<_> = files.filter(|entry| entry.file_type().is_file()).collect();
    let heap = Mapped::options()
        .name("words")
        .capacity(CAPACITY)
        .create()?;
    let mut children = Vec::new();
    for number in 0..args.workers {
        // SAFETY: this process has one thread, so the child may do whatever it could.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let own = files
                .iter()
                .skip(number as usize)
                .step_by(args.workers as usize);
            let done = count(&heap, number, own.map(|entry| entry.path().to_owned()));
            // Without the parent's destructors.
            // SAFETY: no preconditions.
            unsafe { libc::_exit(i32::from(done.is_err())) };
        }
        children.push(child);
    }
    let mut all_is_well = true;
    for child in children {
        let mut status = 0;
        // SAFETY: the status is writable.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        if waited != child || status != 0 {
            eprintln!("shared: a process failed (status {status:#x}); its words are missing");
            all_is_well = false;
        }
    }
    report(&heap, args.workers);
    Ok(all_is_well)
}

/// Where a process leaves its map.
fn name(number: u32) -> String {
    format!("words of process {number}")
}

/// Counts the words of some files in a map that the parent finds.
fn count(
    heap: &Mapped,
    number: u32,
    files: impl Iterator<Item = PathBuf>,
) -> Result<(), MappedError> {
    let handle = heap.handle();
    let mut words = Words::with_hasher_in(RandomState::new(), handle);
    for path in files {
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) => {
                eprintln!("shared: {}: {error}", path.display());
                continue;
            }
        };
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric();
        for word in text
            .split(|byte| !is_word(byte))
            .filter(|word| word.len() > 3)
        {
            let mut key = MappedVec::new_in(handle);
            key.extend_from_slice(word);
            *words.entry(key).or_default() += 1;
        }
    }
    let left = MappedBox::leak(MappedBox::new_in(words, handle));
    heap.set_root(&name(number), &raw const *left, 0)
}

/// Prints the words that are most frequent in all maps together.
fn report(heap: &Mapped, workers: u32) {
    let mut all = StdMap::<&[u8], u64>::new();
    for (place, _) in (0..workers).filter_map(|number| heap.root(&name(number))) {
        // SAFETY: a child of this program left its map there, and is gone.
        let words: &Words = unsafe { place.cast().as_ref() };
        for (word, count) in words {
            *all.entry(&word[..]).or_default() += count;
        }
    }
    let mut ranked: Vec<_> = all.into_iter().collect();
    ranked.sort_unstable_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(other.0)));
    let stats = heap.stats();
    let lines = ranked
        .iter()
        .take(10)
        .map(|(word, count)| format!("{count:9}  {}", word.escape_ascii()));
    let rest = format!(
        "{} words by {workers} processes in {} KiB of one heap",
        ranked.len(),
        stats.live >> 10
    );
    let text: String = lines.chain([rest]).map(|line| line + "\n").collect();
    // Who reads no more of it is no failure.
    let _ = io::Write::write_all(&mut io::stdout(), text.as_bytes());
}
