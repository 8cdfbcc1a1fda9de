//! The order of the measurements: for each repetition, for each row, every allocator in turn.

use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Plan;
use crate::build::Built;
use crate::interrupt;
use crate::run::{self, Cell, Row};

/// One row's figures, per allocator.
pub(crate) struct RowResult {
    pub(crate) name: String,
    pub(crate) about: String,
    /// Parallel to the allocators.
    pub(crate) columns: Vec<Column>,
    checksum: Option<String>,
}

/// The samples of one row under one allocator.
#[derive(Default)]
pub(crate) struct Column {
    /// Key and samples, in the order in which the program prints them.
    pub(crate) figures: Vec<(String, Vec<f64>)>,
    failed: bool,
}

impl Column {
    fn add(&mut self, cell: Cell) {
        for figure in cell.figures {
            match self.figures.iter_mut().find(|(key, _)| *key == figure.key) {
                Some((_, samples)) => samples.push(figure.value),
                None => self.figures.push((figure.key, vec![figure.value])),
            }
        }
    }

    pub(crate) fn samples(&self, key: &str) -> &[f64] {
        self.figures
            .iter()
            .find(|(name, _)| name == key)
            .map_or(&[], |(_, samples)| samples)
    }
}

pub(crate) struct Results {
    /// Complete ones.
    pub(crate) repetitions: u32,
    pub(crate) rows: Vec<RowResult>,
    /// Failed cells and checksums that differ.
    pub(crate) complaints: Vec<String>,
}

/// Runs the plan. After Ctrl-C, the rows of the repetition under way that are complete count.
pub(crate) fn all(plan: &Plan, built: &[Built], rows: &[Row]) -> Results {
    let mut results = Results {
        rows: rows
            .iter()
            .map(|row| RowResult {
                name: row.name.clone(),
                about: row.about.clone(),
                columns: built.iter().map(|_| Column::default()).collect(),
                checksum: None,
            })
            .collect(),
        complaints: Vec::new(),
        repetitions: 0,
    };
    let cells = u64::from(plan.reps) * (rows.len() * built.len()) as u64;
    let bar = progress_bar(cells);
    for rep in 0..plan.reps as usize {
        for (index, row) in results.rows.iter_mut().enumerate() {
            // another allocator goes first each time
            let first = (rep + index) % built.len();
            measure_row(plan, built, row, first, &bar, &mut results.complaints);
            if interrupt::requested() {
                bar.finish_and_clear();
                return results;
            }
        }
        results.repetitions += 1;
    }
    bar.finish_and_clear();
    results
}

fn progress_bar(cells: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len}  {elapsed} gone, {eta} left  {msg}")
            .expect("the template is valid");
    ProgressBar::new(cells).with_style(style)
}

/// One repetition of one row under all allocators; kept only if it is not interrupted.
fn measure_row(
    plan: &Plan,
    built: &[Built],
    row: &mut RowResult,
    first: usize,
    bar: &ProgressBar,
    complaints: &mut Vec<String>,
) {
    let mut cells = Vec::with_capacity(built.len());
    for turn in 0..built.len() {
        let column = (first + turn) % built.len();
        let name = built[column].allocator.name();
        bar.set_message(format!("{} {name}", row.name));
        if !row.columns[column].failed {
            let cell = run::cell(&built[column].binary, &row.name, plan.kind, plan.scale);
            // Ctrl-C reaches the program too, so its failure means nothing then
            if interrupt::requested() {
                return;
            }
            cells.push((column, cell));
        }
        bar.inc(1);
    }
    for (column, cell) in cells {
        let name = built[column].allocator.name();
        match cell {
            Ok(cell) => {
                if let Some(complaint) = compare_checksum(row, &cell, name) {
                    complaints.push(complaint);
                }
                row.columns[column].add(cell);
            }
            Err(reason) => {
                // not tried again: a program that hangs would do so in each repetition
                row.columns[column] = Column {
                    failed: true,
                    ..Column::default()
                };
                complaints.push(format!("{} under {name}: {reason}", row.name));
            }
        }
    }
}

fn compare_checksum(row: &mut RowResult, cell: &Cell, name: &str) -> Option<String> {
    let found = cell.checksum.as_ref()?;
    let expected = row.checksum.get_or_insert_with(|| found.clone());
    (found != expected).then(|| {
        format!(
            "{} under {name}: checksum {found}, elsewhere {expected}",
            row.name
        )
    })
}
