//! What a process of its own does with a store: measures, and says so line by line.

use std::hint::black_box;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;
use std::{io, thread};

use clap::{Args, Subcommand};
use flagstone::mapped::Box as Block;

use crate::Name;
use crate::disk;
use crate::store::{Failure, Store, Value};
use crate::stores::{flagstone::Flagstone, lmdb::Lmdb, redb::Redb, sqlite::Sqlite};
use crate::workload::{FILLED, LOADED, Random, Shadow, key, sum};

/// Commits of a measurement, and entries of each: as many as take some seconds on a disk that takes a millisecond. Of
/// stores with less than a million entries as much less.
const UPDATES: [(u64, u64); 3] = [(500, 1), (200, 100), (20, 10_000)];

/// Commits that a process makes before it is killed, and entries of each. So many leave something in a log that is taken over
/// by the page, a thousand pages at a time.
const BEFORE_KILL: (u64, u64) = (25, 100);

/// The line that says that a process waits to be killed.
pub(crate) const READY: &str = "ready";

/// The line that a checksum stands in.
pub(crate) const SUM: &str = "sum";

/// A store to be used by a process.
#[derive(Args, Clone)]
pub(crate) struct Subject {
    pub(crate) store: Name,
    pub(crate) folder: PathBuf,
    pub(crate) entries: u64,
    /// Whether all that it holds is looked at.
    #[arg(long)]
    pub(crate) check: bool,
}

/// What a process does.
#[derive(Subcommand, Clone)]
pub(crate) enum Cell {
    /// All rows but those of openings
    #[command(hide = true)]
    Life {
        #[command(flatten)]
        subject: Subject,
        seed: u64,
    },
    /// A store is made and loaded
    #[command(hide = true)]
    Fill {
        #[command(flatten)]
        subject: Subject,
    },
    /// A store is opened, after so many rounds of `Work`
    #[command(hide = true)]
    Open {
        #[command(flatten)]
        subject: Subject,
        rounds: u64,
    },
    /// A store is opened and changed, and the process waits to be killed
    #[command(hide = true)]
    Work {
        #[command(flatten)]
        subject: Subject,
        rounds: u64,
    },
}

impl Cell {
    pub(crate) fn subject(&self) -> &Subject {
        match self {
            Self::Life { subject, .. }
            | Self::Fill { subject }
            | Self::Open { subject, .. }
            | Self::Work { subject, .. } => subject,
        }
    }

    pub(crate) fn run(&self) -> Result<(), Failure> {
        match self.subject().store {
            Name::Flagstone => self.run_with::<Flagstone<Value>>(),
            Name::FlagstoneBoxed => self.run_with::<Flagstone<Block<Value>>>(),
            Name::Redb => self.run_with::<Redb>(),
            Name::Lmdb => self.run_with::<Lmdb>(),
            Name::Sqlite => self.run_with::<Sqlite>(),
        }
    }

    fn run_with<S: Store>(&self) -> Result<(), Failure> {
        match self {
            Self::Life { subject, seed } => live::<S>(subject, *seed),
            Self::Fill { subject } => fill::<S>(subject),
            Self::Open { subject, rounds } => open::<S>(subject, *rounds),
            Self::Work { subject, rounds } => work::<S>(subject, *rounds),
        }
    }
}

/// A line for who started this process.
fn say(what: &str, value: impl std::fmt::Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{what} {value}")?;
    Ok(out.flush()?)
}

const MIB: f64 = 1024.0 * 1024.0;

/// Commits batches one by one, which are made before the clock goes on: seconds of the commits, and the bytes of the pages that
/// they changed.
fn commit<S: Store>(
    store: &mut S,
    batches: impl Iterator<Item = Vec<(u64, Value)>>,
) -> Result<(f64, Option<u64>), Failure> {
    let before = disk::dirtied();
    let mut seconds = 0.0;
    for batch in batches {
        let begin = Instant::now();
        store.put_batch(&batch)?;
        seconds += begin.elapsed().as_secs_f64();
    }
    let dirtied = disk::dirtied().zip(before).map(|(now, then)| now - then);
    Ok((seconds, dirtied))
}

/// Reads as many entries as there are, each at random: reads a second.
fn read<S: Store>(store: &S, entries: u64, seed: u64) -> Result<f64, Failure> {
    let mut random = Random::new(seed);
    let keys: Vec<u64> = (0..entries).map(|_| key(random.below(entries))).collect();
    let (mut total, mut found) = (0_u64, 0);
    let begin = Instant::now();
    store.get(&keys, |_, value| {
        if let Some(value) = value {
            total = total.wrapping_add(sum(value));
            found += 1;
        }
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    if found != entries {
        return Err(format!("{found} of {entries} entries found").into());
    }
    say(SUM, black_box(total))?;
    Ok(entries as f64 / seconds)
}

fn live<S: Store>(subject: &Subject, seed: u64) -> Result<(), Failure> {
    let (folder, entries) = (&subject.folder, subject.entries);
    let check = |shadow: &Shadow, store: &S| match subject.check {
        true => shadow.check(store),
        false => Ok(()),
    };
    let mut shadow = Shadow::new(entries);
    let mut store = S::create(folder, entries)?;
    let (seconds, dirtied) = commit(&mut store, shadow.load(LOADED))?;
    say("load", entries as f64 / seconds)?;
    if let Some(dirtied) = dirtied {
        say("load_written", dirtied as f64 / MIB)?;
    }
    say("load_size", S::size(folder)? as f64 / MIB)?;
    check(&shadow, &store)?;
    say("read", read(&store, entries, seed)?)?;
    store.close()?;

    let mut store = S::open(folder)?;
    say("read_reopened", read(&store, entries, seed + 1)?)?;
    check(&shadow, &store)?;
    let mut random = Random::new(seed);
    for (most, count) in UPDATES {
        // No fewer than five, of which one alone may be slow.
        let commits = (most * entries / 1_000_000).clamp(5, most);
        let batches = (0..commits).map(|_| shadow.update(&mut random, count));
        let (seconds, dirtied) = commit(&mut store, batches)?;
        let rate = commits as f64 / seconds;
        say(&format!("commits_{count}"), rate)?;
        if count > 1 {
            say(&format!("updates_{count}"), rate * count as f64)?;
        }
        if let Some(dirtied) = dirtied {
            let kib = dirtied as f64 / commits as f64 / 1024.0;
            say(&format!("written_{count}"), kib)?;
        }
    }
    check(&shadow, &store)?;
    say("size", S::size(folder)? as f64 / MIB)?;
    store.close()
}

fn fill<S: Store>(subject: &Subject) -> Result<(), Failure> {
    let mut store = S::create(&subject.folder, subject.entries)?;
    commit(&mut store, Shadow::new(subject.entries).load(FILLED))?;
    store.close()
}

/// The batches of a round of `work`.
fn round(shadow: &mut Shadow, number: u64) -> impl Iterator<Item = Vec<(u64, Value)>> {
    let mut random = Random::new(number);
    (0..BEFORE_KILL.0).map(move |_| shadow.update(&mut random, BEFORE_KILL.1))
}

/// What a store has to hold after so many rounds.
fn shadow_after(entries: u64, rounds: u64) -> Shadow {
    let mut shadow = Shadow::new(entries);
    for number in 0..rounds {
        round(&mut shadow, number).for_each(drop);
    }
    shadow
}

fn open<S: Store>(subject: &Subject, rounds: u64) -> Result<(), Failure> {
    let keys = [key(rounds % subject.entries)];
    let mut total = 0;
    let begin = Instant::now();
    let store = S::open(&subject.folder)?;
    // What an opening puts off belongs to it.
    store.get(&keys, |_, value| total = value.map_or(0, sum))?;
    let milliseconds = begin.elapsed().as_secs_f64() * 1e3;
    say(SUM, total)?;
    say("open", milliseconds)?;
    if subject.check {
        shadow_after(subject.entries, rounds).check(&store)?;
    }
    store.close()
}

fn work<S: Store>(subject: &Subject, rounds: u64) -> Result<(), Failure> {
    let mut shadow = shadow_after(subject.entries, rounds);
    let mut store = S::open(&subject.folder)?;
    for batch in round(&mut shadow, rounds) {
        store.put_batch(&batch)?;
    }
    say(READY, "")?;
    loop {
        thread::park();
    }
}
