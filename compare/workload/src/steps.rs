//! m_peak, m_maps: blocks that only pile up, and large blocks that come and go.

use super::bag::Bag;
use super::held::Touch;
use super::outcome::{Outcome, Sample};
use super::random::Random;
use super::sampler::Sampler;
use super::setting::Setting;
use super::sizes::{Falling, between};

const PEAK: f64 = (256 << 20) as f64;
const SMALLEST: usize = 16;
const LARGEST: usize = 64 << 10;
/// Blocks between two looks at m_peak.
const STRIDE: usize = 256;

/// Builds up, and reads the size when most is live.
pub(crate) fn peak(setting: &Setting) -> Result<Outcome, String> {
    let target = (PEAK * setting.scale) as usize;
    let sizes = Falling::new(SMALLEST, LARGEST);
    let mut random = Random::new(21);
    let mut bag = Bag::for_bytes(target, sizes.mean())?;
    let mut sampler = Sampler::begin()?;
    while bag.bytes() < target {
        bag.add(sizes.draw(&mut random));
        if bag.count().is_multiple_of(STRIDE) {
            sampler.look(bag.bytes())?;
        }
    }
    let full = sampler.measure(bag.bytes())?;
    let peak_ratio = sampler.peak_kb()? / full.live_kb;
    let outcome = sampler.outcome(vec![
        ("peak_ratio", peak_ratio),
        ("committed_ratio", full.committed_kb / full.live_kb),
        ("live_kb", full.live_kb),
        ("resident_kb", full.resident_kb),
        ("mappings", full.mappings),
    ]);
    bag.empty()?;
    Ok(outcome)
}

/// Large blocks.
const MANY: f64 = 5000.0;
/// So many are left when most of them go.
const FEW: f64 = 500.0;
const LARGE_MIN: usize = 300_000;
const LARGE_MAX: usize = 2_000_000;
/// Replacements for each block, while there are many or few.
const TURNS: usize = 10;

struct Large {
    bag: Bag,
    random: Random,
    sampler: Sampler,
}

impl Large {
    /// So many blocks, from more or from fewer.
    fn reach(&mut self, count: usize) -> Result<(), String> {
        while self.bag.count() < count {
            self.bag
                .add(between(LARGE_MIN, LARGE_MAX, &mut self.random));
            self.sampler.look(self.bag.bytes())?;
        }
        while self.bag.count() > count {
            self.free_any()?;
            self.sampler.look(self.bag.bytes())?;
        }
        Ok(())
    }

    fn free_any(&mut self) -> Result<(), String> {
        self.bag.free(self.random.below(self.bag.count()))
    }

    /// Replaces at random.
    fn churn(&mut self) -> Result<Sample, String> {
        let count = self.bag.count();
        for _ in 0..TURNS * count {
            self.free_any()?;
            self.reach(count)?;
        }
        self.sampler.measure(self.bag.bytes())
    }
}

/// Many, few, many again, none. Only the ends of a block are written.
pub(crate) fn large(setting: &Setting) -> Result<Outcome, String> {
    without_huge_pages()?;
    let at_least_one = |count: f64| ((count * setting.scale) as usize).max(1);
    let (many, few) = (at_least_one(MANY), at_least_one(FEW));
    let mut large = Large {
        bag: Bag::new(many, Touch::Ends)?,
        random: Random::new(22),
        sampler: Sampler::begin()?,
    };
    let mut stage = |count| {
        large.reach(count)?;
        large.churn()
    };
    let first = stage(many)?;
    let shrunk = stage(few)?;
    let again = stage(many)?;
    large.reach(0)?;
    let end = large.sampler.measure(0)?;
    Ok(large.sampler.outcome(vec![
        ("mappings_per_block", again.mappings / many as f64),
        ("full_mappings", first.mappings),
        ("few_mappings", shrunk.mappings),
        ("again_mappings", again.mappings),
        ("end_mappings", end.mappings),
        ("full_committed_ratio", first.committed_kb / first.live_kb),
        ("few_committed_ratio", shrunk.committed_kb / shrunk.live_kb),
        ("again_resident_kb", again.resident_kb),
        ("end_resident_kb", end.resident_kb),
    ]))
}

/// Blocks are written at their ends only; with huge pages that would be all of them, several GiB.
fn without_huge_pages() -> Result<(), String> {
    // SAFETY: 1. the option takes a number and three zeros.
    let status = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    match status {
        0 => Ok(()),
        _ => Err("huge pages cannot be turned off for this process".into()),
    }
}
