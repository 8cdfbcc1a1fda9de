//! Looks at the process while a row runs, without calling the allocator.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use super::address_space::AddressSpace;
use super::mapped::{self, MappedArray, Zeroed};
use super::outcome::{Outcome, Sample};
use super::rss;

/// Samples kept. When there are more, every second one goes and the gap between them doubles, so
/// that a row of any length ends with half as many or more, evenly spaced.
const KEPT: usize = 200;
const FIRST_GAP: Duration = Duration::from_millis(4);
/// Looking takes at most one part in so many of a row's time.
const SHARE: u32 = 10;
/// Between two looks at an idle process.
const PAUSE: Duration = Duration::from_millis(10);
/// Of a light life.
const TICK: Duration = Duration::from_millis(10);

// SAFETY: 1. numbers. 2. aligned to 8.
unsafe impl Zeroed for Sample {}

pub(crate) struct Sampler {
    begun: Instant,
    kept: MappedArray<Sample>,
    count: usize,
    gap: Duration,
    /// Of the next sample, since `begun`.
    due: Duration,
    spent: Duration,
    start_kb: f64,
    /// Addresses of threads' stacks.
    stacks_kb: f64,
}

impl Sampler {
    /// The size now is the start that ratios leave out; it includes what the allocator sets up at
    /// its first call.
    pub(crate) fn begin() -> Result<Self, String> {
        drop(black_box(Box::new(0_u64)));
        let mut sampler = Self {
            begun: Instant::now(),
            kept: MappedArray::new(KEPT)?,
            count: 0,
            gap: FIRST_GAP,
            due: Duration::ZERO,
            spent: Duration::ZERO,
            start_kb: 0.0,
            stacks_kb: 0.0,
        };
        sampler.start_kb = sampler.measure(0)?.resident_kb;
        Ok(sampler)
    }

    pub(crate) fn start_kb(&self) -> f64 {
        self.start_kb
    }

    /// Leaves `bytes` of stacks out of the committed size from now on.
    pub(crate) fn leave_out_stacks(&mut self, bytes: usize) {
        self.stacks_kb = bytes as f64 / 1024.0;
    }

    /// Reads the sizes now, whatever it costs.
    pub(crate) fn measure(&mut self, live: usize) -> Result<Sample, String> {
        let start = Instant::now();
        let space = AddressSpace::read()?;
        let resident_kb = rss::now_kb()?;
        let ours = mapped::total_kb() as f64;
        let elapsed = start - self.begun;
        let sample = Sample {
            ms: elapsed.as_secs_f64() * 1e3,
            resident_kb: resident_kb as f64 - ours,
            committed_kb: space.committed_kb as f64 - ours - self.stacks_kb,
            live_kb: live as f64 / 1024.0,
            mappings: space.mappings as f64,
        };
        if elapsed >= self.due {
            self.keep(sample);
            self.due = elapsed + self.gap;
        }
        self.spent += start.elapsed();
        Ok(sample)
    }

    /// Reads the sizes if it is time to, and if looking has not taken too much of it.
    pub(crate) fn look(&mut self, live: usize) -> Result<(), String> {
        let elapsed = self.begun.elapsed();
        if elapsed >= self.due && self.spent * SHARE <= elapsed {
            self.measure(live)?;
        }
        Ok(())
    }

    /// Lets time pass, then reads the sizes.
    pub(crate) fn idle(&mut self, time: Duration, live: usize) -> Result<Sample, String> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.measure(live);
            }
            thread::sleep(left.min(PAUSE));
            self.look(live)?;
        }
    }

    /// A light life: every 10 ms `tick` does some work and returns the live bytes. Then reads the
    /// sizes.
    pub(crate) fn live_on(
        &mut self,
        time: Duration,
        mut tick: impl FnMut() -> Result<usize, String>,
    ) -> Result<Sample, String> {
        let begun = Instant::now();
        let ticks = (time.as_nanos() / TICK.as_nanos()) as u32;
        let mut live = tick()?;
        for number in 1..=ticks {
            thread::sleep((TICK * number).saturating_sub(begun.elapsed()));
            live = tick()?;
            self.look(live)?;
        }
        self.measure(live)
    }

    fn keep(&mut self, sample: Sample) {
        if self.count == KEPT {
            for index in 0..KEPT / 2 {
                self.kept[index] = self.kept[2 * index];
            }
            self.count = KEPT / 2;
            self.gap *= 2;
        }
        self.kept[self.count] = sample;
        self.count += 1;
    }

    /// The peak resident size so far, less the start. The arrays there are now must be the ones
    /// that there were at the peak.
    pub(crate) fn peak_kb(&self) -> Result<f64, String> {
        Ok(rss::peak_kb()? as f64 - mapped::total_kb() as f64 - self.start_kb)
    }

    /// Resident size, less the start, over the live bytes.
    pub(crate) fn ratio(&self, sample: &Sample) -> f64 {
        (sample.resident_kb - self.start_kb) / sample.live_kb
    }

    pub(crate) fn outcome(&self, figures: Vec<(&'static str, f64)>) -> Outcome {
        Outcome {
            figures,
            series: self.kept[..self.count].to_vec(),
            ..Outcome::default()
        }
    }
}
