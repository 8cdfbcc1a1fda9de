//! What was measured, as a table and as JSON.

use std::fmt::{self, Display, Formatter};

use serde_json::{Value, json};

use crate::Name;

/// Which of two figures is better.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Better {
    More,
    Less,
}

/// A row: its name, what it says, its unit, and which figures are better.
type About = (&'static str, &'static str, &'static str, Better);

pub(crate) const ROWS: [About; 18] = {
    use Better::{Less, More};
    [
        ("load", "loaded, 10 000 a commit", "entries/s", More),
        ("load_written", "pages changed by that", "MiB", Less),
        ("load_size", "on the disk after that", "MiB", Less),
        ("read", "read at random", "entries/s", More),
        (
            "read_reopened",
            "the same after closing and opening",
            "entries/s",
            More,
        ),
        ("commits_1", "updated, 1 a commit", "commits/s", More),
        ("written_1", "pages changed by a commit", "KiB", Less),
        ("commits_100", "updated, 100 a commit", "commits/s", More),
        ("updates_100", "the same", "entries/s", More),
        ("written_100", "pages changed by a commit", "KiB", Less),
        (
            "commits_10000",
            "updated, 10 000 a commit",
            "commits/s",
            More,
        ),
        ("updates_10000", "the same", "entries/s", More),
        ("written_10000", "pages changed by a commit", "KiB", Less),
        ("size", "on the disk after all updates", "MiB", Less),
        (
            "open_size",
            "on the disk, of the store that is opened",
            "MiB",
            Less,
        ),
        ("open_closed", "opened after it was closed", "ms", Less),
        ("open_killed", "opened after a kill", "ms", Less),
        ("open_killed_size", "on the disk after these", "MiB", Less),
    ]
};

/// Figures of a store in a row.
struct Figures {
    store: Name,
    samples: Vec<f64>,
}

impl Figures {
    fn sorted(&self) -> Vec<f64> {
        let mut samples = self.samples.clone();
        samples.sort_by(f64::total_cmp);
        samples
    }

    fn median(&self) -> Option<f64> {
        let samples = self.sorted();
        let middle = samples.len() / 2;
        let upper = samples.get(middle)?;
        Some(if samples.len().is_multiple_of(2) {
            (samples[middle - 1] + upper) / 2.0
        } else {
            *upper
        })
    }
}

/// All figures.
pub(crate) struct Report {
    rows: Vec<Vec<Figures>>,
}

impl Report {
    pub(crate) fn new(stores: &[Name]) -> Self {
        let row = || {
            let figures = stores.iter().map(|store| Figures {
                store: *store,
                samples: Vec::new(),
            });
            figures.collect()
        };
        Self {
            rows: ROWS.iter().map(|_| row()).collect(),
        }
    }

    /// Notes a figure; whether there is such a row.
    pub(crate) fn note(&mut self, row: &str, store: Name, figure: f64) -> bool {
        let Some(row) = ROWS.iter().position(|(name, ..)| *name == row) else {
            return false;
        };
        let mut all = self.rows[row].iter_mut();
        let figures = all.find(|figures| figures.store == store);
        figures
            .map(|figures| figures.samples.push(figure))
            .is_some()
    }

    /// How many times as good flagstone's median of a row is.
    fn times(&self, row: usize, figures: &Figures) -> Option<f64> {
        let own = self.rows[row].iter();
        let own = own.filter(|own| own.store == Name::Flagstone);
        let own = own.filter_map(Figures::median).next()?;
        let other = figures.median()?;
        Some(match ROWS[row].3 {
            Better::More => own / other,
            Better::Less => other / own,
        })
    }

    pub(crate) fn to_json(&self) -> Value {
        let rows = self.rows.iter().enumerate().map(|(row, all)| {
            let (name, about, unit, better) = ROWS[row];
            let stores = all.iter().map(|figures| {
                json!({
                    "store": figures.store.as_str(),
                    "samples": figures.samples,
                    "median": figures.median(),
                    "times": self.times(row, figures),
                })
            });
            json!({
                "row": name,
                "about": about,
                "unit": unit,
                "better": if better == Better::More { "more" } else { "less" },
                "stores": stores.collect::<Vec<_>>(),
            })
        });
        rows.collect()
    }
}

/// A figure with three digits at least, its thousands apart.
fn shown(figure: f64) -> String {
    if figure < 100.0 {
        let digits = if figure < 1.0 { 3 } else { 2 };
        return format!("{figure:.digits$}");
    }
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        for (row, all) in self.rows.iter().enumerate() {
            if all.iter().all(|figures| figures.samples.is_empty()) {
                continue;
            }
            let (_, about, unit, _) = ROWS[row];
            writeln!(out, "\n{about}, {unit}")?;
            for figures in all {
                let name = figures.store.as_str();
                let sorted = figures.sorted();
                let (Some(median), [least, .., most] | [least @ most]) =
                    (figures.median(), sorted.as_slice())
                else {
                    writeln!(out, "  {name:17}{:>14}", "-")?;
                    continue;
                };
                let spread = format!("{} .. {}", shown(*least), shown(*most));
                write!(out, "  {name:17}{:>14}  {spread:>28}", shown(median))?;
                match self.times(row, figures) {
                    Some(times) if figures.store != Name::Flagstone => {
                        writeln!(out, "{times:10.2}")?;
                    }
                    _ => writeln!(out)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_better_or_less_is() {
        let mut report = Report::new(&[Name::Flagstone, Name::Redb]);
        for (row, own, other) in [
            ("load", [5.0, 1.0, 4.0], 2.0),
            ("size", [9.0, 3.0, 4.0], 2.0),
        ] {
            for figure in own {
                assert!(report.note(row, Name::Flagstone, figure));
            }
            assert!(report.note(row, Name::Redb, other));
        }
        assert!(!report.note("lode", Name::Redb, 1.0));
        assert!(!report.note("load", Name::Lmdb, 1.0));
        let all = report.to_json();
        let times = |row: &str| {
            let of_row = all.as_array()?.iter().find(|one| one["row"] == row)?;
            of_row["stores"][1]["times"].as_f64()
        };
        assert_eq!(times("load"), Some(2.0));
        assert_eq!(times("size"), Some(0.5));
        assert_eq!(times("read"), None);
        let text = report.to_string();
        assert!(text.contains("1.00 .. 5.00"), "{text}");
        assert!(!text.contains("read at random"), "{text}");
    }

    #[test]
    fn digits() {
        let texts = [0.1234, 12.345, 123.4, 1234.5, 1_234_567.0].map(shown);
        assert_eq!(texts, ["0.123", "12.35", "123", "1 234", "1 234 567"]);
    }
}
