//! The order of the measurements: for each repetition every store in turn, each in processes of its own.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};

use crate::Name;
use crate::cells::{Cell, READY, SUM, Subject};
use crate::disk;
use crate::report::Report;
use crate::store::Failure;

/// The process that runs, and whether somebody pressed Ctrl-C.
#[derive(Default)]
struct Running {
    child: Option<Child>,
    is_interrupted: bool,
}

static RUNNING: Mutex<Running> = Mutex::new(Running {
    child: None,
    is_interrupted: false,
});

fn running() -> std::sync::MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has Ctrl-C end what runs, so that nothing is left behind.
pub(crate) fn catch_interrupts() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        let mut running = running();
        running.is_interrupted = true;
        if let Some(child) = &mut running.child {
            // It may have ended by itself.
            let _ = child.kill();
        }
    })
}

pub(crate) fn is_interrupted() -> bool {
    running().is_interrupted
}

/// What is to be measured.
pub(crate) struct Plan {
    pub(crate) stores: Vec<Name>,
    pub(crate) reps: u64,
    pub(crate) entries: u64,
    /// Entries of the stores that are opened.
    pub(crate) opened: u64,
    pub(crate) check: bool,
    /// A folder for all that is stored.
    pub(crate) folder: PathBuf,
}

/// What a process said.
#[derive(Default)]
struct Said {
    figures: Vec<(String, f64)>,
    sums: Vec<String>,
}

fn words(cell: &Cell) -> Vec<String> {
    let (name, number) = match cell {
        Cell::Life { seed, .. } => ("life", Some(seed)),
        Cell::Fill { .. } => ("fill", None),
        Cell::Open { rounds, .. } => ("open", Some(rounds)),
        Cell::Work { rounds, .. } => ("work", Some(rounds)),
    };
    let subject = cell.subject();
    let mut words = vec![
        name.into(),
        subject.store.as_str().into(),
        subject.folder.display().to_string(),
        subject.entries.to_string(),
    ];
    words.extend(number.map(u64::to_string));
    words.extend(subject.check.then(|| "--check".into()));
    words
}

/// Runs a process to its end, or kills it once it waits for that.
fn run(cell: &Cell) -> Result<Said, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words(cell)).stdout(Stdio::piped());
    let out = {
        let mut running = running();
        if running.is_interrupted {
            return Err("interrupted".into());
        }
        let mut child = command.spawn()?;
        let out = child.stdout.take();
        running.child = Some(child);
        out.ok_or("no output")?
    };
    let read = listen(BufReader::new(out));
    let child = running().child.take();
    let mut child = child.ok_or("no process")?;
    let is_ready = matches!(read, Ok((_, true)));
    if is_ready || read.is_err() {
        // Its end is waited for below.
        let _ = child.kill();
    }
    let status = child.wait()?;
    let (said, _) = read?;
    if status.success() || is_ready {
        Ok(said)
    } else {
        Err(failure(cell.subject(), status))
    }
}

fn failure(subject: &Subject, status: ExitStatus) -> Failure {
    format!("{} failed: {status}", subject.store.as_str()).into()
}

/// What a process says, until its end or until it waits to be killed.
fn listen(out: impl BufRead) -> Result<(Said, bool), Failure> {
    let mut said = Said::default();
    for line in out.lines() {
        let line = line?;
        match line.trim_end().split_once(' ') {
            Some((SUM, sum)) => said.sums.push(sum.into()),
            Some((row, figure)) => said.figures.push((row.into(), figure.parse()?)),
            None if line.trim_end() == READY => return Ok((said, true)),
            None => return Err(format!("a line of no sense: {line}").into()),
        }
    }
    Ok((said, false))
}

/// The sums of each measurement, which all stores have to agree on.
type Sums = HashMap<(&'static str, u64), Vec<String>>;

struct Run<'a> {
    plan: &'a Plan,
    report: &'a mut Report,
    sums: Sums,
    bar: ProgressBar,
}

impl Run<'_> {
    fn folder(&self, store: Name) -> PathBuf {
        self.plan.folder.join(store.as_str())
    }

    fn subject(&self, store: Name, entries: u64) -> Subject {
        Subject {
            store,
            folder: self.folder(store),
            entries,
            check: self.plan.check,
        }
    }

    /// Another goes first each time.
    fn turns(&self, rep: u64) -> Vec<Name> {
        let mut stores = self.plan.stores.clone();
        let first = rep as usize % stores.len();
        stores.rotate_left(first);
        stores
    }

    fn note(&mut self, row: &str, store: Name, figure: f64) -> Result<(), Failure> {
        if self.report.note(row, store, figure) {
            Ok(())
        } else {
            Err(format!("no such row: {row}").into())
        }
    }

    /// Looks whether a store has read what the others did.
    fn agree(
        &mut self,
        what: &'static str,
        rep: u64,
        store: Name,
        said: &Said,
    ) -> Result<(), Failure> {
        let sums = self.sums.entry((what, rep));
        if sums.or_insert_with(|| said.sums.clone()) == &said.sums {
            Ok(())
        } else {
            Err(format!("{} has read other bytes", store.as_str()).into())
        }
    }

    fn step(&self, what: &str, store: Name) {
        self.bar.set_message(format!("{}: {what}", store.as_str()));
    }

    fn live(&mut self, rep: u64, store: Name) -> Result<(), Failure> {
        self.step("loaded, read, updated", store);
        let folder = self.folder(store);
        fs::create_dir(&folder)?;
        let subject = self.subject(store, self.plan.entries);
        let said = run(&Cell::Life { subject, seed: rep })?;
        fs::remove_dir_all(folder)?;
        self.agree("life", rep, store, &said)?;
        for (row, figure) in &said.figures {
            self.note(row, store, *figure)?;
        }
        self.bar.inc(1);
        Ok(())
    }

    fn fill(&mut self, store: Name) -> Result<(), Failure> {
        self.step("filled to be opened", store);
        let folder = self.folder(store);
        fs::create_dir(&folder)?;
        let subject = self.subject(store, self.plan.opened);
        run(&Cell::Fill { subject })?;
        self.note_size("open_size", store)?;
        self.bar.inc(1);
        Ok(())
    }

    fn note_size(&mut self, row: &str, store: Name) -> Result<(), Failure> {
        let bytes = disk::taken(&self.folder(store))?;
        self.note(row, store, bytes as f64 / (1024.0 * 1024.0))
    }

    /// Opens a store that was closed, has it changed by a process that is killed, and opens it again.
    fn open(&mut self, rep: u64, store: Name) -> Result<(), Failure> {
        self.step("opened", store);
        let subject = self.subject(store, self.plan.opened);
        for (row, rounds) in [("open_closed", rep), ("open_killed", rep + 1)] {
            let cell = Cell::Open {
                subject: subject.clone(),
                rounds,
            };
            let said = run(&cell)?;
            self.agree(row, rep, store, &said)?;
            for (_, figure) in &said.figures {
                self.note(row, store, *figure)?;
            }
            if rounds == rep {
                let subject = subject.clone();
                run(&Cell::Work { subject, rounds })?;
            }
        }
        self.bar.inc(1);
        Ok(())
    }

    fn all(&mut self) -> Result<(), Failure> {
        for rep in 0..self.plan.reps {
            for store in self.turns(rep) {
                self.live(rep, store)?;
            }
        }
        for store in self.plan.stores.clone() {
            self.fill(store)?;
        }
        for rep in 0..self.plan.reps {
            for store in self.turns(rep) {
                self.open(rep, store)?;
            }
        }
        for store in self.plan.stores.clone() {
            self.note_size("open_killed_size", store)?;
        }
        Ok(())
    }
}

/// Measures all. After Ctrl-C, what is complete stands in the report.
pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let cells = (2 * plan.reps + 1) * plan.stores.len() as u64;
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len}  {elapsed} gone, {eta} left  {msg}")?;
    let bar = ProgressBar::new(cells).with_style(style);
    let mut run = Run {
        plan,
        report,
        sums: Sums::new(),
        bar,
    };
    let done = run.all();
    run.bar.finish_and_clear();
    match done {
        Err(_) if is_interrupted() => Ok(()),
        done => done,
    }
}

/// A folder of this program's own in another: it goes with all that is in it.
pub(crate) fn folder_in(parent: &Path) -> std::io::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("stores-")
        .tempdir_in(parent)
}
