//! One run of a row: what is timed, what is counted, what comes out.

use std::time::{Duration, Instant};

use super::super::clock::Calibration;
use super::super::mapped;
use super::super::outcome::{Outcome, PEAK};
use super::super::rss;
use super::super::setting::Setting;
use super::usage::Usage;
use super::watch::Watch;

/// What a timed part has done.
pub(super) struct Done {
    pub(super) calls: u64,
    /// Depends on the work alone.
    pub(super) sum: u64,
}

pub(super) struct Trial<W> {
    /// What the row is to hold.
    pub(super) bytes: usize,
    pub(super) watch: W,
    /// Of the repeats, not of the bytes.
    scale: f64,
    time: Duration,
    used: Usage,
    calls: u64,
    checksum: u64,
    peak_kb: u64,
    /// Figures of some rows only.
    pub(super) extra: Vec<(&'static str, f64)>,
    /// Resident sizes of the light life, once it was lived.
    pub(super) settled: Vec<(&'static str, f64)>,
}

impl<W: Watch> Trial<W> {
    /// So many times the work is done, of as many as `full` at scale 1.
    pub(super) fn repeats(&self, full: usize) -> usize {
        ((full as f64 * self.scale).round() as usize).max(1)
    }

    /// Less than all of the work: a look at the rows, not at what they measure.
    pub(super) fn is_quick(&self) -> bool {
        self.scale < 1.0
    }

    /// A part whose time, system time and faults count.
    pub(super) fn timed(
        &mut self,
        part: impl FnOnce(&mut W) -> Result<Done, String>,
    ) -> Result<(), String> {
        let before = Usage::now();
        let start = Instant::now();
        let done = part(&mut self.watch)?;
        self.time += start.elapsed();
        self.used += Usage::now() - before;
        self.calls += done.calls;
        self.checksum = self.checksum.rotate_left(7) ^ done.sum;
        self.note_peak()
    }

    /// A part that takes no calls' time; what the kernel does in it counts.
    pub(super) fn beside<T>(&mut self, part: impl FnOnce(&mut Self) -> T) -> T {
        let before = Usage::now();
        let result = part(self);
        self.used += Usage::now() - before;
        result
    }

    /// The peak is read while the harness' arrays are those that there were at the peak.
    fn note_peak(&mut self) -> Result<(), String> {
        let peak_kb = rss::peak_kb()?.saturating_sub(mapped::total_kb());
        self.peak_kb = self.peak_kb.max(peak_kb);
        Ok(())
    }
}

/// Runs the row, in the form that times single calls if `W` does.
pub(super) fn run<W: Watch>(
    setting: &Setting,
    work: fn(&mut Trial<W>) -> Result<(), String>,
) -> Result<Outcome, String> {
    let calibration = Calibration::begin();
    let mut trial = Trial {
        bytes: setting.extent.bytes,
        watch: W::default(),
        scale: setting.scale,
        time: Duration::ZERO,
        used: Usage::default(),
        calls: 0,
        checksum: 0,
        peak_kb: 0,
        extra: Vec::new(),
        settled: Vec::new(),
    };
    work(&mut trial)?;
    let mut figures = Vec::new();
    if W::CALLS {
        let longest = trial.watch.longest() as f64;
        if longest > 0.0 {
            figures.push(("longest_ns", longest * calibration.ns_per_tick()));
        }
    } else {
        if setting.extent.settle && trial.settled.is_empty() {
            trial.live_on()?;
        }
        figures.extend([
            ("ns", trial.time.as_nanos() as f64 / trial.calls as f64),
            ("system_ms", trial.used.system.as_secs_f64() * 1e3),
            ("faults", trial.used.faults as f64),
            (PEAK, trial.peak_kb as f64),
        ]);
        figures.append(&mut trial.settled);
        figures.append(&mut trial.extra);
    }
    Ok(Outcome {
        figures,
        checksum: Some(trial.checksum),
        ..Outcome::default()
    })
}
