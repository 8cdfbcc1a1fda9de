//! The tables of scale rows: how ours stands at each size, and how its cost grows with the size.

use std::io::{self, Write};

use crate::allocators::Role;
use crate::model::{LONGEST, PEAK, Report, Row, TIME};
use crate::report::{show, show_figure, show_ns, show_ratio, standing_at, standing_of};
use crate::size::Size;
use crate::table::Table;

const SYSTEM: &str = "system_ms";
const FAULTS: &str = "faults";
const AFTER: &str = "after_3s_kb";

pub(crate) fn print(report: &Report, rows: &[&Row], out: &mut impl Write) -> io::Result<()> {
    let mut sizes: Vec<Size> = rows.iter().filter_map(|row| row.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    for &size in &sizes {
        let of_size: Vec<&Row> = rows
            .iter()
            .copied()
            .filter(|row| row.size == Some(size))
            .collect();
        writeln!(
            out,
            "\nheaps of {size}: ns per call and the best peer; seconds in the kernel, page faults; MiB at \
             the peak and the least peer, MiB after 3 s of light life; the longest call\n"
        )?;
        standings(report, &of_size).print(out)?;
        writeln!(out, "\nheaps of {size}: everyone's ns per call\n")?;
        times(report, &of_size).print(out)?;
    }
    if let (Some(&least), Some(&most)) = (sizes.first(), sizes.last())
        && least < most
    {
        writeln!(
            out,
            "\nns per call at {most} over those at {least}: ours, and what is best at {most}\n"
        )?;
        growth(report, rows, least, most).print(out)?;
    }
    Ok(())
}

/// A line for ours, and one for each of its variants.
fn standings(report: &Report, rows: &[&Row]) -> Table {
    let headings = [
        "row",
        "ns",
        "best",
        "ratio",
        "system",
        "faults",
        "peak",
        "least",
        "ratio",
        "after 3 s",
        "longest",
    ];
    let mut table = Table::new(headings.map(str::to_owned).into());
    for row in rows {
        for (at, allocator) in report.allocators.iter().enumerate() {
            let name = match allocator.role {
                Role::Ours => row.program_name().to_owned(),
                Role::Variant | Role::Again => format!("  {}", allocator.short),
                Role::Peer | Role::Floor => continue,
            };
            let column = &row.columns[at];
            let median = |key| column.summary(key).map(|summary| summary.median);
            let of = |key| show(median(key), |value| show_figure(key, value));
            let against = |key| {
                let standing = standing_at(report, row, key, at);
                let best = show(standing, |standing| {
                    report.allocators[standing.best].short.clone()
                });
                (best, show_ratio(standing.map(|standing| standing.ratio)))
            };
            let (best, ratio) = against(TIME);
            let (least, peak_ratio) = against(PEAK);
            table.add(vec![
                name,
                of(TIME),
                best,
                ratio,
                show(median(SYSTEM), |ms| format!("{:.2}", ms / 1e3)),
                of(FAULTS),
                of(PEAK),
                least,
                peak_ratio,
                of(AFTER),
                show(median(LONGEST), show_time),
            ]);
        }
    }
    table
}

fn times(report: &Report, rows: &[&Row]) -> Table {
    let mut headings = vec!["row".to_owned()];
    let names = report.allocators.iter();
    headings.extend(names.map(|allocator| allocator.short.clone()));
    let mut table = Table::new(headings);
    for row in rows {
        let mut cells = vec![row.program_name().to_owned()];
        cells.extend((0..row.columns.len()).map(|at| show(time(row, at), show_ns)));
        table.add(cells);
    }
    table
}

fn time(row: &Row, at: usize) -> Option<f64> {
    Some(row.columns[at].summary(TIME)?.median)
}

fn growth(report: &Report, rows: &[&Row], least: Size, most: Size) -> Table {
    let headings = ["row", "ours", "best", "theirs"];
    let mut table = Table::new(headings.map(str::to_owned).into());
    for large in rows.iter().filter(|row| row.size == Some(most)) {
        let small = rows
            .iter()
            .find(|row| row.size == Some(least) && row.program_name() == large.program_name());
        let grown = |at: usize| Some(time(large, at)? / time(small?, at)?);
        let best = standing_of(report, large, TIME).map(|standing| standing.best);
        table.add(vec![
            large.program_name().to_owned(),
            show_ratio(report.ours().and_then(grown)),
            show(best, |best| report.allocators[best].short.clone()),
            show_ratio(best.and_then(grown)),
        ]);
    }
    table
}

/// Nanoseconds in the unit in which they are read.
fn show_time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.1} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Kind;
    use crate::html::tests::{column, contestant, report, row};

    fn of_size(size: &str, times: [f64; 4]) -> Row {
        let columns = times.map(|ns| {
            let figures = [("ns", ns), ("system_ms", 250.0), ("peak_kb", 1024.0 * ns)];
            let figures = figures.map(|(key, value)| (key, [value]));
            let figures: Vec<(&str, &[f64])> = figures
                .iter()
                .map(|(key, values)| (*key, &values[..]))
                .collect();
            column(&figures, &[])
        });
        Row {
            size: Some(size.parse().expect("a size")),
            ..row(&format!("s_x/{size}"), Kind::Scale, columns.into())
        }
    }

    #[test]
    fn ours_and_its_variants_stand_against_the_best_peer_of_each_size() {
        let allocators = [
            ("flagstone", Role::Ours),
            ("slow", Role::Peer),
            ("fast", Role::Peer),
            ("budget", Role::Variant),
        ];
        let allocators = allocators.map(|(name, role)| contestant(name, role));
        let rows = vec![
            of_size("64M", [30.0, 40.0, 20.0, 10.0]),
            of_size("4G", [90.0, 50.0, 60.0, 25.0]),
        ];
        let report = report(allocators.into(), rows);
        let mut text = Vec::new();
        let rows: Vec<&Row> = report.rows.iter().collect();
        print(&report, &rows, &mut text).expect("a vector takes all");
        let text = String::from_utf8(text).expect("text");
        let words: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        for line in [
            "s_x 30.0 fast 1.50 0.25 - 30.0 fast 1.50 - -",
            "budget 10.0 fast 0.50 0.25 - 10.0 fast 0.50 - -",
            "s_x 90.0 slow 1.80 0.25 - 90.0 slow 1.80 - -",
            "budget 25.0 slow 0.50 0.25 - 25.0 slow 0.50 - -",
            // everyone's
            "s_x 90.0 50.0 60.0 25.0",
            // 4G over 64M
            "s_x 3.00 slow 1.25",
        ] {
            let line: Vec<&str> = line.split(' ').collect();
            assert!(words.contains(&line), "{line:?} in\n{text}");
        }
    }

    #[test]
    fn times_are_read_in_their_units() {
        assert_eq!(
            [12.0, 1234.0, 5_670_000.0, 8.9e9].map(show_time),
            ["12 ns", "1.2 us", "5.7 ms", "8.90 s"]
        );
    }
}
