//! What the user gets to see.

use crate::args::{Kind, Plan};
use crate::build::Built;
use crate::interrupt;
use crate::measure::{Column, Results, RowResult};
use crate::run::{PEAK, TIME};
use crate::statistics::{Summary, geometric_mean};
use crate::table::Table;

/// Where there is nothing to show.
const NONE: &str = "-";

pub(crate) fn print(plan: &Plan, built: &[Built], results: &Results) {
    if interrupt::requested() {
        println!("interrupted: what follows covers the complete measurements only");
    }
    let profile = plan.profile.describe();
    match plan.kind {
        Kind::Time => {
            println!("\nns per operation, median and (p75-p25)/median; {profile}\n");
            times(built, results).print();
            if plan.show_peak {
                println!("\npeak resident size, median\n");
                peaks(built, results).print();
            }
        }
        Kind::Memory => {
            println!("\nmemory, medians; {profile}\n");
            memory(built, results).print();
        }
    }
    println!(
        "
{} of {} repetitions complete, scale {}, nothing pinned to a processor.",
        results.repetitions, plan.reps, plan.scale
    );
    if !results.complaints.is_empty() {
        println!("\ncomplaints:");
        results
            .complaints
            .iter()
            .for_each(|complaint| println!("  {complaint}"));
    }
}

fn names(built: &[Built]) -> impl Iterator<Item = &'static str> {
    built.iter().map(|built| built.allocator.name())
}

fn headings(built: &[Built], first: &str) -> Vec<String> {
    let mut headings = vec![first.to_owned()];
    headings.extend(names(built).map(str::to_owned));
    if let Some(base) = names(built).next() {
        headings.extend(names(built).skip(1).map(|peer| format!("{base}/{peer}")));
    }
    headings
}

/// The base's figure over each peer's.
fn ratios(medians: &[Option<f64>]) -> Vec<Option<f64>> {
    let base = medians.first().copied().flatten();
    let peers = medians.iter().skip(1);
    peers
        .map(|peer| Some(base? / peer.filter(|&value| value > 0.0)?))
        .collect()
}

fn show(value: Option<f64>, format: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), format)
}

fn show_ratio(ratio: Option<f64>) -> String {
    show(ratio, |ratio| format!("{ratio:.2}"))
}

/// Three digits that count.
fn show_ns(ns: f64) -> String {
    match ns {
        ns if ns < 10.0 => format!("{ns:.2}"),
        ns if ns < 100.0 => format!("{ns:.1}"),
        ns => format!("{ns:.0}"),
    }
}

fn medians(row: &RowResult, key: &str) -> Vec<Option<f64>> {
    let median = |column: &Column| Some(Summary::of(column.samples(key))?.median);
    row.columns.iter().map(median).collect()
}

fn times(built: &[Built], results: &Results) -> Table {
    let mut table = Table::new(headings(built, "row"));
    let mut all_ratios: Vec<Vec<f64>> = vec![Vec::new(); built.len().saturating_sub(1)];
    let mut all_times: Vec<Vec<f64>> = vec![Vec::new(); built.len()];
    for row in &results.rows {
        let medians = medians(row, TIME);
        // a mean over different rows per allocator would compare nothing
        if medians.iter().all(Option::is_some) {
            for (times, median) in all_times.iter_mut().zip(medians.iter().flatten()) {
                times.push(*median);
            }
        }
        let mut cells = vec![row.name.clone()];
        cells.extend(row.columns.iter().map(|column| {
            Summary::of(column.samples(TIME)).map_or_else(
                || NONE.to_owned(),
                |summary| {
                    format!(
                        "{} {:>3.0}%",
                        show_ns(summary.median),
                        100.0 * summary.spread
                    )
                },
            )
        }));
        for (ratio, all) in ratios(&medians).into_iter().zip(&mut all_ratios) {
            all.extend(ratio);
            cells.push(show_ratio(ratio));
        }
        table.add(cells);
    }
    table.rule();
    let mut cells = vec!["geomean".to_owned()];
    cells.extend(all_times.iter().map(|times| {
        // the blank stands under the per cent of the cells above
        show(geometric_mean(times), |mean| {
            format!("{}     ", show_ns(mean))
        })
    }));
    cells.extend(
        all_ratios
            .iter()
            .map(|ratios| show_ratio(geometric_mean(ratios))),
    );
    table.add(cells);
    table
}

fn peaks(built: &[Built], results: &Results) -> Table {
    let mut table = Table::new(headings(built, "row"));
    for row in &results.rows {
        add_figure(&mut table, row.name.clone(), PEAK, &medians(row, PEAK));
    }
    table
}

fn memory(built: &[Built], results: &Results) -> Table {
    let mut table = Table::new(headings(built, "row and figure"));
    for (index, row) in results.rows.iter().enumerate() {
        if index > 0 {
            table.rule();
        }
        table.text(format!("{}: {}", row.name, row.about));
        let keys = row.columns.iter().find(|column| !column.figures.is_empty());
        for (key, _) in keys.map_or(&[][..], |column| &column.figures) {
            let label = key.strip_suffix("_kb").unwrap_or(key).replace('_', " ");
            add_figure(&mut table, format!("  {label}"), key, &medians(row, key));
        }
    }
    table
}

fn add_figure(table: &mut Table, label: String, key: &str, medians: &[Option<f64>]) {
    let mut cells = vec![label];
    cells.extend(
        medians
            .iter()
            .map(|&median| show(median, |value| show_figure(key, value))),
    );
    cells.extend(ratios(medians).into_iter().map(show_ratio));
    table.add(cells);
}

fn show_figure(key: &str, value: f64) -> String {
    if key.ends_with("_kb") {
        format!("{:.1} MiB", value / 1024.0)
    } else if key.ends_with("_ratio") {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}
