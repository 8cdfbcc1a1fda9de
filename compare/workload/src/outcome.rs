//! What a row reports, and the line that the driver reads.

use serde_json::{Value, json};

use super::rss::Resident;

/// One look at the process, for curves over time.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// Since the row began.
    pub(crate) ms: f64,
    pub(crate) resident_kb: f64,
    /// Private, writable addresses.
    pub(crate) committed_kb: f64,
    /// What the row holds, by its own count.
    pub(crate) live_kb: f64,
    /// Entries of the kernel's table of mappings.
    pub(crate) mappings: f64,
}

/// The peak resident size, which every row ends with.
pub(crate) const PEAK: &str = "peak_kb";

/// What one run of a row yields. Keys that end in `_kb` are KiB, in `_ratio` ratios, in `ns`
/// nanoseconds; others are plain numbers.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) figures: Vec<(&'static str, f64)>,
    /// Depends on the work alone, so it is the same under every allocator.
    pub(crate) checksum: Option<u64>,
    pub(crate) series: Vec<Sample>,
}

impl Outcome {
    pub(crate) fn of(figures: Vec<(&'static str, f64)>) -> Self {
        Self {
            figures,
            ..Self::default()
        }
    }

    /// The line; `peak` is the process's, for rows that have not told one.
    pub(crate) fn line(&self, row: &str, peak: Option<Resident>) -> String {
        let is_told = self.figures.iter().any(|(key, _)| *key == PEAK);
        let peak = peak
            .filter(|_| !is_told)
            .map(|resident| (PEAK, resident.peak_kb as f64));
        let figures: Vec<Value> = self
            .figures
            .iter()
            .copied()
            .chain(peak)
            .map(|(key, value)| json!([key, value]))
            .collect();
        let series: Vec<Value> = self
            .series
            .iter()
            .map(|sample| {
                json!([
                    sample.ms,
                    sample.resident_kb,
                    sample.committed_kb,
                    sample.live_kb,
                    sample.mappings
                ])
            })
            .collect();
        let checksum = self.checksum.map(|sum| format!("{sum:016x}"));
        json!({ "row": row, "figures": figures, "checksum": checksum, "series": series })
            .to_string()
    }
}
