//! m_keep0, m_keep5: a spike of small blocks, freed; what stays resident at once, after two idle
//! seconds, after an explicit purge, and two seconds later?

use std::hint::black_box;
use std::thread::sleep;
use std::time::Duration;

use super::block::{Block, BlockLayout};
use super::mapped::MappedArray;
use super::memory::{Figures, Setting};
use super::random::{mix, mixed_layout};
use super::rss::Resident;

const SPIKE: f64 = (1_u64 << 30) as f64;
const IDLE: Duration = Duration::from_secs(2);
const PAGE: usize = 4096;

/// Which blocks outlive the spike.
#[derive(Clone, Copy)]
enum Survivors {
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

pub(crate) fn keep_none(setting: &Setting) -> Result<Figures, String> {
    spike(setting, Survivors::None)
}

pub(crate) fn keep_some(setting: &Setting) -> Result<Figures, String> {
    spike(setting, Survivors::OneIn(20))
}

/// Each block is filled with its own byte, so that a survivor can be checked.
fn pattern(index: u64) -> u8 {
    mix(index) as u8
}

fn spike(setting: &Setting, survivors: Survivors) -> Result<Figures, String> {
    let count = block_count(SPIKE * setting.scale);
    let mut blocks = MappedArray::<Option<Block>>::new(count)?;
    // a first allocation, so that the start includes what the allocator sets up once
    drop(black_box(Box::new(0_u64)));

    let net = |resident: Resident| resident.now_kb.saturating_sub(blocks.resident_kb());
    let start = net(Resident::read()?);
    let harness = blocks.resident_kb();

    for (index, slot) in blocks.iter_mut().enumerate() {
        let layout = mixed_layout(index as u64);
        let block = Block::alloc(layout, 0);
        // SAFETY: 1. allocated above. 2. with this layout.
        unsafe { block.fill(layout, pattern(index as u64)) };
        *slot = Some(block);
    }
    let peak = Resident::read()?.peak_kb.saturating_sub(harness);

    for (index, slot) in blocks.iter_mut().enumerate() {
        if !survivors.include(index as u64)
            && let Some(block) = slot.take()
        {
            // SAFETY: 1. taken out of its slot. 2. the layout of this index.
            unsafe { block.free(mixed_layout(index as u64)) };
        }
    }
    let net = |resident: Resident| resident.now_kb.saturating_sub(harness);
    let freed = net(Resident::read()?);
    sleep(IDLE);
    let idle = net(Resident::read()?);
    (setting.purge)();
    let purged = net(Resident::read()?);
    sleep(IDLE);
    let later = net(Resident::read()?);

    let mut figures = vec![
        ("start_kb", start as f64),
        ("peak_kb", peak as f64),
        ("freed_kb", freed as f64),
        ("idle_kb", idle as f64),
        ("purged_kb", purged as f64),
        ("later_kb", later as f64),
    ];
    if matches!(survivors, Survivors::OneIn(_)) {
        check(&blocks)?;
        let needed = survivor_pages_kb(&blocks)? as f64;
        figures.push(("survivor_pages_kb", needed));
        for (key, resident) in [
            ("freed_ratio", freed),
            ("idle_ratio", idle),
            ("purged_ratio", purged),
            ("later_ratio", later),
        ] {
            figures.push((key, (resident as f64 - start as f64) / needed));
        }
    }
    for (index, slot) in blocks.iter_mut().enumerate() {
        if let Some(block) = slot.take() {
            // SAFETY: 1. a survivor, taken out of its slot. 2. the layout of this index.
            unsafe { block.free(mixed_layout(index as u64)) };
        }
    }
    Ok(figures)
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
