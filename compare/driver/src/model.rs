//! Everything that a run of the suite finds out: what the JSON file holds, and what the reports are made of.

use serde::{Deserialize, Serialize};

use crate::allocators::Role;
use crate::args::Kind;
use crate::size::Size;
use crate::statistics::Summary;

/// The form of the file; another one is not read.
pub(crate) const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) format: u32,
    pub(crate) facts: Facts,
    /// Those that ran, ours first.
    pub(crate) allocators: Vec<Contestant>,
    /// Those that did not, and why.
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) rows: Vec<Row>,
    /// What ours does behind the times of rows.
    #[serde(default)]
    pub(crate) locks: Vec<Locks>,
    /// Failed cells and checksums that differ.
    pub(crate) complaints: Vec<String>,
    /// Ours ran every row, and all checksums agree.
    pub(crate) sound: bool,
}

/// The circumstances.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) date: String,
    pub(crate) version: String,
    pub(crate) commit: Option<String>,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) huge_pages: String,
    pub(crate) rustc: String,
    pub(crate) profile: String,
    pub(crate) scale: f64,
    /// Load average of the last minute when it began.
    pub(crate) load: String,
    /// Seconds that the measurements took.
    pub(crate) seconds: u64,
    /// Ctrl-C: what is there is complete, but it is not all.
    pub(crate) interrupted: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Contestant {
    pub(crate) name: String,
    pub(crate) short: String,
    pub(crate) role: Role,
    pub(crate) about: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Skipped {
    pub(crate) name: String,
    pub(crate) reason: String,
}

/// Locks of ours in a time row, for a million operations.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Locks {
    pub(crate) row: String,
    pub(crate) taken: f64,
    /// Of these, those that were not free.
    pub(crate) waited: f64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Of a scale row with its size, `ROW/SIZE`.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) about: String,
    /// Of a scale row.
    #[serde(default)]
    pub(crate) size: Option<Size>,
    /// Parallel to [`Report::allocators`].
    pub(crate) columns: Vec<Column>,
    /// The same under every allocator; rows that look at sizes have none.
    pub(crate) checksum: Option<String>,
}

/// One row under one allocator.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Column {
    /// In the order in which the program prints them; a sample for each repetition.
    pub(crate) figures: Vec<(String, Vec<f64>)>,
    /// Curves of the first repetition.
    pub(crate) series: Vec<Sample>,
    /// Why there are no figures.
    pub(crate) failed: Option<String>,
}

/// One look at a process: milliseconds since the row began, KiB resident, KiB committed, KiB live,
/// mappings.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(from = "[f64; 5]", into = "[f64; 5]")]
pub(crate) struct Sample {
    pub(crate) ms: f64,
    pub(crate) resident_kb: f64,
    pub(crate) committed_kb: f64,
    pub(crate) live_kb: f64,
    pub(crate) mappings: f64,
}

impl From<[f64; 5]> for Sample {
    fn from([ms, resident_kb, committed_kb, live_kb, mappings]: [f64; 5]) -> Self {
        Self {
            ms,
            resident_kb,
            committed_kb,
            live_kb,
            mappings,
        }
    }
}

impl From<Sample> for [f64; 5] {
    fn from(sample: Sample) -> Self {
        [
            sample.ms,
            sample.resident_kb,
            sample.committed_kb,
            sample.live_kb,
            sample.mappings,
        ]
    }
}

/// The figure of time rows.
pub(crate) const TIME: &str = "ns";
/// The longest single call, a figure of scale rows.
pub(crate) const LONGEST: &str = "longest_ns";
/// The peak resident size, a figure of every row.
pub(crate) const PEAK: &str = "peak_kb";

impl Column {
    pub(crate) fn samples(&self, key: &str) -> &[f64] {
        self.figures
            .iter()
            .find(|(name, _)| name == key)
            .map_or(&[], |(_, samples)| samples)
    }

    pub(crate) fn summary(&self, key: &str) -> Option<Summary> {
        Summary::of(self.samples(key))
    }
}

impl Row {
    /// The name as programs know it.
    pub(crate) fn program_name(&self) -> &str {
        self.name.split('/').next().unwrap_or(&self.name)
    }

    /// Names of the figures, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        let full = self
            .columns
            .iter()
            .find(|column| !column.figures.is_empty());
        full.into_iter()
            .flat_map(|column| column.figures.iter().map(|(key, _)| key.as_str()))
    }
}

impl Report {
    /// Ours, if it ran.
    pub(crate) fn ours(&self) -> Option<usize> {
        self.position(Role::Ours)
    }

    pub(crate) fn position(&self, role: Role) -> Option<usize> {
        self.allocators
            .iter()
            .position(|allocator| allocator.role == role)
    }

    /// Indices of the peers.
    pub(crate) fn peers(&self) -> impl Iterator<Item = usize> {
        let peers = self.allocators.iter().enumerate();
        peers
            .filter(|(_, allocator)| allocator.role == Role::Peer)
            .map(|(index, _)| index)
    }
}
