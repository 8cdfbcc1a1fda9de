//! What moved since an earlier run.

use std::path::Path;

use crate::args::Kind;
use crate::model::{LONGEST, PEAK, Report, Row, TIME};

/// Changes below this are not named, however small the spread: two builds of one source differ as much.
const LEAST: f64 = 0.03;

/// A figure of ours that changed by more than its spread.
#[derive(Debug, PartialEq)]
pub(crate) struct Move {
    pub(crate) row: String,
    pub(crate) key: String,
    pub(crate) before: f64,
    pub(crate) after: f64,
}

/// The moves since `before`, which `path` held, and how many figures were compared.
///
/// # Errors
///
/// A message for the user: it was made another way.
pub(crate) fn moves(
    report: &Report,
    before: &Report,
    path: &Path,
) -> Result<(Vec<Move>, usize), String> {
    let name = path.display();
    for (what, then, now) in [
        ("profile", &before.facts.profile, &report.facts.profile),
        (
            "scale",
            &before.facts.scale.to_string(),
            &report.facts.scale.to_string(),
        ),
    ] {
        if then != now {
            return Err(format!(
                "{name} was made with {what} {then}, this with {now}"
            ));
        }
    }
    if before.facts.cpu != report.facts.cpu {
        eprintln!(
            "warning: {name} was made on another processor, {}",
            before.facts.cpu
        );
    }
    let (Some(then), Some(now)) = (before.ours(), report.ours()) else {
        return Err(format!("{name} and this must both have measured flagstone"));
    };
    let mut moves = Vec::new();
    let mut compared = 0;
    for row in &report.rows {
        let Some(old) = before.rows.iter().find(|old| old.name == row.name) else {
            continue;
        };
        for key in row.keys().filter(|key| counts(row, key)) {
            let old = old.columns[then].summary(key);
            let new = row.columns[now].summary(key);
            let (Some(old), Some(new)) = (old, new) else {
                continue;
            };
            compared += 1;
            let bound = old.spread.max(new.spread).max(LEAST);
            if (new.median - old.median).abs() > bound * old.median.abs() {
                moves.push(Move {
                    row: row.name.clone(),
                    key: key.to_owned(),
                    before: old.median,
                    after: new.median,
                });
            }
        }
    }
    Ok((moves, compared))
}

/// Times, percentiles, sizes; not the numbers that only describe the work, nor the longest call, which is one.
fn counts(row: &Row, key: &str) -> bool {
    key == TIME
        || key == PEAK
        || key.ends_with("_ns") && key != LONGEST
        || row.kind == Kind::Memory
        || row.kind == Kind::Scale && key.ends_with("_kb")
}
