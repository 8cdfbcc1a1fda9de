//! The tables. Each scrolls in a box of its own, so that the page never does.

use maud::{Markup, html};

use super::bars;
use super::latency::CONTROL;
use super::ranking::{
    best, competes, mean_over_best, measured, median, over_best, quartiles, rows, standings,
};
use crate::allocators::Role;
use crate::args::Kind;
use crate::model::{PEAK, Report, Row, TIME};
use crate::report::{ratio_to, show_figure, show_ns};
use crate::statistics::{Standing, geometric_mean};

/// Where there is nothing to show.
pub(super) const NONE: &str = "–";
/// Ratios above these are shaded, each more than the one before.
const SHADES: [f64; 4] = [1.05, 1.25, 1.6, 2.5];
/// Of the rows where ours is not first, so many are not folded.
const LISTED: usize = 12;
/// A best value is marked if the worst is this much larger: equal ones have no best.
const EQUAL: f64 = 1.01;

pub(super) fn ranking(report: &Report) -> Result<Markup, String> {
    let rows = rows(report, Kind::Time);
    let ours = report.ours();
    Ok(html! {
        @if !rows.is_empty() {
            section {
                h2 { "Ranking by time" }
                p { "Geometric mean, over the time rows, of an allocator's time over the best one's of the row; 1.00 would be best everywhere." }
                div.overview { (bars::means(report, &rows, TIME, "Geometric mean of the time over the best of each row")?) }
                p { "Nanoseconds for each operation, and beside them the ratio to the best of the row, which is marked. "
                    "The last lines are geometric means: of these ratios, and of our time over theirs. "
                    "The control and the floor do not compete." }
                div.scroll { table {
                    thead { (headings(report, "row")) }
                    tbody {
                        @for row in &rows { tr {
                            th title=(row.about) { (row.name) }
                            @for at in 0..report.allocators.len() { (time_cell(report, row, at)) }
                        } }
                    }
                    tfoot {
                        tr {
                            th { "geomean" }
                            @for at in 0..report.allocators.len() {
                                td.ours[Some(at) == ours] {
                                    // the floor ran some rows only: its mean is of others than the rest's
                                    @match mean_over_best(report, &rows, at, TIME).filter(|_| report.allocators[at].role != Role::Floor) {
                                        Some((mean, _)) => { b { (ratio(mean)) } },
                                        None => (NONE),
                                    }
                                }
                            }
                        }
                        @if ours.is_some() { tr {
                            th { "ours / theirs" }
                            @for at in 0..report.allocators.len() {
                                td.ours[Some(at) == ours] { (ours_over(report, &rows, at)) }
                            }
                        } }
                    }
                } }
            }
        }
    })
}

fn ours_over(report: &Report, rows: &[&Row], at: usize) -> String {
    let ratios: Vec<f64> = rows
        .iter()
        .filter_map(|row| ratio_to(report, row, TIME, at))
        .collect();
    match geometric_mean(&ratios) {
        Some(mean) if report.ours() != Some(at) => ratio(mean),
        _ => NONE.to_owned(),
    }
}

/// The names, ours marked, those out of competition faint.
fn headings(report: &Report, first: &str) -> Markup {
    html! { tr {
        th { (first) }
        @for (at, allocator) in report.allocators.iter().enumerate() {
            th.ours[Some(at) == report.ours()].faint[!competes(report, at)] title=(allocator.about) { (allocator.name) }
        }
    } }
}

fn time_cell(report: &Report, row: &Row, at: usize) -> Markup {
    let Some(ns) = median(row, at, TIME) else {
        return missing(report, row, at);
    };
    let ratio_to_best = over_best(report, row, at, TIME);
    let shade = shade(ratio_to_best.filter(|_| competes(report, at)));
    let is_best = Some(ns) == best(report, row, TIME);
    let spread = quartiles(row, at, TIME)
        .map(|(from, to)| format!("quartiles {} and {} ns", show_ns(from), show_ns(to)));
    html! {
        td class=(format!("{} {shade}", standing_class(report, at, is_best))) title=[spread] {
            (show_ns(ns)) " " small { (ratio_to_best.map_or_else(String::new, ratio)) }
        }
    }
}

fn missing(report: &Report, row: &Row, at: usize) -> Markup {
    html! { td class=(standing_class(report, at, false)) title=[&row.columns[at].failed] { (NONE) } }
}

/// The classes of a cell for whose it is and whether it is the best.
fn standing_class(report: &Report, at: usize, is_best: bool) -> &'static str {
    match (report.allocators[at].role, is_best) {
        (Role::Ours, true) => "ours best",
        (Role::Ours, false) => "ours",
        (Role::Peer, true) => "best",
        (Role::Peer, false) => "",
        (Role::Again | Role::Variant | Role::Floor, _) => "faint",
    }
}

/// The class for a ratio.
fn shade(ratio: Option<f64>) -> String {
    let above = |ratio| SHADES.iter().filter(|&&bound| ratio > bound).count();
    format!("h{}", ratio.map_or(0, above))
}

pub(super) fn ratio(ratio: f64) -> String {
    match ratio {
        ratio if ratio < 10.0 => format!("{ratio:.2}"),
        ratio if ratio < 100.0 => format!("{ratio:.1}"),
        ratio => format!("{ratio:.0}"),
    }
}

/// All figures of these rows, a line each.
pub(super) fn figures(report: &Report, rows: &[&Row]) -> Markup {
    html! { div.scroll { table {
        thead { (headings(report, "row and figure")) }
        @for row in rows {
            tbody {
                tr.row { th { (row.name) } td.about colspan=(report.allocators.len()) { (row.about) } }
                @for key in row.keys() { tr {
                    th { (label(key)) }
                    @for at in 0..report.allocators.len() { (figure_cell(report, row, at, key)) }
                } }
            }
        }
    } } }
}

/// A key as words, with the unit in which [`show_figure`] gives it.
fn label(key: &str) -> String {
    let (name, unit) = match (key.strip_suffix("_kb"), key.strip_suffix("_ns")) {
        (Some(name), _) => (name, ", MiB"),
        (_, Some(name)) => (name, ", ns"),
        _ => (key, ""),
    };
    let name = name.replace("p999", "p99.9").replace('_', " ");
    format!("{name}{unit}")
}

fn figure_cell(report: &Report, row: &Row, at: usize, key: &str) -> Markup {
    // infinite where something was divided by nothing
    let Some(value) = median(row, at, key) else {
        return missing(report, row, at);
    };
    let is_best =
        less_is_better(key) && Some(value) == best(report, row, key) && differs(report, row, key);
    html! { td class=(standing_class(report, at, is_best)) { (show_figure(key, value)) } }
}

/// Sizes, their ratios and times; other keys describe the work.
fn less_is_better(key: &str) -> bool {
    ["_kb", "_ratio", "_ns"]
        .iter()
        .any(|end| key.ends_with(end))
}

fn differs(report: &Report, row: &Row, key: &str) -> bool {
    let most = (0..report.allocators.len())
        .filter(|&at| competes(report, at))
        .filter_map(|at| median(row, at, key))
        .fold(0.0, f64::max);
    best(report, row, key).is_some_and(|best| most > EQUAL * best)
}

/// Two processors do not show contention by time; the locks that would suffer from it can be counted.
pub(super) fn locks(report: &Report) -> Markup {
    html! {
        @if !report.locks.is_empty() {
            details {
                summary { "Locks that flagstone takes in time rows" }
                p { "For a million operations: how often it takes a lock, and how often that was not free." }
                div.lists { div.scroll { table {
                    thead { tr { th { "row" } th { "taken" } th { "waited" } } }
                    tbody { @for locks in &report.locks { tr {
                        th { (locks.row) }
                        td { (format!("{:.0}", locks.taken)) }
                        td { (format!("{:.1}", locks.waited)) }
                    } } }
                } } }
            }
        }
    }
}

pub(super) fn peaks(report: &Report) -> Result<Markup, String> {
    let rows: Vec<&Row> = measured(report)
        .filter(|row| best(report, row, PEAK).is_some())
        .collect();
    Ok(html! {
        @if !rows.is_empty() {
            section {
                h2 { "Peak memory" }
                p { "Geometric mean, over all rows, of the peak resident size over the least one's of the row." }
                div.overview { (bars::means(report, &rows, PEAK, "Geometric mean of the peak resident size over the least of each row")?) }
                details {
                    summary { "Peak resident MiB of every row" }
                    div.scroll { table {
                        thead { (headings(report, "row")) }
                        tbody { @for row in &rows { tr {
                            th title=(row.about) { (row.name) }
                            @for at in 0..report.allocators.len() { (figure_cell(report, row, at, PEAK)) }
                        } } }
                    } }
                }
            }
        }
    })
}

/// Where ours is not first: time, latency, peak size.
pub(super) fn behind(report: &Report) -> Markup {
    let all: Vec<&Row> = measured(report).collect();
    let mut latencies = rows(report, Kind::Latency);
    latencies.retain(|row| row.name != CONTROL);
    let lists = [
        ("Time", rows(report, Kind::Time), TIME),
        ("Latency, p99", latencies.clone(), "p99_ns"),
        ("Latency, p99.9", latencies, "p999_ns"),
        ("Peak memory", all, PEAK),
    ];
    html! {
        @if report.ours().is_some() && report.peers().next().is_some() {
            section {
                h2 { "Where ours is not first" }
                p { "The ratio is ours over the best peer, which is chosen on one half of the repetitions and scored on the other; ≈ says that the difference is within the spread of either." }
                div.lists {
                    @for (title, rows, key) in lists { (losses(report, title, &rows, key)) }
                }
            }
        }
    }
}

fn losses(report: &Report, title: &str, rows: &[&Row], key: &str) -> Markup {
    let all = standings(report, rows, key);
    let mut behind: Vec<&(&Row, Standing)> = all
        .iter()
        .filter(|(_, standing)| standing.ratio > 1.0)
        .collect();
    behind.sort_by(|a, b| b.1.ratio.total_cmp(&a.1.ratio));
    let (most, rest) = behind.split_at(behind.len().min(LISTED));
    let list = |part: &[&(&Row, Standing)]| {
        html! { div.scroll { table.list {
            thead { tr { th { "row" } th { "ratio" } th { "to" } } }
            tbody { @for (row, standing) in part { tr {
                th title=(row.about) { (row.name) }
                td { @if within_spread(report, row, key, standing) { "≈ " } (ratio(standing.ratio)) }
                td { (report.allocators[standing.best].name) }
            } } }
        } } }
    };
    html! {
        @if !all.is_empty() {
            div {
                h3 { (title) ": " (behind.len()) " of " (all.len()) " rows" }
                @if !most.is_empty() { (list(most)) }
                @if !rest.is_empty() { details { summary { (rest.len()) " more" } (list(rest)) } }
            }
        }
    }
}

fn within_spread(report: &Report, row: &Row, key: &str, standing: &Standing) -> bool {
    let spread = |at: usize| {
        row.columns[at]
            .summary(key)
            .map_or(0.0, |summary| summary.spread)
    };
    let ours = report.ours().map_or(0.0, spread);
    standing.ratio - 1.0 <= ours.max(spread(standing.best))
}
