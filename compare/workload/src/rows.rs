//! What a row is, and all of them.

use super::meter::{Meter, Reading};
use super::outcome::Outcome;
use super::setting::Setting;
use super::{curves, latency, memory, scale, time};

pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// What one operation is, and what the row does.
    pub(crate) about: &'static str,
    pub(crate) run: Run,
}

/// The kind of a row, and its function.
pub(crate) enum Run {
    /// Nanoseconds for each operation.
    Time(fn(&Meter) -> Reading),
    /// The distribution of single operations.
    Latency(fn(&Setting) -> Result<Outcome, String>),
    /// Sizes, some of them over time.
    Memory(fn(&Setting) -> Result<Outcome, String>),
    /// Nanoseconds for each operation, for one of several amounts.
    Curve(fn(&Setting) -> Result<Outcome, String>),
    /// Everything about a heap of a given size.
    Scale(fn(&Setting) -> Result<Outcome, String>),
}

impl Row {
    pub(crate) const fn kind(&self) -> &'static str {
        match self.run {
            Run::Time(_) => "time",
            Run::Latency(_) => "latency",
            Run::Memory(_) => "memory",
            Run::Curve(_) => "curve",
            Run::Scale(_) => "scale",
        }
    }

    pub(crate) fn run(&self, setting: &Setting) -> Result<Outcome, String> {
        match self.run {
            Run::Time(run) => {
                let reading = run(&Meter::new(setting));
                let mut figures = vec![match setting.slices {
                    Some(_) => ("ops", reading.ops),
                    None => ("ns", reading.ns_per_op),
                }];
                if let Some((taken, waited)) = reading.locks {
                    figures.extend([("locks", taken), ("waits", waited)]);
                }
                Ok(Outcome {
                    figures,
                    checksum: Some(reading.checksum),
                    ..Outcome::default()
                })
            }
            Run::Latency(run) | Run::Memory(run) | Run::Curve(run) | Run::Scale(run) => {
                run(setting)
            }
        }
    }
}

/// Every row.
pub(crate) fn all() -> impl Iterator<Item = &'static Row> {
    [
        time::ROWS,
        latency::ROWS,
        memory::ROWS,
        curves::ROWS,
        scale::ROWS,
    ]
    .into_iter()
    .flatten()
}
