//! Many records at once: those of a file, or random ones.

use core::hash::BuildHasher;
use std::fs::File;
use std::hash::RandomState;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::time::Instant;

use indicatif::ProgressBar;

use crate::common::{interrupt, say};
use crate::mapped::bar;
use crate::session::{Failure, Session};
use crate::{Args, PROGRAM};

/// After so many records the bar moves.
const STEP: u64 = 256;
/// Records of a commit, unless it is said: so many share one wait for the disk.
const BATCH: u64 = 1_000;

/// Records on their way into a store.
struct Many<'a> {
    session: &'a mut Session,
    /// So many in each commit.
    batch: u64,
    is_verbose: bool,
    bar: ProgressBar,
    begun: Instant,
    set: u64,
    /// Those of `set` that nothing can take away any more.
    kept: u64,
    commits: u64,
}

impl<'a> Many<'a> {
    fn begin(
        session: &'a mut Session,
        args: &Args,
        batch: Option<u64>,
        bar: ProgressBar,
    ) -> Result<Self, Failure> {
        if batch.is_some() && !session.is_durable() {
            let why = "--batch is for durable stores: here each record is there at once";
            return Err(Failure::Unfit(why.into()));
        }
        Ok(Self {
            session,
            batch: batch.unwrap_or(BATCH),
            is_verbose: args.verbose,
            bar,
            begun: Instant::now(),
            set: 0,
            kept: 0,
            commits: 0,
        })
    }

    /// Sets one. `position` is where the bar is then.
    fn set(&mut self, key: &str, value: &str, position: u64) -> Result<(), Failure> {
        self.session.with(|records| records.set(key, value))?;
        self.set += 1;
        if self.set.is_multiple_of(self.batch) {
            self.commit()?;
        }
        if self.set.is_multiple_of(STEP) {
            self.bar.set_position(position);
            self.bar
                .set_message(format!("({} records/s)", self.rate(self.set)));
        }
        if interrupt::requested() {
            return Err(Failure::Interrupted);
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Failure> {
        if self.kept == self.set {
            return Ok(());
        }
        self.session.commit()?;
        self.commits += u64::from(self.session.is_durable());
        self.kept = self.set;
        Ok(())
    }

    fn rate(&self, records: u64) -> String {
        format!("{:.0}", records as f64 / self.begun.elapsed().as_secs_f64())
    }

    /// Keeps those that were set, whatever came then, and says how many.
    fn end(mut self, done: Result<(), Failure>) -> Result<(), Failure> {
        let committed = self.commit();
        self.bar.finish_and_clear();
        if self.is_verbose || done.is_err() || io::stderr().is_terminal() {
            let (kept, rate) = (self.kept, self.rate(self.kept));
            let commits = match (self.is_verbose, self.commits) {
                (false, _) | (_, 0) => String::new(),
                (true, 1) => "; 1 commit".into(),
                (true, commits) => format!("; {commits} commits"),
            };
            say::line(
                PROGRAM,
                format_args!("{kept} records set, {rate} records/s{commits}"),
            );
        }
        done.and(committed)
    }
}

/// Sets what the lines of a file say. What is interrupted has set those before.
pub(crate) fn file(
    session: &mut Session,
    args: &Args,
    path: &Path,
    batch: Option<u64>,
) -> Result<(), Failure> {
    let refuse = |error| Failure::Other(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(refuse)?;
    let length = file.metadata().map_err(refuse)?.len();
    let mut many = Many::begin(session, args, batch, bar(length, true))?;
    let done = lines(&mut many, path, BufReader::new(file));
    many.end(done)
}

fn lines(many: &mut Many<'_>, path: &Path, mut file: impl BufRead) -> Result<(), Failure> {
    let (mut line, mut number, mut read) = (String::new(), 0_u64, 0);
    loop {
        line.clear();
        let bytes = file
            .read_line(&mut line)
            .map_err(|error| Failure::Other(format!("{}: {error}", path.display())))?;
        if bytes == 0 {
            return Ok(());
        }
        number += 1;
        read += bytes as u64;
        let text = line.strip_suffix('\n').unwrap_or(&line);
        let (key, value) = text
            .split_once('\t')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| refuse_line(path, number))?;
        many.set(key, value, read)?;
    }
}

fn refuse_line(path: &Path, number: u64) -> Failure {
    let path = path.display();
    Failure::Other(format!(
        "{path}: line {number} is no KEY<TAB>VALUE; those before are set"
    ))
}

/// Sets random keys, one by one.
pub(crate) fn fill(
    session: &mut Session,
    args: &Args,
    count: u64,
    batch: Option<u64>,
) -> Result<(), Failure> {
    let mut many = Many::begin(session, args, batch, bar(count, false))?;
    let random = RandomState::new();
    let done = (0..count).try_for_each(|number| {
        let random = random.hash_one(number);
        let key = format!("fill-{random:016x}");
        let value = key.repeat(1 + usize::from(random.to_le_bytes()[0] % 10));
        many.set(&key, &value, number)
    });
    many.end(done)
}
