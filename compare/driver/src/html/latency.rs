//! How long single operations take: percentiles on a logarithmic axis.

use maud::{Markup, html};
use plotters::chart::ChartBuilder;
use plotters::coord::combinators::IntoLogRange;
use plotters::element::{Circle, IntoDynElement, TriangleMarker};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color, TRANSPARENT};

use super::ink::Ink;
use super::picture::{self, LETTERS, Shape, fill, letters, line, room, stroke, write};
use super::ranking::{median, rows};
use super::tables;
use crate::args::Kind;
use crate::model::{Report, Row};

const P50: &str = "p50_ns";
const P99: &str = "p99_ns";
const P999: &str = "p999_ns";
const MAX: &str = "max_ns";
const KEYS: [&str; 4] = [P50, P99, P999, MAX];
/// The row that calls no allocator.
pub(super) const CONTROL: &str = "l_empty";
const PITCH: u32 = 34;

pub(super) fn section(report: &Report) -> Result<Markup, String> {
    let mut rows = rows(report, Kind::Latency);
    // the control first, the others as they come
    rows.sort_by_key(|row| row.name != CONTROL);
    let control = rows.first().copied().filter(|row| row.name == CONTROL);
    let range = range(report, &rows);
    Ok(html! {
        @if !rows.is_empty() {
            section {
                h2 { "Latency of single operations" }
                p { "A line from the median to the longest operation (the median of the runs' longest). ● is p50, ○ p99, ▲ p99.9, the end max. "
                    "All rows have one scale, and it is logarithmic. "
                    @if control.is_some() {
                        b { (CONTROL) } " calls no allocator: it shows what the machine itself does to a program that only reads the clock. "
                        "In the other rows the two grey lines are its p99.9 and its maximum, medians over all programs."
                    }
                }
                @if let Some(range) = range {
                    div.grid.wide {
                        @for row in &rows {
                            figure {
                                figcaption { b { (row.name) } " " (row.about) }
                                (percentiles(report, row, control, range)?)
                            }
                        }
                    }
                }
                details {
                    summary { "Latency figures, ns" }
                    (tables::figures(report, &rows))
                }
            }
        }
    })
}

/// Whole decades around everything there is to draw.
fn range(report: &Report, rows: &[&Row]) -> Option<(f64, f64)> {
    let values = rows.iter().flat_map(|row| {
        let columns = 0..report.allocators.len();
        columns.flat_map(move |at| KEYS.iter().filter_map(move |key| median(row, at, key)))
    });
    let (least, most) = values
        // a clock may say zero
        .map(|ns| ns.max(1.0))
        .fold((f64::INFINITY, 0.0_f64), |(least, most), ns| {
            (least.min(ns), most.max(ns))
        });
    if most < least {
        return None;
    }
    let (from, to) = (least.log10().floor(), most.log10().ceil());
    Some((10_f64.powf(from), 10_f64.powf(to.max(from + 1.0))))
}

fn percentiles(
    report: &Report,
    row: &Row,
    control: Option<&Row>,
    (from, to): (f64, f64),
) -> Result<Markup, String> {
    let shown: Vec<usize> = (0..report.allocators.len())
        .filter(|&at| KEYS.iter().any(|key| median(row, at, key).is_some()))
        .collect();
    let left = room(shown.iter().map(|&at| report.allocators[at].name.as_str()));
    let count = shown.len().max(1);
    let height = u32::try_from(count).unwrap_or(1) * PITCH + LETTERS + 20;
    let label = format!("{}: percentiles of latency", row.name);
    picture::draw((760, height), &label, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin_left(left)
            .margin_right(44)
            .margin_top(4)
            .x_label_area_size(LETTERS + 12)
            .build_cartesian_2d((from..to).log_scale(), 0.0..count as f64)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .x_labels(8)
            .axis_style(Ink::GRID.color())
            .bold_line_style(stroke(Ink::GRID, 2))
            .light_line_style(TRANSPARENT)
            .x_label_style(letters(Ink::FAINT, false))
            .x_label_formatter(&|ns| show_decade(*ns))
            .draw()?;
        if let Some(control) = control.filter(|control| control.name != row.name) {
            for key in [P999, MAX] {
                let Some(at) = typical(report, control, key) else {
                    continue;
                };
                let at = at.clamp(from, to);
                chart.draw_series([line((at, 0.0), (at, count as f64), Ink::REFERENCE, 3)])?;
            }
        }
        for (index, &at) in shown.iter().enumerate() {
            let y = count as f64 - index as f64 - 0.5;
            let ink = Ink::of(at);
            let place = |key| median(row, at, key).map(|ns| (ns.clamp(from, to), y));
            let name = report.allocators[at].name.clone();
            let strong = Some(at) == report.ours();
            let style = letters(Ink::TEXT, strong);
            write(&mut chart, (from, y), HPos::Right, name, style)?;
            let mut shapes: Vec<Shape<'_, _>> = Vec::new();
            if let (Some(first), Some(last)) = (place(P50), place(MAX)) {
                let width = if strong { 6 } else { 4 };
                shapes.push(line(first, last, ink, width).into_dyn());
                let end = [(last.0, y - 0.25), (last.0, y + 0.25)];
                shapes.push(line(end[0], end[1], ink, 5).into_dyn());
            }
            shapes.extend(place(P50).map(|at| Circle::new(at, 8, fill(ink, 1.0)).into_dyn()));
            shapes.extend(place(P99).map(|at| Circle::new(at, 7, stroke(ink, 4)).into_dyn()));
            shapes.extend(
                place(P999).map(|at| TriangleMarker::new(at, 11, ink.color().filled()).into_dyn()),
            );
            chart.draw_series(shapes)?;
        }
        Ok(())
    })
}

/// The median over all programs.
fn typical(report: &Report, row: &Row, key: &str) -> Option<f64> {
    let medians: Vec<f64> = (0..report.allocators.len())
        .filter_map(|at| median(row, at, key))
        .collect();
    crate::statistics::Summary::of(&medians).map(|summary| summary.median)
}

/// Powers of ten with a unit.
fn show_decade(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "µs"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    format!("{value:.0} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decades_have_units() {
        let shown = [1.0, 100.0, 1e4, 1e6, 1e10].map(show_decade);
        assert_eq!(shown, ["1 ns", "100 ns", "10 µs", "1 ms", "10 s"]);
    }
}
