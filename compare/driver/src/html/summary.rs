//! The top of the page: what came out, in one paragraph and a few numbers.

use maud::{Markup, html};

use super::ink;
use super::ranking::{measured, rows, standings};
use super::tables::ratio;
use crate::allocators::Role;
use crate::args::Kind;
use crate::model::{PEAK, Report, Row, TIME};
use crate::report::ratio_to;
use crate::statistics::geometric_mean;

/// Everything that the paragraph says.
struct Findings {
    /// Geometric mean of ours over the best peer.
    time: Option<f64>,
    first: usize,
    of: usize,
    peak: Option<f64>,
    peaks: usize,
    control: Option<f64>,
}

fn find(report: &Report) -> Findings {
    let times = rows(report, Kind::Time);
    let all: Vec<&Row> = measured(report).collect();
    let ratios = |rows: &[&Row], key: &str| -> Vec<f64> {
        let standings = standings(report, rows, key);
        standings
            .iter()
            .map(|(_, standing)| standing.ratio)
            .collect()
    };
    let (time, peak) = (ratios(&times, TIME), ratios(&all, PEAK));
    let again = report.position(Role::Again);
    let control: Vec<f64> = again
        .map(|again| {
            times
                .iter()
                .filter_map(|row| ratio_to(report, row, TIME, again))
                .collect()
        })
        .unwrap_or_default();
    Findings {
        first: time.iter().filter(|ratio| **ratio <= 1.0).count(),
        of: time.len(),
        time: geometric_mean(&time),
        peak: geometric_mean(&peak),
        peaks: peak.len(),
        control: geometric_mean(&control),
    }
}

pub(super) fn header(report: &Report) -> Markup {
    let findings = find(report);
    let facts = &report.facts;
    html! {
        header {
            h1 { "flagstone beside its peers" }
            p.faint { (facts.date) " · version " (facts.version)
                @if let Some(commit) = &facts.commit { " · " (commit) }
                " · " (facts.cpus) " × " (facts.cpu) }
            @if facts.interrupted {
                p.warning { b { "Interrupted." } " The page covers the measurements that were complete, not the whole suite." }
            }
            @if facts.scale < 1.0 {
                p.warning { "Each cell did " (format!("{:.0} %", 100.0 * facts.scale)) " of the usual work: good for a look, not for a claim." }
            }
            (paragraph(report, &findings))
            (tiles(&findings))
        }
    }
}

fn paragraph(report: &Report, findings: &Findings) -> Markup {
    html! { p.lead {
        @match report.ours() {
            None => "flagstone was not measured; the allocators below are compared with each other.",
            Some(_) if findings.time.is_none() && findings.peak.is_none() => "There is no figure that both flagstone and a peer have.",
            Some(_) => {
                @if let Some(time) = findings.time {
                    "Over " (findings.of) " time rows flagstone takes " b { (ratio(time)) } " of the best peer's time, geometric mean; "
                    "the best peer is chosen anew for each row. It is first in " b { (findings.first) } " of them. "
                }
                @if let Some(peak) = findings.peak {
                    "Its peak resident size is " b { (ratio(peak)) } " of the least peer's over " (findings.peaks) " rows. "
                }
                @if let Some(control) = findings.control {
                    "The control, the same program under a second name, comes out at " b { (format!("{control:.3}")) }
                    ": a difference of that size means nothing."
                }
            }
        }
    } }
}

fn tiles(findings: &Findings) -> Markup {
    let tiles = [
        (findings.time.map(ratio), "time, ours / best peer"),
        (
            (findings.of > 0).then(|| format!("{} / {}", findings.first, findings.of)),
            "time rows first",
        ),
        (findings.peak.map(ratio), "peak memory, ours / least peer"),
        (
            findings.control.map(|control| format!("{control:.3}")),
            "control, ours / ours again",
        ),
    ];
    html! { div.tiles {
        @for (value, label) in tiles { @if let Some(value) = value {
            div { b { (value) } span { (label) } }
        } }
    } }
}

/// The colours; unchecking a box fades that allocator in all pictures.
pub(super) fn legend(report: &Report) -> Markup {
    html! { nav aria-label="Allocators" {
        @for (at, allocator) in report.allocators.iter().enumerate() {
            label title=(allocator.about) {
                input type="checkbox" checked id=(ink::box_id(at));
                (ink::swatch(at))
                @if Some(at) == report.ours() { b { (allocator.name) } } @else { (allocator.name) }
            }
        }
        span.faint { "unchecked: faded in all pictures" }
    } }
}
