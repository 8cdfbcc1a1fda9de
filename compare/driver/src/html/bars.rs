//! Bars: the times of each row, and how far everyone is from the best over all rows.

use maud::{Markup, html};
use plotters::chart::ChartBuilder;
use plotters::element::Rectangle;
use plotters::style::text_anchor::HPos;

use super::ink::Ink;
use super::picture::{self, fill, letters, line, room, write};
use super::ranking::{best, competes, mean_over_best, median, quartiles, rows};
use super::tables::NONE;
use crate::allocators::Role;
use crate::args::Kind;
use crate::model::{Report, Row, TIME};
use crate::report::show_ns;

/// From one bar to the next.
const PITCH: f64 = 32.0;
/// Below the bars, room for what a mark says, in bars.
const MARK: f64 = 1.1;
/// Of a bar, as a part of the pitch.
const THICKNESS: f64 = 0.66;
/// A bar that is this many times the best one's length is cut, so that the others can be told apart.
const CUT: f64 = 5.0;

struct Bar {
    name: String,
    ink: Ink,
    strong: bool,
    /// Nothing where there is no value, and then the text says why.
    value: Option<f64>,
    spread: Option<(f64, f64)>,
    text: String,
}

/// Bars from zero; `limit` is the right end, where longer ones are cut.
fn picture(
    width: u32,
    label: &str,
    bars: &[Bar],
    limit: f64,
    mark: Option<(f64, String)>,
) -> Result<Markup, String> {
    let left = room(bars.iter().map(|bar| bar.name.as_str()));
    let right = room(bars.iter().map(|bar| bar.text.as_str()));
    // plotters moves what lies outside a chart to its edge, so the mark's words are inside
    let below = if mark.is_some() { MARK } else { 0.0 };
    let count = bars.len() as f64;
    let height = (count.max(1.0) + below) * PITCH;
    // a limit of zero would be no scale
    let limit = if limit > 0.0 && limit.is_finite() {
        limit
    } else {
        1.0
    };
    picture::draw((width, height as u32), label, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin_left(left)
            .margin_right(right)
            .build_cartesian_2d(0.0..limit, -below..count.max(1.0))?;
        let middle = |index: usize| count - index as f64 - 0.5;
        chart.draw_series(bars.iter().enumerate().filter_map(|(index, bar)| {
            let (y, end) = (middle(index), bar.value?.min(limit));
            let corners = [(0.0, y - THICKNESS / 2.0), (end, y + THICKNESS / 2.0)];
            Some(Rectangle::new(corners, fill(bar.ink, 1.0)))
        }))?;
        if let Some((at, text)) = mark {
            let is_beyond = at > limit;
            // words of a mark far to the right would leave the picture
            let (side, text) = if is_beyond {
                (HPos::Right, format!("{text} ›"))
            } else if at > 0.5 * limit {
                (HPos::Right, text)
            } else {
                (HPos::Left, text)
            };
            let at = at.min(limit);
            if !is_beyond {
                chart.draw_series([line((at, -0.7 * MARK), (at, count), Ink::REFERENCE, 3)])?;
            }
            let style = letters(Ink::FAINT, false);
            write(&mut chart, (at, -0.6 * MARK), side, text, style)?;
        }
        for (index, bar) in bars.iter().enumerate() {
            let y = middle(index);
            let mut end = bar.value.unwrap_or(0.0).min(limit);
            if let Some((from, to)) = bar.spread.filter(|(from, _)| *from < limit) {
                let to = to.min(limit);
                let across = |at| line((at, y - 0.2), (at, y + 0.2), Ink::TEXT, 2);
                let whisker = line((from, y), (to, y), Ink::TEXT, 2);
                chart.draw_series([whisker, across(from), across(to)])?;
                end = to.max(end);
            }
            let name = letters(Ink::TEXT, bar.strong);
            write(&mut chart, (0.0, y), HPos::Right, bar.name.clone(), name)?;
            let ink = if bar.value.is_some() {
                Ink::TEXT
            } else {
                Ink::FAINT
            };
            let text = letters(ink, bar.strong);
            write(&mut chart, (end, y), HPos::Left, bar.text.clone(), text)?;
        }
        Ok(())
    })
}

/// Small pictures, one for each time row.
pub(super) fn times(report: &Report) -> Result<Markup, String> {
    let rows = rows(report, Kind::Time);
    Ok(html! {
        @if !rows.is_empty() {
            section {
                h2 { "Every time row" }
                p { "Nanoseconds for each operation: medians, with whiskers from the first quartile to the third. "
                    "The best is bold. A bar that is cut ends in ›. "
                    @if report.position(Role::Floor).is_some() {
                        "The grey line is the floor, the least that the calls can cost one thread; rows of several threads have none."
                    }
                }
                div.grid.narrow {
                    @for row in rows {
                        figure {
                            figcaption { b { (row.name) } " " (row.about) }
                            (time(report, row)?)
                        }
                    }
                }
            }
        }
    })
}

fn time(report: &Report, row: &Row) -> Result<Markup, String> {
    let best = best(report, row, TIME);
    let shown =
        (0..report.allocators.len()).filter(|&at| report.allocators[at].role != Role::Floor);
    let longest = shown
        .clone()
        .filter_map(|at| Some(quartiles(row, at, TIME)?.1.max(median(row, at, TIME)?)))
        .fold(0.0, f64::max);
    let limit = best.map_or(longest, |best| longest.min(CUT * best));
    let bars: Vec<Bar> = shown
        .map(|at| {
            let value = median(row, at, TIME);
            Bar {
                name: report.allocators[at].name.clone(),
                ink: Ink::of(at),
                strong: competes(report, at) && value.is_some() && value == best,
                value,
                spread: value.and_then(|_| quartiles(row, at, TIME)),
                text: match value {
                    Some(ns) if ns > limit => format!("› {}", show_ns(ns)),
                    Some(ns) => show_ns(ns),
                    None => NONE.to_owned(),
                },
            }
        })
        .collect();
    let floor = report
        .position(Role::Floor)
        .and_then(|floor| median(row, floor, TIME));
    let mark = floor.map(|ns| (ns, format!("floor {}", show_ns(ns))));
    picture(
        560,
        &format!("{}: ns per operation", row.name),
        &bars,
        limit,
        mark,
    )
}

/// Everyone's geometric mean over the best of each row, the least first.
pub(super) fn means(
    report: &Report,
    rows: &[&Row],
    key: &str,
    label: &str,
) -> Result<Markup, String> {
    let mut means: Vec<(usize, f64, usize)> = (0..report.allocators.len())
        .filter(|&at| report.allocators[at].role != Role::Floor)
        .filter_map(|at| {
            let (mean, count) = mean_over_best(report, rows, at, key)?;
            Some((at, mean, count))
        })
        .collect();
    means.sort_by(|a, b| a.1.total_cmp(&b.1));
    let longest = means.iter().map(|(_, mean, _)| *mean).fold(0.0, f64::max);
    let limit = means
        .first()
        .map_or(longest, |(_, least, _)| longest.min(CUT * least));
    let bars: Vec<Bar> = means
        .into_iter()
        .map(|(at, mean, count)| {
            let cut = if mean > limit { "› " } else { "" };
            let part = if count < rows.len() {
                format!(" ({count} of {} rows)", rows.len())
            } else {
                String::new()
            };
            Bar {
                name: report.allocators[at].name.clone(),
                ink: Ink::of(at),
                strong: report.allocators[at].role == Role::Ours,
                value: Some(mean),
                spread: None,
                text: format!("{cut}{mean:.2}{part}"),
            }
        })
        .collect();
    picture(760, label, &bars, limit, None)
}
