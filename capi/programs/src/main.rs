//! Real programs under preloaded allocators: the same output, how long, and how much memory.
//!
//! Every program runs under each allocator in turn, as often as asked, each time in another order. A
//! program's own processes count: time is the wall's, memory the peak of the largest process.

mod list;
mod redis;
mod run;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::list::{Program, programs};
use crate::run::Sample;

/// Times real programs under preloaded allocators, and weighs them. Programs that are not installed are left
/// out, and so are allocators.
#[derive(Parser)]
struct Options {
    /// Runs of each program under each allocator.
    #[arg(long, default_value_t = 5)]
    reps: usize,
    /// Only programs whose name contains this.
    #[arg(long, default_value = "")]
    filter: String,
    /// The library to measure.
    #[arg(long, default_value = "target/release/libflagstone.so")]
    library: PathBuf,
    /// Another library: NAME=PATH.
    #[arg(long = "with", value_name = "NAME=PATH", value_parser = named)]
    others: Vec<(String, PathBuf)>,
    /// Only these allocators, by name, separated by commas; `hardened` is the library with all safeguards.
    #[arg(long, value_delimiter = ',')]
    allocators: Vec<String>,
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=PATH")?;
    Ok((name.into(), path.into()))
}

/// A library to preload. glibc's own is preloaded too: some programs are linked with another allocator.
pub(crate) struct Allocator {
    pub(crate) name: String,
    pub(crate) library: PathBuf,
    pub(crate) is_hardened: bool,
}

impl Allocator {
    fn new(name: &str, library: PathBuf) -> Self {
        Self {
            name: name.into(),
            library,
            is_hardened: false,
        }
    }

    /// Has a command run with this allocator.
    pub(crate) fn apply(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library);
        command.env(
            "FLAGSTONE_HARDENED",
            if self.is_hardened { "1" } else { "0" },
        );
    }
}

/// Where Debian and others keep shared libraries.
const FOLDERS: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
];

const HARDENED: &str = "hardened";

const PEERS: [(&str, &str); 4] = [
    ("glibc", "libc.so.6"),
    ("jemalloc", "libjemalloc.so.2"),
    ("mimalloc", "libmimalloc.so.2"),
    ("tcmalloc", "libtcmalloc_minimal.so.4"),
];

fn allocators(options: &Options) -> Result<Vec<Allocator>> {
    let own = options.library.canonicalize().with_context(|| {
        format!(
            "no {}: build it first, or name it",
            options.library.display()
        )
    })?;
    let mut all = vec![Allocator::new("flagstone", own.clone())];
    for (name, file) in PEERS {
        let mut places = FOLDERS.iter().map(|folder| Path::new(folder).join(file));
        match places.find(|place| place.exists()) {
            Some(library) => all.push(Allocator::new(name, library)),
            None => eprintln!("not installed: {name} ({file})"),
        }
    }
    for (name, library) in &options.others {
        let found = library
            .canonicalize()
            .with_context(|| library.display().to_string())?;
        all.push(Allocator::new(name, found));
    }
    if options.allocators.iter().any(|name| name == HARDENED) {
        all.push(Allocator {
            is_hardened: true,
            ..Allocator::new(HARDENED, own)
        });
    }
    if !options.allocators.is_empty() {
        all.retain(|allocator| options.allocators.contains(&allocator.name));
    }
    Ok(all)
}

/// One program's runs: for each allocator, those of each repetition.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) samples: Vec<Vec<Sample>>,
}

fn measure(program: &Program, allocators: &[Allocator], reps: usize) -> Result<Row> {
    let folder = tempfile::tempdir()?;
    (program.prepare)(folder.path()).context(program.name)?;
    let mut samples: Vec<Vec<Sample>> = allocators.iter().map(|_| Vec::new()).collect();
    // Reads the files once, so that the first measured run does not.
    let first = allocators.first().context("no allocator")?;
    let (_, expected) = (program.run)(folder.path(), first).context(program.name)?;
    for rep in 0..reps {
        for step in 0..allocators.len() {
            let index = (step + rep) % allocators.len();
            let allocator = &allocators[index];
            let (sample, output) = (program.run)(folder.path(), allocator)
                .with_context(|| format!("{} with {}", program.name, allocator.name))?;
            if output != expected {
                bail!(
                    "{} with {} says something else",
                    program.name,
                    allocator.name
                );
            }
            samples[index].push(sample);
        }
    }
    Ok(Row {
        name: program.name,
        samples,
    })
}

fn main() -> Result<()> {
    let options = Options::parse();
    if options.reps == 0 {
        bail!("--reps 0 measures nothing");
    }
    let allocators = allocators(&options)?;
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for program in programs()
        .iter()
        .filter(|program| program.name.contains(&options.filter))
    {
        if let Some(missing) = program.needs.iter().find(|command| !run::exists(command)) {
            eprintln!("left out: {}, there is no {missing}", program.name);
            continue;
        }
        eprintln!("{}: {}", program.name, program.what);
        match measure(program, &allocators, options.reps) {
            Ok(row) => rows.push(row),
            Err(error) => {
                eprintln!("{error:#}");
                failed.push(program.name);
            }
        }
    }
    if !rows.is_empty() {
        table::show(&rows, &allocators);
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    if rows.is_empty() {
        bail!("no program to run");
    }
    Ok(())
}
