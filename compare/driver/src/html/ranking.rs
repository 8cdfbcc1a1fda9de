//! Who is best, and how far the others are from it.

use crate::allocators::Role;
use crate::args::Kind;
use crate::model::{Report, Row};
use crate::statistics::{Standing, geometric_mean};

use crate::report::standing_of;

/// Rows of this kind that were measured.
pub(super) fn rows(report: &Report, kind: Kind) -> Vec<&Row> {
    measured(report).filter(|row| row.kind == kind).collect()
}

pub(super) fn measured(report: &Report) -> impl Iterator<Item = &Row> {
    report.rows.iter().filter(|row| row.keys().next().is_some())
}

/// Whether the allocator at this index takes part: the control and the floor do not.
pub(super) fn competes(report: &Report, allocator: usize) -> bool {
    matches!(report.allocators[allocator].role, Role::Ours | Role::Peer)
}

/// No figure that makes sense is as large, and digits without end fit nowhere.
pub(super) const LARGEST: f64 = 1e15;

/// The median, if it can be drawn.
pub(super) fn median(row: &Row, allocator: usize, key: &str) -> Option<f64> {
    let median = row.columns[allocator].summary(key)?.median;
    (0.0..LARGEST).contains(&median).then_some(median)
}

/// The least median of those who compete.
pub(super) fn best(report: &Report, row: &Row, key: &str) -> Option<f64> {
    (0..report.allocators.len())
        .filter(|&index| competes(report, index))
        .filter_map(|index| median(row, index, key))
        .min_by(f64::total_cmp)
}

/// An allocator's median over the best of the row.
pub(super) fn over_best(report: &Report, row: &Row, allocator: usize, key: &str) -> Option<f64> {
    let best = best(report, row, key).filter(|best| *best > 0.0)?;
    Some(median(row, allocator, key)? / best)
}

/// Geometric mean of [`over_best`], and of how many rows.
pub(super) fn mean_over_best(
    report: &Report,
    rows: &[&Row],
    allocator: usize,
    key: &str,
) -> Option<(f64, usize)> {
    let ratios = rows
        .iter()
        .filter_map(|row| over_best(report, row, allocator, key));
    let ratios: Vec<f64> = ratios.collect();
    Some((geometric_mean(&ratios)?, ratios.len()))
}

/// Rows with what [`standing_of`] says of a figure, where it says something.
pub(super) fn standings<'a>(
    report: &Report,
    rows: &[&'a Row],
    key: &str,
) -> Vec<(&'a Row, Standing)> {
    let found = rows
        .iter()
        .filter_map(|row| Some((*row, standing_of(report, row, key)?)));
    found
        .filter(|(_, standing)| standing.ratio.is_finite())
        .collect()
}

/// 25th and 75th percentile of an allocator's samples.
pub(super) fn quartiles(row: &Row, allocator: usize, key: &str) -> Option<(f64, f64)> {
    let summary = row.columns[allocator].summary(key)?;
    Some((summary.p25, summary.p75))
}
