//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::Serialize;

/// Counts the instructions of flagstone's rows for each operation, by valgrind's callgrind: in this
/// tree as it lies there, and in another commit under the same rows.
///
/// The exit status is 1 if a row grew by more than --at-most, 2 if something is missing or failed.
#[derive(Debug, Parser)]
#[command(name = "counts", version)]
pub(crate) struct Args {
    /// Count this commit's allocator, too.
    #[arg(long, value_name = "COMMIT")]
    pub(crate) against: Option<String>,

    /// Only rows whose name contains this: of all rows of time that run on one thread.
    #[arg(long, value_name = "ROW")]
    pub(crate) filter: Option<String>,

    /// Count with all safeguards (FLAGSTONE_HARDENED=1), too.
    #[arg(long)]
    pub(crate) hardened: bool,

    /// Build with link-time optimisation (fat, or thin if so told) instead of Cargo's default
    /// release profile.
    #[arg(long, value_name = "KIND", num_args = 0..=1, require_equals = true, value_enum)]
    #[arg(default_missing_value = "fat")]
    pub(crate) lto: Option<Lto>,

    /// End with status 1 if a row takes this many per cent more than in the other commit.
    #[arg(long, value_name = "PERCENT", requires = "against", value_parser = percent)]
    pub(crate) at_most: Option<f64>,

    /// Write the counts to this file.
    #[arg(long, value_name = "OUT")]
    pub(crate) json: Option<PathBuf>,
}

fn percent(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|percent: &f64| percent.is_finite() && *percent >= 0.0)
        .ok_or_else(|| "not a number of per cent".to_owned())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Lto {
    Fat,
    Thin,
}

impl Lto {
    /// As Cargo's profiles spell it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fat => "fat",
            Self::Thin => "thin",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the command line is taken.
    fn takes(options: &[&str]) -> bool {
        Args::try_parse_from(["counts"].iter().chain(options)).is_ok()
    }

    #[test]
    fn a_bound_needs_something_to_compare_with() {
        assert!(takes(&["--against", "HEAD", "--at-most", "0.5"]));
        assert!(!takes(&["--at-most", "0.5"]));
        for bound in ["-1", "nan", "x"] {
            assert!(!takes(&[
                "--against",
                "HEAD",
                &format!("--at-most={bound}")
            ]));
        }
    }
}
