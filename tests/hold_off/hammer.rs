//! Threads that never stop using the allocator, and look at the contents of all their blocks.

use std::thread::{self, ScopedJoinHandle};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::blocks::Blocks;
use crate::common::block::Block;
use crate::sleepers::join;
use crate::{ALLOC, MIB};

/// Sizes for [`hammer`]: those whose blocks cover pages come in numbers, as only they can lose any.
const HAMMERED: [usize; 12] = [
    40,
    64,
    256,
    1_024,
    4_096,
    4_096,
    5_000,
    8_192,
    16_384,
    65_536,
    300_000,
    2 * MIB,
];

/// Allocates, checks and frees blocks: most at once in bursts, which come from and go to the thread's
/// magazines, some after a while.
fn hammer(seed: u64, bursts: usize) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut kept = Blocks::with_room(32);
    let mut burst: [Option<(Block, usize)>; 8] = [const { None }; 8];
    for _ in 0..bursts {
        let size = HAMMERED[rng.random_range(0..HAMMERED.len())];
        let count = if size > 65_536 { 1 } else { burst.len() };
        for slot in &mut burst[..count] {
            let tag = rng.random_range(0..1_000_000);
            *slot = Some((Block::filled(&ALLOC, size, 8, tag), tag));
        }
        for slot in burst.iter_mut().rev() {
            if let Some((block, tag)) = slot.take() {
                block.check(tag);
                block.free(&ALLOC);
            }
        }
        let tag = rng.random_range(0..kept.0.len());
        let size = HAMMERED[rng.random_range(0..10)];
        let new = Block::filled(&ALLOC, size, 8, tag);
        if let Some(old) = kept.0[tag].replace(new) {
            old.check(tag);
            old.free(&ALLOC);
        }
    }
    kept.free_all();
}

/// Runs hammers and short threads, and `meanwhile` until they are done.
pub(crate) fn while_hammering(bursts: usize, short_threads: u64, mut meanwhile: impl FnMut()) {
    const HAMMERS: u64 = 3;
    const SHORT: usize = 20;
    thread::scope(|scope| {
        let mut threads: Vec<_> = (0..HAMMERS)
            .map(|seed| scope.spawn(move || hammer(seed, bursts)))
            .collect();
        threads.push(scope.spawn(move || {
            for seed in 0..short_threads {
                let thread = thread::spawn(move || hammer(HAMMERS + seed, SHORT));
                thread.join().expect("the thread did not panic");
            }
        }));
        while !threads.iter().all(ScopedJoinHandle::is_finished) {
            meanwhile();
        }
        join(threads);
    });
}
