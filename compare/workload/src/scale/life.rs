//! A light life after the work: some thousand calls every 10 ms. What stays resident meanwhile?

use std::thread;
use std::time::{Duration, Instant};

use super::super::mapped::{self, MappedArray};
use super::super::random::Random;
use super::super::rss;
use super::blocks::{Heap, SMALL, Sizes};
use super::trial::Trial;
use super::watch::Watch;

const TICK: Duration = Duration::from_millis(10);
const AT_HAND: usize = 4000;
/// Replacements of a tick: a free and an allocation each.
const REPLACED: usize = 1500;
/// The moments, in ticks since the life began.
const LOOKS: [(u32, &str); 2] = [(100, "after_1s_kb"), (300, "after_3s_kb")];

impl<W: Watch> Trial<W> {
    /// Lives on and looks at the resident size, the harness' arrays left out.
    pub(super) fn live_on(&mut self) -> Result<(), String> {
        let looks = if self.is_quick() {
            &LOOKS[..1]
        } else {
            &LOOKS[..]
        };
        let sizes = Sizes::new(SMALL);
        let mut heap = Heap::over(MappedArray::new(AT_HAND)?, &sizes);
        let mut random = Random::new(20);
        for slot in 0..AT_HAND {
            heap.put(&mut self.watch, slot, random.next());
        }
        let begun = Instant::now();
        let mut number = 0;
        for &(until, key) in looks {
            while number < until {
                number += 1;
                for _ in 0..REPLACED {
                    let slot = random.below(AT_HAND);
                    heap.take(&mut self.watch, slot);
                    heap.put(&mut self.watch, slot, random.next());
                }
                thread::sleep((TICK * number).saturating_sub(begun.elapsed()));
            }
            let resident_kb = rss::now_kb()? as f64 - mapped::total_kb() as f64;
            self.settled.push((key, resident_kb));
        }
        Ok(())
    }
}
