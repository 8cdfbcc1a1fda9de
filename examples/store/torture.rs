//! Kills a process that changes a durable store, again and again, and looks whether all that was acknowledged is there,
//! and nothing by halves. A kill is not the loss of power: the kernel keeps what the disk has not got.

use core::hash::BuildHasher;
use core::time::Duration;
use std::collections::BTreeMap;
use std::hash::RandomState;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::process::{self, Child, ChildStdout, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Instant;
use std::{env, fs, thread};

use flagstone::MappedError;
use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::common::interrupt;
use crate::records::Records;
use crate::session::{Failure, Session, Wanted};
use crate::{Args, mapped};

/// Keys that the batches are about: they are set and deleted many times over.
const KEYS: u32 = 2_000;
/// The key whose value is the number of the last batch.
const LAST: &str = "batch";
/// Changes of a batch, at most.
const CHANGES: u32 = 200;
/// One batch in so many is made up and rolled back before the next.
const ROLLED_BACK: u32 = 8;
/// A victim that has found its store lives so long, at most: some batches, and now and then a checkpoint.
const LIFE: Duration = Duration::from_millis(100);
/// One that is killed before it has, the same.
const YOUTH: Duration = Duration::from_millis(15);
/// Nobody needs longer to open a store of this size.
const OPENING: Duration = Duration::from_secs(60);

/// A key, and its value unless it goes.
type Change = (String, Option<String>);

/// What a batch does: the same each time that it is asked.
fn changes(seed: u64, number: u64) -> Vec<Change> {
    let mut random = SmallRng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut all = Vec::new();
    for _ in 0..random.random_range(1..=CHANGES) {
        let key = format!("key-{:04}", random.random_range(0..KEYS));
        // Blocks of slabs most often, spans, and some that are longer than a chunk's slabs.
        let most = match random.random_range(0..1_000) {
            0..250 => None,
            250..950 => Some(300),
            950..999 => Some(10_000),
            _ => Some(500_000),
        };
        let value = most.map(|most| {
            let length = random.random_range(0..most);
            let mut value = format!("{number} ").repeat(length / 2);
            value.truncate(length);
            value
        });
        all.push((key, value));
    }
    all.push((LAST.into(), Some(number.to_string())));
    all
}

fn apply(records: &mut Records<'_>, changes: &[Change]) -> Result<(), MappedError> {
    for (key, value) in changes {
        match value {
            Some(value) => records.set(key, value)?,
            None => drop(records.delete(key)?),
        }
    }
    Ok(())
}

/// The number of the last batch in a store.
fn last(session: &Session) -> Result<u64, Failure> {
    let value = session.with(|records| Ok(records.get(LAST)?.map(str::parse)))?;
    match value {
        None => Ok(0),
        Some(Ok(number)) => Ok(number),
        Some(Err(_)) => Err(Failure::Other("what was a number is none".into())),
    }
}

/// Commits batches until it is killed, or nobody listens. Prints the number of the one that it found, and of each that is
/// committed.
pub(crate) fn suffer(session: &mut Session, seed: u64) -> Result<(), Failure> {
    let mut number = last(session)?;
    let mut out = io::stdout().lock();
    // Whole lines, as a pipe takes so few bytes at once.
    while writeln!(out, "{number}").is_ok() {
        number += 1;
        let changes = changes(seed, number);
        if number.is_multiple_of(ROLLED_BACK.into()) {
            let others = self::changes(!seed, number);
            session.with(|records| apply(records, &others))?;
            session.rollback()?;
        }
        session.with(|records| apply(records, &changes))?;
        session.commit()?;
    }
    Ok(())
}

/// Who kills, and what he knows.
struct Torture<'a> {
    args: &'a Args,
    seed: u64,
    random: SmallRng,
    /// What the store has to have once `batch` is its last.
    records: BTreeMap<String, String>,
    batch: u64,
    /// The last batch that was acknowledged, or found.
    acknowledged: u64,
    kills: u64,
    checks: u64,
    changes: u64,
}

pub(crate) fn run(args: &Args, seconds: u32) -> Result<(), Failure> {
    if fs::symlink_metadata(&args.path).is_ok() {
        let why = "it is there already: torture makes a store of its own, which goes at the end";
        return Err(Failure::Unfit(why.into()));
    }
    let seed = RandomState::new().hash_one(process::id());
    let mut torture = Torture {
        args,
        seed,
        random: SmallRng::seed_from_u64(seed),
        records: BTreeMap::new(),
        batch: 0,
        acknowledged: 0,
        kills: 0,
        checks: 0,
        changes: 0,
    };
    // Whether there can be one; the first victims are killed while they make it anew.
    torture.check()?;
    let removed = |error| Failure::Other(format!("{}: {error}", args.path.display()));
    fs::remove_file(&args.path).map_err(removed)?;
    let bar = bar(seconds);
    let done = torture.rounds(Duration::from_secs(seconds.into()), &bar);
    bar.finish_and_clear();
    if let Err(Failure::Other(what) | Failure::Unfit(what)) = done {
        return Err(Failure::Other(format!(
            "after {} kills: {what}; the store stays at {} (seed {seed})",
            torture.kills,
            args.path.display()
        )));
    }
    fs::remove_file(&args.path).map_err(removed)?;
    crate::print([format!(
        "{} kills, {} checks, {} commits of {} changes, {} records at the end: nothing was lost",
        torture.kills,
        torture.checks,
        torture.batch,
        torture.changes,
        torture.records.len()
    )])?;
    done
}

/// The seconds that are over, on stderr, if that is a terminal.
fn bar(seconds: u32) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} s, {msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(seconds.into()).with_style(style)
}

impl Torture<'_> {
    fn rounds(&mut self, time: Duration, bar: &ProgressBar) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            self.kill()?;
            // Else the next victim has to mend what this one left, and may be killed with that.
            let is_over = begun.elapsed() >= time || interrupt::requested();
            if is_over || self.random.random_range(0..3) != 0 {
                self.check()?;
            }
            bar.set_position(begun.elapsed().as_secs());
            bar.set_message(format!("{} kills, {} commits", self.kills, self.batch));
            if interrupt::requested() {
                return Err(Failure::Interrupted);
            }
            if is_over {
                return Ok(());
            }
        }
    }

    /// Lets a process change the store for a while, and kills it.
    fn kill(&mut self) -> Result<(), Failure> {
        let start = |error| Failure::Other(format!("no process can be started: {error}"));
        let mut victim = self.victim().map_err(start)?;
        let is_young = self.random.random_range(0..4) == 0;
        let time = match is_young {
            true => YOUTH.mul_f64(self.random.random()),
            false => OPENING,
        };
        let heard = listen(victim.stdout.take());
        let mut end = Instant::now() + time;
        let mut is_first = true;
        let heard_all = loop {
            match heard.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(number) => {
                    if let Err(failure) = self.acknowledge(number, is_first) {
                        break Err(failure);
                    }
                    if is_first && !is_young {
                        end = Instant::now() + LIFE.mul_f64(self.random.random());
                    }
                    is_first = false;
                }
                Err(RecvTimeoutError::Timeout) => break Ok(()),
                Err(RecvTimeoutError::Disconnected) => {
                    break Err(Failure::Other("a process ended by itself".into()));
                }
            }
        };
        // One that has ended is no failure: it is waited for.
        let _ = victim.kill();
        let _ = victim.wait();
        heard_all?;
        self.kills += 1;
        // What it said until then.
        for number in heard {
            self.acknowledge(number, is_first)?;
            is_first = false;
        }
        Ok(())
    }

    fn victim(&self) -> io::Result<Child> {
        process::Command::new(env::current_exe()?)
            .arg(&self.args.path)
            .args(["--capacity", &self.args.capacity.to_string()])
            .args(["victim", &self.seed.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // So that Ctrl-C does not reach it.
            .process_group(0)
            .spawn()
    }

    /// A victim has found this batch first, or has committed it.
    fn acknowledge(&mut self, number: u64, is_found: bool) -> Result<(), Failure> {
        let before = self.acknowledged;
        if number == before + 1 || is_found && number == before {
            self.acknowledged = number;
            return Ok(());
        }
        Err(Failure::Other(format!(
            "batch {before} was committed, and then there is {number}"
        )))
    }

    /// Opens the store, and compares all of it with what has to be there.
    fn check(&mut self) -> Result<(), Failure> {
        let session = Session::open(Wanted {
            path: &self.args.path,
            capacity: Some(self.args.capacity),
            is_durable: true,
            may_be_dirty: false,
            patience: Duration::ZERO,
            is_verbose: false,
        })?;
        self.checks += 1;
        self.acknowledge(last(&session)?, true)?;
        while self.batch < self.acknowledged {
            self.batch += 1;
            for (key, value) in changes(self.seed, self.batch) {
                self.changes += 1;
                match value {
                    Some(value) => self.records.insert(key, value),
                    None => self.records.remove(&key),
                };
            }
        }
        let verified = session.heap().verify();
        verified.map_err(|error| Failure::Other(format!("the heap: {}", mapped::why(error))))?;
        session
            .with(|records| Ok(records.check()))?
            .map_err(Failure::Other)?;
        let mut found = BTreeMap::new();
        session.with(|records| {
            records.each(|key, value| drop(found.insert(String::from(key), String::from(value))))
        })?;
        self.compare(&found)?;
        let closed = session.close();
        closed.map_err(|error| Failure::Other(mapped::why(error)))
    }

    fn compare(&self, found: &BTreeMap<String, String>) -> Result<(), Failure> {
        let batch = self.batch;
        let wrong = |what: &str, key: &str| {
            Err(Failure::Other(format!(
                "batch {batch} is the last, and {key:?} {what}"
            )))
        };
        for (key, value) in &self.records {
            match found.get(key) {
                None => return wrong("is not there", key),
                Some(other) if other != value => return wrong("has another value", key),
                Some(_) => {}
            }
        }
        match found.keys().find(|key| !self.records.contains_key(*key)) {
            Some(key) => wrong("should not be there", key),
            None => Ok(()),
        }
    }
}

/// The numbers that a victim prints, until it ends.
fn listen(pipe: Option<ChildStdout>) -> Receiver<u64> {
    let (sender, receiver) = mpsc::channel();
    // It ends with the pipe.
    thread::spawn(move || {
        let lines = pipe
            .into_iter()
            .flat_map(|pipe| BufReader::new(pipe).lines());
        for number in lines.map_while(|line| line.ok()?.parse().ok()) {
            if sender.send(number).is_err() {
                break;
            }
        }
    });
    receiver
}
