//! m_shift: the sizes in use change from phase to phase while the live bytes stay the same.

use std::mem;

use super::bag::Bag;
use super::outcome::Outcome;
use super::random::{Random, mix};
use super::sampler::Sampler;
use super::setting::Setting;
use super::sizes::around;

const LIVE: f64 = (64 << 20) as f64;
const CENTERS: [usize; 9] = [24, 40, 96, 200, 512, 1500, 4000, 12_000, 40_000];
/// One block in so many lives on until its phase comes again.
const LONG_LIVED: u64 = 50;
/// Blocks between two looks.
const STRIDE: u64 = 64;
/// Cycles of all phases; a soak takes about five minutes.
const CYCLES: usize = 2;
const SOAK_CYCLES: usize = 200;
/// After the last phase: blocks replaced every 10 ms.
const REPLACED: usize = 20;

struct Shift {
    target: usize,
    random: Random,
    sampler: Sampler,
    /// Blocks of the phase before, and of this one.
    old: Bag,
    new: Bag,
    /// Long-lived blocks, by their phase.
    long: [Bag; CENTERS.len()],
    peak_live: usize,
    ops: u64,
}

impl Shift {
    fn live(&self) -> usize {
        let long: usize = self.long.iter().map(Bag::bytes).sum();
        self.old.bytes() + self.new.bytes() + long
    }

    fn fill(&mut self, center: usize, mut live: usize) -> Result<usize, String> {
        while live < self.target {
            let size = around(center, &mut self.random);
            self.new.add(size);
            live += size;
            self.ops += 1;
            if self.ops.is_multiple_of(STRIDE) {
                self.sampler.look(live)?;
            }
        }
        self.peak_live = self.peak_live.max(live);
        Ok(live)
    }

    /// Replaces what the phase `before` has left by blocks of this phase.
    fn phase(&mut self, before: usize, phase: usize) -> Result<(), String> {
        mem::swap(&mut self.old, &mut self.new);
        self.long[phase].empty()?;
        let mut live = self.fill(CENTERS[phase], self.live())?;
        while self.old.count() > 0 {
            let index = self.random.below(self.old.count());
            if mix(self.old.tag(index).into()).is_multiple_of(LONG_LIVED) {
                let survivor = self.old.take(index);
                self.long[before].put(survivor);
            } else {
                live -= self.old.bytes();
                self.old.free(index)?;
                live += self.old.bytes();
            }
            live = self.fill(CENTERS[phase], live)?;
        }
        Ok(())
    }
}

pub(crate) fn shift(setting: &Setting) -> Result<Outcome, String> {
    let target = (LIVE * setting.scale) as usize;
    let cycles = if setting.soak { SOAK_CYCLES } else { CYCLES };
    let bag = || Bag::for_bytes(target, CENTERS[0]);
    let long = |center| Bag::for_bytes(target / LONG_LIVED as usize, center);
    let mut long_bags = Vec::with_capacity(CENTERS.len());
    for center in CENTERS {
        long_bags.push(long(center)?);
    }
    let mut shift = Shift {
        target,
        random: Random::new(23),
        old: bag()?,
        new: bag()?,
        long: long_bags.try_into().map_err(|_| "one bag for each phase")?,
        sampler: Sampler::begin()?,
        peak_live: 0,
        ops: 0,
    };
    let mut ratios = 0.0;
    let mut worst = 0.0_f64;
    let mut before = CENTERS.len() - 1;
    let mut end = None;
    for _ in 0..cycles {
        for phase in 0..CENTERS.len() {
            shift.phase(before, phase)?;
            before = phase;
            let sample = shift.sampler.measure(shift.live())?;
            let ratio = shift.sampler.ratio(&sample);
            ratios += ratio;
            worst = worst.max(ratio);
            end = Some(sample);
        }
    }
    let end = end.ok_or("no phase")?;
    let peak_live_kb = shift.peak_live as f64 / 1024.0;
    let peak_ratio = shift.sampler.peak_kb()? / peak_live_kb;
    let long: usize = shift.long.iter().map(Bag::bytes).sum();
    let settled = shift.sampler.live_on(setting.settling(), || {
        for _ in 0..REPLACED {
            let size = around(CENTERS[CENTERS.len() - 1], &mut shift.random);
            shift.new.free(shift.random.below(shift.new.count()))?;
            shift.new.add(size);
        }
        Ok(long + shift.new.bytes())
    })?;
    let outcome = shift.sampler.outcome(vec![
        ("peak_ratio", peak_ratio),
        ("mean_ratio", ratios / (cycles * CENTERS.len()) as f64),
        ("worst_ratio", worst),
        ("end_ratio", shift.sampler.ratio(&end)),
        ("settled_ratio", shift.sampler.ratio(&settled)),
        ("end_committed_ratio", end.committed_kb / end.live_kb),
        ("live_kb", end.live_kb),
        ("resident_kb", end.resident_kb),
        ("mappings", end.mappings),
    ]);
    shift.old.empty()?;
    shift.new.empty()?;
    for bag in &mut shift.long {
        bag.empty()?;
    }
    Ok(outcome)
}
