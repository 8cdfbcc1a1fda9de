//! The tables on the terminal.

use std::io::{self, Write};
use std::path::Path;

use crate::allocators::Role;
use crate::args::Kind;
use crate::baseline::Move;
use crate::model::{PEAK, Report, Row, TIME};
use crate::scale;
use crate::statistics::{Standing, geometric_mean, standing};
use crate::table::Table;

/// Where there is nothing to show.
const NONE: &str = "-";
/// Of rows that take more memory than the best peer, so many are named.
const NAMED: usize = 5;

pub(crate) fn print(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let facts = &report.facts;
    if facts.interrupted {
        writeln!(
            out,
            "interrupted: what follows covers the complete measurements only"
        )?;
    }
    let of_kind = |kind: Kind| -> Vec<&Row> {
        let measured = |row: &&Row| row.kind == kind && row.keys().next().is_some();
        report.rows.iter().filter(measured).collect()
    };
    let (times, latencies, sizes, curves) = (
        of_kind(Kind::Time),
        of_kind(Kind::Latency),
        of_kind(Kind::Memory),
        of_kind(Kind::Curve),
    );
    if !times.is_empty() {
        writeln!(
            out,
            "\nns per operation, ours being flagstone: median and spread, (p75 - p25) / median; ratios: ours / theirs\n"
        )?;
        time_table(report, &times).print(out)?;
    }
    if !latencies.is_empty() {
        writeln!(
            out,
            "\nsingle operations: medians of the repetitions' percentiles, ns\n"
        )?;
        figure_table(report, &latencies).print(out)?;
    }
    if !sizes.is_empty() {
        writeln!(
            out,
            "\nmemory: medians, MiB unless it is a ratio or a count\n"
        )?;
        figure_table(report, &sizes).print(out)?;
    }
    if !curves.is_empty() {
        writeln!(out, "\nns per operation: medians\n")?;
        figure_table(report, &curves).print(out)?;
    }
    scale::print(report, &of_kind(Kind::Scale), out)?;
    print_peaks(report, out)?;
    print_locks(report, out)?;
    print_legend(report, out)?;
    if !report.complaints.is_empty() {
        writeln!(out, "\ncomplaints:")?;
        for line in &report.complaints {
            writeln!(out, "  {line}")?;
        }
    }
    Ok(())
}

/// How ours stands in one figure of one row against the best of the peers.
pub(crate) fn standing_of(report: &Report, row: &Row, key: &str) -> Option<Standing> {
    standing_at(report, row, key, report.ours()?)
}

/// The same of another column.
pub(crate) fn standing_at(report: &Report, row: &Row, key: &str, at: usize) -> Option<Standing> {
    let ours = row.columns[at].samples(key);
    let peers = report
        .peers()
        .map(|peer| (peer, row.columns[peer].samples(key)));
    standing(ours, peers)
}

/// Ours over another's, by the medians.
pub(crate) fn ratio_to(report: &Report, row: &Row, key: &str, other: usize) -> Option<f64> {
    let ours = row.columns[report.ours()?].summary(key)?.median;
    let theirs = row.columns[other].summary(key)?.median;
    (theirs > 0.0).then(|| ours / theirs)
}

/// Everyone but ours.
fn others(report: &Report) -> Vec<usize> {
    let ours = report.ours();
    (0..report.allocators.len())
        .filter(|index| Some(*index) != ours)
        .collect()
}

fn time_table(report: &Report, rows: &[&Row]) -> Table {
    let others = others(report);
    let ours = report.ours();
    let mut headings: Vec<String> = ["row", "ours", "+-%", "best peer", "ratio"]
        .map(str::to_owned)
        .into();
    headings.extend(
        others
            .iter()
            .map(|&other| report.allocators[other].short.clone()),
    );
    let mut table = Table::new(headings);
    let mut standings = Vec::new();
    let mut columns: Vec<Vec<f64>> = vec![Vec::new(); others.len()];
    for row in rows {
        let summary = ours.and_then(|ours| row.columns[ours].summary(TIME));
        let standing = standing_of(report, row, TIME);
        standings.extend(standing.map(|standing| standing.ratio));
        let mut cells = vec![
            row.name.clone(),
            show(summary.map(|summary| summary.median), show_ns),
            show(summary.map(|summary| 100.0 * summary.spread), |percent| {
                format!("{percent:.0}")
            }),
            show(standing, |standing| {
                report.allocators[standing.best].short.clone()
            }),
            show_ratio(standing.map(|standing| standing.ratio)),
        ];
        for (ratios, &other) in columns.iter_mut().zip(&others) {
            let ratio = ratio_to(report, row, TIME, other);
            ratios.extend(ratio);
            cells.push(show_ratio(ratio));
        }
        table.add(cells);
    }
    table.rule();
    let mut cells = vec!["geomean".to_owned(); 1];
    cells.extend([String::new(), String::new(), String::new()]);
    cells.push(show_ratio(geometric_mean(&standings)));
    cells.extend(
        columns
            .iter()
            .map(|ratios| show_ratio(geometric_mean(ratios))),
    );
    table.add(cells);
    table
}

/// Rows of several figures: a line each, everyone's own values.
fn figure_table(report: &Report, rows: &[&Row]) -> Table {
    let mut headings = vec!["row and figure".to_owned(), "ratio".to_owned()];
    headings.extend(
        report
            .allocators
            .iter()
            .map(|allocator| allocator.short.clone()),
    );
    let mut table = Table::new(headings);
    for row in rows {
        table.text(format!("{}: {}", row.name, row.about));
        for key in row.keys() {
            let label = ["_kb", "_ns"]
                .iter()
                .find_map(|suffix| key.strip_suffix(suffix))
                .unwrap_or(key);
            let standing = standing_of(report, row, key);
            let mut cells = vec![
                format!("  {}", label.replace('_', " ")),
                show_ratio(standing.map(|standing| standing.ratio)),
            ];
            cells.extend(row.columns.iter().map(|column| {
                show(column.summary(key).map(|summary| summary.median), |value| {
                    show_figure(key, value)
                })
            }));
            table.add(cells);
        }
    }
    table
}

/// Peak resident sizes of all rows against the least of the peers, in a few lines.
fn print_peaks(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut peaks: Vec<(f64, &Row, usize)> = report
        .rows
        .iter()
        .filter_map(|row| {
            let standing = standing_of(report, row, PEAK)?;
            Some((standing.ratio, row, standing.best))
        })
        .collect();
    let ratios: Vec<f64> = peaks.iter().map(|(ratio, ..)| *ratio).collect();
    let Some(mean) = geometric_mean(&ratios) else {
        return Ok(());
    };
    writeln!(
        out,
        "\npeak resident size: {mean:.2} of the least peer's, geometric mean of {} rows; most:",
        ratios.len()
    )?;
    peaks.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (ratio, row, best) in peaks.into_iter().take(NAMED) {
        writeln!(
            out,
            "  {:<12} {ratio:.2} of {}",
            row.name, report.allocators[best].name
        )?;
    }
    Ok(())
}

/// Two processors do not show contention by time; the locks that would suffer from it can be counted.
fn print_locks(report: &Report, out: &mut impl Write) -> io::Result<()> {
    if report.locks.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\nflagstone's locks for a million operations: taken, and of these waited for\n"
    )?;
    let mut table = Table::new(["row", "taken", "waited"].map(str::to_owned).into());
    for locks in &report.locks {
        table.add(vec![
            locks.row.clone(),
            format!("{:.0}", locks.taken),
            format!("{:.1}", locks.waited),
        ]);
    }
    table.print(out)?;
    Ok(())
}

fn print_legend(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let facts = &report.facts;
    writeln!(out)?;
    for allocator in &report.allocators {
        writeln!(
            out,
            "{:<6} {}: {}",
            allocator.short, allocator.name, allocator.about
        )?;
    }
    for skipped in &report.skipped {
        writeln!(out, "skipped {}: {}", skipped.name, skipped.reason)?;
    }
    writeln!(out, "ratio: against the best peer of the row, chosen on one half of the repetitions and scored on the other
{}; scale {}; {} x {}; {} MiB; Linux {}; huge pages {}; {}
{} s, load {} at the start, nothing pinned to a processor",
        facts.profile,
        facts.scale,
        facts.cpus,
        facts.cpu,
        facts.memory_mib,
        facts.kernel,
        facts.huge_pages,
        facts.rustc,
        facts.seconds,
        facts.load
    )?;
    if let Some(again) = report.position(Role::Again)
        && let Some((mean, rows)) = mean_to(report, again)
    {
        writeln!(
            out,
            "control: ours / ours again is {mean:.3} over {rows} rows"
        )?;
    }
    for (index, variant) in report.allocators.iter().enumerate() {
        if variant.role == Role::Variant
            && let Some((mean, rows)) = mean_to(report, index)
        {
            let (name, price) = (&variant.name, 1.0 / mean);
            writeln!(
                out,
                "{name}: {price:.2} of ours in geometric mean over {rows} rows"
            )?;
        }
    }
    Ok(())
}

/// Geometric mean of ours divided by another, and over how many time rows.
fn mean_to(report: &Report, other: usize) -> Option<(f64, usize)> {
    let rows = report.rows.iter().filter(|row| row.kind == Kind::Time);
    let ratios: Vec<f64> = rows
        .filter_map(|row| ratio_to(report, row, TIME, other))
        .collect();
    Some((geometric_mean(&ratios)?, ratios.len()))
}

/// What [`crate::baseline::moves`] found.
pub(crate) fn print_moves(
    moves: &[Move],
    compared: usize,
    path: &Path,
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(
        out,
        "\nsince {}: {} of {compared} figures moved beyond the spread",
        path.display(),
        moves.len()
    )?;
    for Move {
        row,
        key,
        before,
        after,
    } in moves
    {
        writeln!(
            out,
            "  {row:<12} {key:<16} {} -> {}  {:.2}",
            show_figure(key, *before),
            show_figure(key, *after),
            after / before
        )?;
    }
    Ok(())
}

pub(crate) fn show<T>(value: Option<T>, format: impl Fn(T) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), format)
}

pub(crate) fn show_ratio(ratio: Option<f64>) -> String {
    show(ratio, |ratio| format!("{ratio:.2}"))
}

/// Three digits that count.
pub(crate) fn show_ns(ns: f64) -> String {
    match ns {
        ns if ns < 10.0 => format!("{ns:.2}"),
        ns if ns < 100.0 => format!("{ns:.1}"),
        ns => format!("{ns:.0}"),
    }
}

pub(crate) fn show_figure(key: &str, value: f64) -> String {
    if key.ends_with("_kb") {
        format!("{:.1}", value / 1024.0)
    } else if key.ends_with("_ratio") {
        format!("{value:.2}")
    } else if key == TIME || key.ends_with("_ns") {
        show_ns(value)
    } else {
        format!("{value:.0}")
    }
}
