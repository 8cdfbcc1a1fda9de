//! m_keep, m_life: a spike of small blocks, freed but for some survivors. What stays resident in a
//! program that then does nothing, and in one that lives on quietly?

use std::time::Duration;

use super::bag::Bag;
use super::block::{Block, BlockLayout};
use super::held::Touch;
use super::mapped::MappedArray;
use super::outcome::{Outcome, Sample};
use super::random::{Random, mix, mixed_layout};
use super::sampler::Sampler;
use super::setting::Setting;

const SPIKE: f64 = (1_u64 << 30) as f64;
const PAGE: usize = 4096;
/// Blocks between two looks.
const STRIDE: usize = 4096;

/// A light life: in every tick, so many of the blocks at hand are replaced.
const REPLACED: usize = 3000;
const AT_HAND: usize = 4000;

/// Which blocks outlive the spike.
#[derive(Clone, Copy)]
pub(crate) enum Survivors {
    None,
    OneIn(u64),
}

impl Survivors {
    fn include(self, index: u64) -> bool {
        match self {
            Self::None => false,
            // another sequence than the one the sizes come from
            Self::OneIn(several) => mix(index ^ 0xA5A5_5A5A_0000_0000).is_multiple_of(several),
        }
    }
}

/// Each block is filled with its own byte, so that a survivor can be checked.
fn pattern(index: u64) -> u8 {
    mix(index) as u8
}

/// Idle, purged, idle again.
pub(crate) fn keep(setting: &Setting, survivors: Survivors) -> Result<Outcome, String> {
    let pause = Duration::from_secs(if setting.scale < 1.0 { 1 } else { 2 });
    let mut spike = Spike::new(setting)?;
    spike.fill()?;
    let freed = spike.free_but(survivors)?;
    let live = spike.live_bytes;
    let sampler = &mut spike.sampler;
    let idle = sampler.idle(pause, live)?;
    (setting.purge)();
    let purged = sampler.measure(live)?;
    let later = sampler.idle(pause, live)?;
    spike.report(
        &[
            ("freed_kb", "freed_ratio", freed),
            ("idle_kb", "idle_ratio", idle),
            ("purged_kb", "purged_ratio", purged),
            ("later_kb", "later_ratio", later),
        ],
        0,
    )
}

/// Nobody calls the purge hook, but the allocator is called all the time.
pub(crate) fn live_on(setting: &Setting, survivors: Survivors) -> Result<Outcome, String> {
    let half = Duration::from_millis(if setting.scale < 1.0 { 750 } else { 1750 });
    let mut spike = Spike::new(setting)?;
    let mut bag = Bag::new(AT_HAND, Touch::All)?;
    let mut random = Random::new(20);
    for index in 0..AT_HAND as u64 {
        bag.add(mixed_layout(index).size());
    }
    spike.fill()?;
    let freed = spike.free_but(survivors)?;
    let survivors_bytes = spike.live_bytes;
    let mut tick = || {
        for _ in 0..REPLACED {
            bag.free(random.below(AT_HAND))?;
            bag.add(mixed_layout(random.next()).size());
        }
        Ok(survivors_bytes + bag.bytes())
    };
    let mid = spike.sampler.live_on(half, &mut tick)?;
    let end = spike.sampler.live_on(half, &mut tick)?;
    let at_hand = bag.bytes();
    bag.empty()?;
    spike.report(
        &[
            ("freed_kb", "freed_ratio", freed),
            ("mid_kb", "mid_ratio", mid),
            ("end_kb", "end_ratio", end),
        ],
        at_hand,
    )
}

struct Spike {
    blocks: MappedArray<Option<Block>>,
    live_bytes: usize,
    sampler: Sampler,
    top: Option<Sample>,
    survivors: Survivors,
}

impl Spike {
    fn new(setting: &Setting) -> Result<Self, String> {
        Ok(Self {
            blocks: MappedArray::new(block_count(SPIKE * setting.scale))?,
            live_bytes: 0,
            sampler: Sampler::begin()?,
            top: None,
            survivors: Survivors::None,
        })
    }

    fn fill(&mut self) -> Result<(), String> {
        for (index, slot) in self.blocks.iter_mut().enumerate() {
            let layout = mixed_layout(index as u64);
            let block = Block::alloc(layout, 0);
            // SAFETY: 1. allocated above. 2. with this layout.
            unsafe { block.fill(layout, pattern(index as u64)) };
            *slot = Some(block);
            self.live_bytes += layout.size();
            if index % STRIDE == 0 {
                self.sampler.look(self.live_bytes)?;
            }
        }
        self.top = Some(self.sampler.measure(self.live_bytes)?);
        Ok(())
    }

    fn free_but(&mut self, survivors: Survivors) -> Result<Sample, String> {
        self.survivors = survivors;
        for index in 0..self.blocks.len() {
            if !survivors.include(index as u64) {
                self.free(index)?;
            }
            if index % STRIDE == 0 {
                self.sampler.look(self.live_bytes)?;
            }
        }
        self.sampler.measure(self.live_bytes)
    }

    /// Checks the ends of a block, if it is there, and frees it.
    fn free(&mut self, index: usize) -> Result<(), String> {
        let Some(block) = self.blocks[index].take() else {
            return Ok(());
        };
        let layout = mixed_layout(index as u64);
        // SAFETY: 1. live. 2. its layout. 3. only this function uses it now. 4. filled.
        let bytes = unsafe { block.bytes(layout) };
        let word = [pattern(index as u64); 8];
        if !bytes.starts_with(&word) || !bytes.ends_with(&word) {
            return Err(format!("block {index} has been overwritten"));
        }
        // SAFETY: 1. taken out of its slot. 2. the layout of this index.
        unsafe { block.free(layout) };
        self.live_bytes -= layout.size();
        Ok(())
    }

    /// The figures; `besides` is what the row holds apart from the survivors.
    fn report(
        mut self,
        moments: &[(&'static str, &'static str, Sample)],
        besides: usize,
    ) -> Result<Outcome, String> {
        let start = self.sampler.start_kb();
        let top = self.top.map_or(0.0, |top| top.resident_kb);
        let mut figures = vec![("start_kb", start), ("full_kb", top)];
        figures.extend(moments.iter().map(|(key, _, at)| (*key, at.resident_kb)));
        if matches!(self.survivors, Survivors::OneIn(_)) {
            check(&self.blocks)?;
            let pages = survivor_pages_kb(&self.blocks)? as f64;
            figures.push(("survivor_pages_kb", pages));
            let needed = pages + besides as f64 / 1024.0;
            figures.extend(
                moments
                    .iter()
                    .map(|(_, key, at)| (*key, (at.resident_kb - start) / needed)),
            );
        }
        let outcome = self.sampler.outcome(figures);
        for index in 0..self.blocks.len() {
            self.free(index)?;
        }
        Ok(outcome)
    }
}

/// How many of the mixed sizes add up to `bytes`.
fn block_count(bytes: f64) -> usize {
    let mut total = 0.0;
    let mut count = 0;
    while total < bytes {
        total += mixed_layout(count as u64).size() as f64;
        count += 1;
    }
    count
}

fn live(blocks: &[Option<Block>]) -> impl Iterator<Item = (u64, Block, BlockLayout)> {
    blocks.iter().enumerate().filter_map(|(index, slot)| {
        slot.map(|block| (index as u64, block, mixed_layout(index as u64)))
    })
}

/// No byte of a survivor has changed.
fn check(blocks: &[Option<Block>]) -> Result<(), String> {
    for (index, block, layout) in live(blocks) {
        // SAFETY: 1. live. 2. its layout. 3. only this function uses it now. 4. filled.
        let bytes = unsafe { block.bytes(layout) };
        if bytes.iter().any(|&byte| byte != pattern(index)) {
            return Err(format!("surviving block {index} has been overwritten"));
        }
    }
    Ok(())
}

/// The size of the distinct pages that hold a byte of a survivor: the least that can stay.
fn survivor_pages_kb(blocks: &[Option<Block>]) -> Result<u64, String> {
    let covered = |block: Block, layout: BlockLayout| {
        let first = block.address().addr().get();
        first / PAGE..=(first + layout.size() - 1) / PAGE
    };
    let entries: usize = live(blocks)
        .map(|(_, block, layout)| covered(block, layout).count())
        .sum();
    let mut pages = MappedArray::<u64>::new(entries.max(1))?;
    let numbers = live(blocks).flat_map(|(_, block, layout)| covered(block, layout));
    for (entry, number) in pages.iter_mut().zip(numbers) {
        *entry = number as u64;
    }
    pages.sort_unstable();
    let distinct = 1 + pages.windows(2).filter(|pair| pair[0] != pair[1]).count();
    Ok((distinct * PAGE / 1024) as u64)
}
