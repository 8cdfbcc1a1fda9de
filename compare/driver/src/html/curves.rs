//! Memory over time.

use std::mem;

use maud::{Markup, html};
use plotters::chart::ChartBuilder;
use plotters::element::{IntoDynElement, Polygon};
use plotters::series::LineSeries;
use plotters::style::TRANSPARENT;

use super::ink::Ink;
use super::picture::{self, LETTERS, fill, letters, room, stroke};
use super::ranking::{LARGEST, competes};
use crate::model::{Report, Row, Sample};
use crate::statistics::Summary;

/// Slices of time, of each of which the least value and the greatest are drawn.
const SLICES: usize = 64;
/// Committed bytes say something where they exceed resident ones by this, mappings where one allocator
/// has so many times another's.
const TELLING: f64 = 1.1;
const TELLING_MAPPINGS: f64 = 2.0;
/// An axis ends at this many times the median of where the curves end, or where ours does: one that goes far
/// beyond would make the others flat.
const CUT: f64 = 4.0;

type Point = (f64, f64);

struct Quantity {
    of: fn(&Sample) -> f64,
    /// With the unit.
    label: &'static str,
    /// Live bytes beneath.
    with_live: bool,
}

const MIB: f64 = 1024.0;
const RESIDENT: Quantity = Quantity {
    of: |sample| sample.resident_kb / MIB,
    label: "resident MiB",
    with_live: true,
};
const COMMITTED: Quantity = Quantity {
    of: |sample| sample.committed_kb / MIB,
    label: "committed MiB",
    with_live: true,
};
const MAPPINGS: Quantity = Quantity {
    of: |sample| sample.mappings,
    label: "mappings",
    with_live: false,
};

/// Small pictures of resident bytes, and folded ones of the rest.
pub(super) fn pictures(report: &Report) -> Result<Markup, String> {
    let rows: Vec<&Row> = report
        .rows
        .iter()
        .filter(|row| drawn(report, row).next().is_some())
        .collect();
    let committed: Vec<&&Row> = rows
        .iter()
        .filter(|row| tells_committed(report, row))
        .collect();
    let mappings: Vec<&&Row> = rows
        .iter()
        .filter(|row| tells_mappings(report, row))
        .collect();
    Ok(html! {
        @if !rows.is_empty() {
            p { "Resident MiB over the seconds of one run. The grey area is what the program holds, as our run counted it (or the first that ran)." }
            div.grid.wide.curves { @for row in &rows { (figure(report, row, &RESIDENT)?) } }
        }
        @for (rows, quantity, about) in [
            (committed, &COMMITTED, "Committed bytes over time, where they differ from resident ones"),
            (mappings, &MAPPINGS, "Kernel mappings over time, where allocators differ"),
        ] {
            @if !rows.is_empty() {
                details {
                    summary { (about) }
                    div.grid.wide.curves { @for row in rows { (figure(report, row, quantity)?) } }
                }
            }
        }
    })
}

/// Who has a curve. The control's would hide ours, and the floor returns nothing by design.
fn drawn<'a>(report: &'a Report, row: &'a Row) -> impl DoubleEndedIterator<Item = usize> + 'a {
    (0..row.columns.len()).filter(|&at| competes(report, at) && row.columns[at].series.len() > 1)
}

fn most(row: &Row, at: usize, of: fn(&Sample) -> f64) -> f64 {
    row.columns[at].series.iter().map(of).fold(0.0, f64::max)
}

fn tells_committed(report: &Report, row: &Row) -> bool {
    drawn(report, row).any(|at| most(row, at, COMMITTED.of) > TELLING * most(row, at, RESIDENT.of))
}

fn tells_mappings(report: &Report, row: &Row) -> bool {
    let mosts: Vec<f64> = drawn(report, row)
        .map(|at| most(row, at, MAPPINGS.of))
        .collect();
    let least = mosts.iter().copied().fold(f64::INFINITY, f64::min);
    mosts.iter().any(|&most| most > TELLING_MAPPINGS * least)
}

fn figure(report: &Report, row: &Row, quantity: &Quantity) -> Result<Markup, String> {
    // ours last, above the others
    let curves: Vec<(usize, Vec<Point>)> = drawn(report, row)
        .rev()
        .map(|at| (at, points(&row.columns[at].series, quantity.of)))
        .collect();
    let live = drawn(report, row)
        .next()
        .filter(|_| quantity.with_live)
        .map(|at| points(&row.columns[at].series, |sample| sample.live_kb / MIB))
        .unwrap_or_default();
    let ours = report.ours();
    let frame = (
        limit(&curves, &live, ours, |point| point.0),
        limit(&curves, &live, ours, |point| point.1) * 1.05,
    );
    let beyond: Vec<String> = curves
        .iter()
        .map(|(at, points)| {
            (
                *at,
                end(points, |point| point.0),
                end(points, |point| point.1),
            )
        })
        .filter(|(_, time, value)| *time > frame.0 || *value > frame.1)
        .map(|(at, time, value)| {
            let name = &report.allocators[at].name;
            format!("{name} to {} in {}", show(value), show_time(time, time))
        })
        .collect();
    Ok(html! {
        figure {
            figcaption {
                b { (row.name) } " " (row.about)
                @if !beyond.is_empty() { " · beyond the frame: " (beyond.join(", ")) }
            }
            (picture(report, row, quantity, &curves, &live, frame)?)
        }
    })
}

fn end(points: &[Point], of: fn(&Point) -> f64) -> f64 {
    points.iter().map(of).fold(0.0, f64::max)
}

/// Where an axis ends.
fn limit(
    curves: &[(usize, Vec<Point>)],
    live: &[Point],
    ours: Option<usize>,
    of: fn(&Point) -> f64,
) -> f64 {
    let ends: Vec<f64> = curves.iter().map(|(_, points)| end(points, of)).collect();
    let whole = curves.iter().find(|(at, _)| Some(*at) == ours);
    let whole = whole
        .map_or(0.0, |(_, points)| end(points, of))
        .max(end(live, of));
    let usual = Summary::of(&ends).map_or(0.0, |summary| CUT * summary.median);
    let limit = ends.into_iter().fold(0.0, f64::max).min(usual).max(whole);
    // an axis needs a length
    if limit > 0.0 { limit } else { 1.0 }
}

/// The parts of a curve inside the frame.
fn cut(points: &[Point], frame: Point) -> Vec<Vec<Point>> {
    let is_inside = |point: Point| point.0 <= frame.0 && point.1 <= frame.1;
    let mut parts: Vec<Vec<Point>> = Vec::new();
    let first = points.first().copied();
    let mut part: Vec<Point> = first.into_iter().filter(|at| is_inside(*at)).collect();
    for pair in points.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        match [from, to].map(is_inside) {
            [true, true] => part.push(to),
            [true, false] => {
                part.push(edge(from, to, frame));
                parts.push(mem::take(&mut part));
            }
            [false, true] => part = vec![edge(to, from, frame), to],
            [false, false] => {}
        }
    }
    parts.push(part);
    parts.retain(|part| part.len() > 1);
    parts
}

/// Where a line that begins inside the frame leaves it.
fn edge(inside: Point, outside: Point, frame: Point) -> Point {
    let share = |from: f64, to: f64, limit: f64| {
        if to > limit {
            (limit - from) / (to - from)
        } else {
            1.0
        }
    };
    let share = share(inside.0, outside.0, frame.0).min(share(inside.1, outside.1, frame.1));
    let between = |from: f64, to: f64| from + share * (to - from);
    (between(inside.0, outside.0), between(inside.1, outside.1))
}

fn picture(
    report: &Report,
    row: &Row,
    quantity: &Quantity,
    curves: &[(usize, Vec<Point>)],
    live: &[Point],
    (right, top): Point,
) -> Result<Markup, String> {
    let label = format!("{}: {} over seconds", row.name, quantity.label);
    picture::draw((760, 400), &label, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin_right(24)
            .margin_top(14)
            .x_label_area_size(LETTERS + 12)
            .y_label_area_size(room([show(top).as_str(), "123"]))
            .build_cartesian_2d(0.0..right, 0.0..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(6)
            .y_labels(5)
            .axis_style(Ink::GRID.color())
            .bold_line_style(stroke(Ink::GRID, 2))
            .light_line_style(TRANSPARENT)
            .label_style(letters(Ink::FAINT, false))
            .x_label_formatter(&|seconds| show_time(*seconds, right))
            .y_label_formatter(&|value| show(*value))
            .draw()?;
        if let (Some(first), Some(last)) = (live.first(), live.last()) {
            let mut outline = live.to_vec();
            outline.extend([(last.0, 0.0), (first.0, 0.0)]);
            chart.draw_series([Polygon::new(outline, fill(Ink::REFERENCE, 0.22)).into_dyn()])?;
            chart.draw_series(LineSeries::new(live.to_vec(), stroke(Ink::REFERENCE, 2)))?;
        }
        for (at, points) in curves {
            let width = if Some(*at) == report.ours() { 6 } else { 3 };
            for part in cut(points, (right, top)) {
                chart.draw_series(LineSeries::new(part, stroke(Ink::of(*at), width)))?;
            }
        }
        Ok(())
    })
}

/// Seconds and values; of many samples the extremes of each slice of time, in order.
fn points(series: &[Sample], of: fn(&Sample) -> f64) -> Vec<Point> {
    let points: Vec<Point> = series
        .iter()
        .map(|sample| (sample.ms / 1e3, of(sample)))
        .filter(|(time, value)| *time < LARGEST && *value < LARGEST)
        .map(|(time, value)| (time.max(0.0), value.max(0.0)))
        .collect();
    if points.len() <= 2 * SLICES {
        return points;
    }
    let mut kept = Vec::new();
    for slice in points.chunks(points.len().div_ceil(SLICES)) {
        let by_value = |a: &&Point, b: &&Point| a.1.total_cmp(&b.1);
        let extremes = [slice.iter().min_by(by_value), slice.iter().max_by(by_value)];
        let mut extremes: Vec<Point> = extremes.into_iter().flatten().copied().collect();
        extremes.sort_by(|a, b| a.0.total_cmp(&b.0));
        kept.extend(extremes);
    }
    // where it ended is part of the story
    kept.extend(points.last());
    kept
}

/// A time on an axis that ends at `right`, both in seconds.
fn show_time(seconds: f64, right: f64) -> String {
    if right < 0.5 {
        format!("{} ms", show(1e3 * seconds))
    } else {
        format!("{} s", show(seconds))
    }
}

/// As many digits as the axis needs.
fn show(value: f64) -> String {
    let text = if value < 10.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.1}")
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_spikes_and_the_end() {
        let mut series: Vec<Sample> = (0..1000)
            .map(|ms| Sample::from([f64::from(ms), 1024.0, 0.0, 0.0, 0.0]))
            .collect();
        series[500].resident_kb = 7.0 * MIB;
        series[999].resident_kb = 2.0 * MIB;
        let points = points(&series, RESIDENT.of);
        assert!(points.len() <= 2 * SLICES + 1, "{}", points.len());
        assert!(points.contains(&(0.5, 7.0)), "{points:?}");
        assert_eq!(points.last(), Some(&(0.999, 2.0)));
        assert!(points.is_sorted_by(|a, b| a.0 <= b.0), "{points:?}");
    }

    #[test]
    fn curves_end_at_the_frame() {
        let curve = [(0.0, 0.0), (1.0, 4.0), (2.0, 4.0), (3.0, 0.0), (5.0, 1.0)];
        assert_eq!(
            cut(&curve, (4.0, 2.0)),
            [
                vec![(0.0, 0.0), (0.5, 2.0)],
                vec![(2.5, 2.0), (3.0, 0.0), (4.0, 0.5)]
            ]
        );
        assert_eq!(cut(&curve, (9.0, 9.0)), [curve.to_vec()]);
    }

    #[test]
    fn axes_say_no_more_than_needed() {
        assert_eq!(
            [0.0, 0.25, 5.0, 10.0, 150.0, 12.5].map(show),
            ["0", "0.25", "5", "10", "150", "12.5"]
        );
        assert_eq!(
            [show_time(0.2, 0.3), show_time(0.2, 3.0)],
            ["200 ms", "0.2 s"]
        );
    }
}
