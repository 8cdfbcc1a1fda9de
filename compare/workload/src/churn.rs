//! h_: short-lived threads, some of whose blocks outlive them.

use std::array;
use std::thread;

use super::block::{Block, BlockLayout};
use super::meter::{Meter, Reading};
use super::random::mixed_layout;

const BLOCKS: usize = 100;
/// One block in so many survives its thread.
const SURVIVOR_EVERY: usize = 5;
const SURVIVORS: usize = BLOCKS / SURVIVOR_EVERY;
/// Threads alive at a time.
const ABREAST: usize = 2;
const STACK: usize = 128 << 10;

/// The mixed size of a thread's `index`-th block.
fn layout_of(thread: u64, index: usize) -> BlockLayout {
    mixed_layout(thread * BLOCKS as u64 + index as u64)
}

/// The life of one thread: allocates its blocks, frees all but the survivors.
fn short_life(thread: u64) -> [Block; SURVIVORS] {
    let blocks: [Block; BLOCKS] =
        array::from_fn(|index| Block::alloc(layout_of(thread, index), index as u64));
    for (index, block) in blocks.iter().enumerate() {
        if index % SURVIVOR_EVERY != 0 {
            // SAFETY: 1. allocated above, not a survivor. 2. the layout of this index.
            unsafe { block.free(layout_of(thread, index)) };
        }
    }
    array::from_fn(|survivor| blocks[survivor * SURVIVOR_EVERY])
}

pub(crate) fn churn(meter: &Meter) -> Reading {
    meter.run(700, ABREAST, |rounds| {
        let mut sum = 0_u64;
        for round in 0..rounds {
            let threads: [_; ABREAST] = array::from_fn(|index| {
                let thread = round * ABREAST as u64 + index as u64;
                let handle = thread::Builder::new()
                    .stack_size(STACK)
                    .spawn(move || short_life(thread))
                    .expect("a thread can be started");
                (thread, handle)
            });
            for (thread, handle) in threads {
                let survivors = handle.join().expect("a short life does not panic");
                for (survivor, block) in survivors.into_iter().enumerate() {
                    // SAFETY: 1. a survivor: nobody has freed it.
                    sum = sum.wrapping_add(unsafe { block.word() });
                    let layout = layout_of(thread, survivor * SURVIVOR_EVERY);
                    // SAFETY: 1. as above, and the array ends here. 2. the layout of this index.
                    unsafe { block.free(layout) };
                }
            }
        }
        sum
    })
}
