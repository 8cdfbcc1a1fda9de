//! The order of the measurements: for each repetition, for each row, every allocator in turn.

use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::allocators::Role;
use crate::args::{Kind, Plan};
use crate::build::Built;
use crate::facts;
use crate::huge_pages::Choice;
use crate::interrupt;
use crate::model::{Column, Contestant, Facts, LONGEST, Locks, Report, Row, Skipped};
use crate::run::{self, Amount, Cell, Extent, Look, RowName};
use crate::size::Size;

/// Memory rows mostly sleep and read sizes of their own process: so many run side by side.
const MEMORY_ABREAST: usize = 3;

/// Runs the plan. After Ctrl-C, the rows of the repetition under way that are complete count.
pub(crate) fn all(
    plan: &Plan,
    built: &[Built],
    counted: Option<&Path>,
    rows: Vec<RowName>,
    skipped: Vec<Skipped>,
    facts: Facts,
) -> Report {
    let start = Instant::now();
    let mut report = Report {
        format: crate::model::FORMAT,
        facts,
        allocators: built.iter().map(contestant).collect(),
        skipped,
        rows: rows
            .into_iter()
            .map(|row| Row {
                name: row.name,
                kind: row.kind,
                about: row.about,
                size: row.size,
                columns: built.iter().map(|_| Column::default()).collect(),
                checksum: None,
            })
            .collect(),
        locks: Vec::new(),
        complaints: Vec::new(),
        sound: true,
    };
    let cells = |row: &Row| u64::from(plan.reps(row.kind, row.size)) * built.len() as u64;
    let bar = progress_bar(report.rows.iter().map(cells).sum());
    let reps = report
        .rows
        .iter()
        .map(|row| plan.reps(row.kind, row.size))
        .max();
    'all: for rep in 0..reps.unwrap_or(0) {
        for index in 0..report.rows.len() {
            let row = &report.rows[index];
            if rep >= plan.reps(row.kind, row.size) {
                continue;
            }
            // another allocator goes first each time
            let first = (rep as usize + index) % built.len();
            measure_row(plan, built, &mut report, index, (rep, first), &bar);
            if interrupt::requested() {
                report.facts.interrupted = true;
                break 'all;
            }
        }
    }
    if let Some(binary) = counted
        && !interrupt::requested()
    {
        bar.set_message("locks of flagstone");
        report.locks = count_locks(plan, binary, &report.rows);
    }
    bar.finish_and_clear();
    report.facts.seconds = start.elapsed().as_secs();
    report
}

fn amount(plan: &Plan) -> Amount {
    Amount {
        scale: plan.scale(),
        soak: plan.soak,
        small_pages: plan.thp == Some(Choice::Never),
        extent: None,
    }
}

/// One run of each time row.
fn count_locks(plan: &Plan, binary: &Path, rows: &[Row]) -> Vec<Locks> {
    let amount = amount(plan);
    let count = |row: &Row| {
        let cell = run::cell(binary, &[], &row.name, amount).ok()?;
        let value = |name: &str| {
            let mut figures = cell.figures.iter();
            figures
                .find(|(key, _)| key == name)
                .map(|(_, value)| *value)
        };
        Some(Locks {
            row: row.name.clone(),
            taken: value("locks")?,
            waited: value("waits")?,
        })
    };
    rows.iter()
        .filter(|row| row.kind == Kind::Time)
        .take_while(|_| !interrupt::requested())
        .filter_map(count)
        .collect()
}

fn contestant(built: &Built) -> Contestant {
    let allocator = built.allocator;
    Contestant {
        name: allocator.name.to_owned(),
        short: allocator.short.to_owned(),
        role: allocator.role,
        about: allocator.about.to_owned(),
    }
}

fn progress_bar(cells: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len}  {elapsed} gone, {eta} left  {msg}")
            .expect("the template is valid");
    ProgressBar::new(cells).with_style(style)
}

/// One repetition of one row under all allocators; kept only if it is not interrupted. It is told its number, and
/// which allocator goes first.
fn measure_row(
    plan: &Plan,
    built: &[Built],
    report: &mut Report,
    index: usize,
    (rep, first): (u32, usize),
    bar: &ProgressBar,
) {
    let row = &report.rows[index];
    let amount = amount(plan);
    let turns = (0..built.len()).map(|turn| (first + turn) % built.len());
    let waiting: Mutex<Vec<usize>> = Mutex::new(turns.rev().collect());
    let done: Mutex<Vec<(usize, Result<Cell, String>)>> = Mutex::new(Vec::new());
    let next = || waiting.lock().expect("nothing panics under it").pop();
    let work = || {
        while let Some(column) = next() {
            if interrupt::requested() {
                return;
            }
            bar.set_message(format!("{} {}", row.name, built[column].allocator.name));
            // not tried again: a program that hangs would do so in each repetition
            if row.columns[column].failed.is_none() {
                let cell = match row.size {
                    Some(size) => scale_cell(&built[column], row, amount, size, rep == 0),
                    None => cell(&built[column], row, amount),
                };
                done.lock()
                    .expect("nothing panics under it")
                    .push((column, cell));
            }
            bar.inc(1);
        }
    };
    let abreast = if row.kind == Kind::Memory {
        MEMORY_ABREAST
    } else {
        1
    };
    thread::scope(|scope| {
        for _ in 0..abreast {
            scope.spawn(work);
        }
    });
    // Ctrl-C reaches the programs too, so a failure means nothing then
    if interrupt::requested() {
        return;
    }
    let cells = done.into_inner().expect("nothing panics under it");
    for (column, cell) in cells {
        keep(report, index, column, cell);
    }
}

fn cell(built: &Built, row: &Row, amount: Amount) -> Result<Cell, String> {
    let options = built.allocator.options;
    run::cell(&built.binary, options, row.program_name(), amount)
}

/// The first time with the light life, and with another run whose calls are timed. All runs do the same work.
fn scale_cell(
    built: &Built,
    row: &Row,
    amount: Amount,
    size: Size,
    is_first: bool,
) -> Result<Cell, String> {
    let run = |look| {
        let available_kb = facts::available_kb().unwrap_or(u64::MAX);
        size.fits(available_kb)
            .map_err(|reason| format!("{NOT_RUN}{reason}"))?;
        let extent = Some(Extent { size, look });
        cell(built, row, Amount { extent, ..amount })
    };
    if !is_first {
        return run(Look::Work);
    }
    let mut settled = run(Look::Settle)?;
    let calls = run(Look::Calls)?;
    if calls.checksum != settled.checksum {
        return Err("the run whose calls are timed has another checksum".to_owned());
    }
    let longest = calls.figures.into_iter().filter(|(key, _)| key == LONGEST);
    settled.figures.extend(longest);
    Ok(settled)
}

fn keep(report: &mut Report, index: usize, column: usize, cell: Result<Cell, String>) {
    let row = &mut report.rows[index];
    let name = &report.allocators[column].name;
    let into = &mut row.columns[column];
    let cell = match cell {
        Ok(cell) => cell,
        Err(reason) => {
            let complaint = format!("{} under {name}: {reason}", row.name);
            // what does not apply to an allocator says so
            if !reason.contains(NOT_APPLICABLE) {
                report.complaints.push(complaint);
                let is_fault = !reason.starts_with(NOT_RUN);
                report.sound &= report.allocators[column].role == Role::Peer || !is_fault;
            }
            *into = Column {
                failed: Some(reason),
                ..Column::default()
            };
            return;
        }
    };
    if let Some(found) = cell.checksum {
        let expected = row.checksum.get_or_insert_with(|| found.clone());
        if *expected != found {
            report.sound = false;
            report.complaints.push(format!(
                "{} under {name}: checksum {found}, elsewhere {expected}",
                row.name
            ));
        }
    }
    for (key, value) in cell.figures {
        match into.figures.iter_mut().find(|(name, _)| *name == key) {
            Some((_, samples)) => samples.push(value),
            None => into.figures.push((key, vec![value])),
        }
    }
    if into.series.is_empty() {
        into.series = cell.series;
    }
}

/// Begins the reason why a row was left out: nobody's fault.
const NOT_RUN: &str = "not run: ";

/// In the message of a program that cannot run a row by its nature.
const NOT_APPLICABLE: &str = "not applicable";
