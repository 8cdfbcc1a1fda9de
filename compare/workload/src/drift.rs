//! m_drift: the usual size drifts slowly while the live bytes stay the same.

use std::f64::consts::PI;

use super::bag::Bag;
use super::outcome::Outcome;
use super::random::{Random, mix};
use super::sampler::Sampler;
use super::setting::Setting;
use super::sizes::about;

const LIVE: f64 = (64 << 20) as f64;
/// The usual size goes from here
const SMALL: f64 = 48.0;
/// to here and back in one sweep, as slowly as bytes are allocated.
const LARGE: f64 = 1536.0;
/// In one sweep all live bytes are replaced so many times.
const TURNOVERS: usize = 16;
/// One block in so many lives so many times as long as others.
const LASTING: u64 = 10;
/// Sweeps; a soak takes about five minutes.
const SWEEPS: usize = 1;
const SOAK_SWEEPS: usize = 110;
/// Replacements between two looks.
const STRIDE: u64 = 256;
/// Readings of the second half.
const READINGS: usize = 40;
/// After the last sweep: blocks replaced every 10 ms.
const REPLACED: usize = 500;

struct Drift {
    bag: Bag,
    random: Random,
    allocated: usize,
    sweep: usize,
}

impl Drift {
    /// Allocates a block of a size that is usual now.
    fn add(&mut self) {
        let turn = self.allocated as f64 / self.sweep as f64;
        let share = (1.0 - (2.0 * PI * turn).cos()) / 2.0;
        let size = about(SMALL * (LARGE / SMALL).powf(share), &mut self.random);
        self.bag.add(size);
        self.allocated += size;
    }

    /// Frees a block at random, seldom a lasting one.
    fn free(&mut self) -> Result<(), String> {
        loop {
            let index = self.random.below(self.bag.count());
            let lasting = mix(self.bag.tag(index).into()).is_multiple_of(LASTING);
            if !lasting || self.random.below(LASTING as usize) == 0 {
                return self.bag.free(index);
            }
        }
    }
}

pub(crate) fn drift(setting: &Setting) -> Result<Outcome, String> {
    let target = (LIVE * setting.scale) as usize;
    let sweep = target * TURNOVERS;
    let total = sweep * if setting.soak { SOAK_SWEEPS } else { SWEEPS };
    let mut drift = Drift {
        bag: Bag::for_bytes(target, SMALL as usize)?,
        random: Random::new(24),
        allocated: 0,
        sweep,
    };
    let mut sampler = Sampler::begin()?;
    let mut operations = 0_u64;
    let mut readings = 0;
    let mut ratios = 0.0;
    while drift.allocated < total {
        drift.add();
        while drift.bag.bytes() > target {
            drift.free()?;
        }
        operations += 1;
        if operations.is_multiple_of(STRIDE) {
            sampler.look(drift.bag.bytes())?;
        }
        if readings < READINGS && drift.allocated >= total / 2 + total / 2 * readings / READINGS {
            let sample = sampler.measure(drift.bag.bytes())?;
            ratios += sampler.ratio(&sample);
            readings += 1;
        }
    }
    let end = sampler.measure(drift.bag.bytes())?;
    let peak_kb = sampler.peak_kb()?;
    let settled = sampler.live_on(setting.settling(), || {
        for _ in 0..REPLACED {
            drift.free()?;
            drift.add();
        }
        Ok(drift.bag.bytes())
    })?;
    let outcome = sampler.outcome(vec![
        ("mean_ratio", ratios / readings as f64),
        ("peak_ratio", peak_kb / (target as f64 / 1024.0)),
        ("end_ratio", sampler.ratio(&end)),
        ("settled_ratio", sampler.ratio(&settled)),
        ("end_committed_ratio", end.committed_kb / end.live_kb),
        ("live_kb", end.live_kb),
        ("resident_kb", end.resident_kb),
        ("mappings", end.mappings),
        ("operations", operations as f64),
    ]);
    drift.bag.empty()?;
    Ok(outcome)
}
