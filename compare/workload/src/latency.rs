//! l_: the distribution of single operations, each timed by itself. The table of latency rows.
//!
//! An allocation counts with the write of its block's first word, a free without the read that the
//! row does before. Warm-ups are a tenth as long as what is timed.

use std::thread;

use super::block::{Block, BlockLayout, Unwritten};
use super::clock::Calibration;
use super::outcome::Outcome;
use super::random::{Random, mixed_layout};
use super::replace::WorkingSet;
use super::ring::{BATCH, Receiver, Ring, Sender};
use super::rows::{Row, Run};
use super::setting::Setting;
use super::stopwatch::Stopwatch;

/// l_empty, l_ws100k, l_cross: pairs of operations at scale 1.
const PAIRS: u64 = 2_000_000;

const LIVE: usize = 100_000;

/// l_burst: bursts at scale 1.
const BURSTS: u64 = 40;
const BURST: usize = 100_000;

/// l_large: replacements at scale 1.
const LARGE: u64 = 3_000;
const LARGE_LIVE: usize = 8;
const LARGE_MIN: usize = 1 << 20;
const LARGE_MAX: usize = 8 << 20;

const fn row(
    name: &'static str,
    about: &'static str,
    run: fn(&Setting) -> Result<Outcome, String>,
) -> Row {
    Row {
        name,
        about,
        run: Run::Latency(run),
    }
}

pub(crate) const ROWS: &[Row] = &[
    row(
        "l_empty",
        "nothing: the control, what the clock and the machine do",
        empty,
    ),
    row(
        "l_ws100k",
        "alloc, free: random replacement, 100 000 live",
        working_set,
    ),
    row(
        "l_burst",
        "alloc, free: 100 000 of 16..512 B, then all freed, again and again",
        burst,
    ),
    row(
        "l_large",
        "alloc, free: 1..8 MiB, 8 live, touched outside the timed part (few samples)",
        large,
    ),
    row(
        "l_cross",
        "alloc, free: 16..512 B, freed by another thread than allocated them",
        cross,
    ),
];

/// What a row times.
struct Watches {
    alloc: Stopwatch,
    free: Stopwatch,
    calibration: Calibration,
}

impl Watches {
    fn new() -> Self {
        Self {
            alloc: Stopwatch::new(),
            free: Stopwatch::new(),
            calibration: Calibration::begin(),
        }
    }

    /// The figures of all operations, then those of either kind.
    fn outcome(self, checksum: u64) -> Outcome {
        const ALL: [&str; 4] = ["p50_ns", "p99_ns", "p999_ns", "max_ns"];
        const ALLOC: [&str; 4] = [
            "alloc_p50_ns",
            "alloc_p99_ns",
            "alloc_p999_ns",
            "alloc_max_ns",
        ];
        const FREE: [&str; 4] = ["free_p50_ns", "free_p99_ns", "free_p999_ns", "free_max_ns"];
        let all = self.alloc.and(&self.free);
        let ns = self.calibration.ns_per_tick();
        let mut figures = Vec::new();
        for (keys, watch) in [(ALL, &all), (ALLOC, &self.alloc), (FREE, &self.free)] {
            let values = watch.quantiles().map(|ticks| ticks as f64 * ns);
            figures.extend(keys.into_iter().zip(values));
        }
        figures.push(("samples", all.count() as f64));
        Outcome {
            figures,
            checksum: Some(checksum),
            ..Outcome::default()
        }
    }
}

/// How often a row repeats what it does.
struct Rounds {
    warm_up: u64,
    all: u64,
}

impl Rounds {
    fn new(setting: &Setting, at_scale_1: u64) -> Self {
        let timed = ((at_scale_1 as f64 * setting.scale).round() as u64).max(1);
        let warm_up = timed.div_ceil(10);
        Self {
            warm_up,
            all: warm_up + timed,
        }
    }
}

/// Repeats `round`, which times what it likes and returns a checksum.
#[inline(always)]
fn repeat(rounds: &Rounds, mut round: impl FnMut(&mut Watches) -> u64) -> Outcome {
    let mut watches = Watches::new();
    let mut sum = 0_u64;
    for index in 0..rounds.all {
        if index == rounds.warm_up {
            watches.alloc.reset();
            watches.free.reset();
        }
        sum = sum.wrapping_mul(31).wrapping_add(round(&mut watches));
    }
    watches.outcome(sum)
}

/// The timer around nothing, as often as in `l_ws100k`.
fn empty(setting: &Setting) -> Result<Outcome, String> {
    Ok(repeat(&Rounds::new(setting, PAIRS), |watches| {
        watches.free.time(|| ());
        watches.alloc.time(|| ());
        0
    }))
}

fn working_set(setting: &Setting) -> Result<Outcome, String> {
    let mut set = WorkingSet::new(LIVE, 15);
    Ok(repeat(&Rounds::new(setting, PAIRS), |watches| {
        set.replace_by(
            1,
            |layout, word| watches.alloc.time(|| Block::alloc(layout, word)),
            |block, layout| {
                // SAFETY: 1. `replace_by` forgets the block. 2. it gives the block's layout.
                watches.free.time(|| unsafe { block.free(layout) });
            },
        )
    }))
}

fn burst(setting: &Setting) -> Result<Outcome, String> {
    let mut blocks: Vec<Block> = Vec::with_capacity(BURST);
    Ok(repeat(&Rounds::new(setting, BURSTS), |watches| {
        for index in 0..BURST as u64 {
            let layout = mixed_layout(index);
            blocks.push(watches.alloc.time(|| Block::alloc(layout, index)));
        }
        let mut sum = 0_u64;
        for (index, block) in blocks.drain(..).enumerate() {
            let layout = mixed_layout(index as u64);
            // SAFETY: 1. allocated above.
            sum = sum.wrapping_mul(31).wrapping_add(unsafe { block.word() });
            // SAFETY: 1. as above, and the handle ends here. 2. the layout of this index.
            watches.free.time(|| unsafe { block.free(layout) });
        }
        sum
    }))
}

fn large(setting: &Setting) -> Result<Outcome, String> {
    let mut random = Random::new(16);
    let mut slots: [Option<(Block, BlockLayout)>; LARGE_LIVE] = [None; LARGE_LIVE];
    let outcome = repeat(&Rounds::new(setting, LARGE), |watches| {
        let slot = &mut slots[random.below(LARGE_LIVE)];
        let mut sum = 0;
        if let Some((block, layout)) = slot.take() {
            // SAFETY: 1. a slot holds a live block.
            sum = unsafe { block.word() };
            // SAFETY: 1. as above, taken out of its slot. 2. a slot keeps its block's layout.
            watches.free.time(|| unsafe { block.free(layout) });
        }
        let size = LARGE_MIN + random.below(LARGE_MAX - LARGE_MIN + 1);
        let layout = BlockLayout::new(size);
        let unwritten = watches.alloc.time(|| Unwritten::alloc(layout));
        let block = unwritten.write(size as u64);
        // SAFETY: 1. allocated above. 2. with this layout.
        unsafe { block.touch_pages(layout, size as u64) };
        *slot = Some((block, layout));
        sum
    });
    for (block, layout) in slots.into_iter().flatten() {
        // SAFETY: 1. a slot holds a live block, and the slots end here. 2. its layout.
        unsafe { block.free(layout) };
    }
    Ok(outcome)
}

/// The main thread allocates, another one frees.
fn cross(setting: &Setting) -> Result<Outcome, String> {
    let rounds = Rounds::new(setting, PAIRS / BATCH as u64);
    let mut ring = Ring::new();
    let (sender, receiver) = ring.split();
    let mut watches = Watches::new();
    let sum = thread::scope(|scope| {
        let freeing = scope.spawn(|| free_all(receiver, &rounds, &mut watches.free));
        alloc_all(sender, &rounds, &mut watches.alloc);
        freeing.join().expect("a free does not panic")
    });
    Ok(watches.outcome(sum))
}

/// The sizes of a batch.
fn layouts(round: u64) -> impl Iterator<Item = BlockLayout> {
    let first = round * BATCH as u64;
    (first..).map(mixed_layout)
}

fn alloc_all(mut sender: Sender, rounds: &Rounds, watch: &mut Stopwatch) {
    for round in 0..rounds.all {
        if round == rounds.warm_up {
            watch.reset();
        }
        sender.send(|batch| {
            for (slot, layout) in batch.iter_mut().zip(layouts(round)) {
                *slot = Some(watch.time(|| Block::alloc(layout, round)));
            }
        });
    }
}

fn free_all(mut receiver: Receiver, rounds: &Rounds, watch: &mut Stopwatch) -> u64 {
    let mut sum = 0_u64;
    for round in 0..rounds.all {
        if round == rounds.warm_up {
            watch.reset();
        }
        receiver.receive(|batch| {
            for (block, layout) in batch.iter().flatten().zip(layouts(round)) {
                // SAFETY: 1. sent to us, once, and freed only here.
                sum = sum.wrapping_mul(31).wrapping_add(unsafe { block.word() });
                // SAFETY: 1. as above; the slot is overwritten before it is sent again.
                // 2. both sides count the same layouts.
                watch.time(|| unsafe { block.free(layout) });
            }
        });
    }
    sum
}
