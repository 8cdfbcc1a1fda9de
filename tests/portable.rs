//! Without this, Miri would have nothing to run that uses each layer: one pass over all of it, on two threads.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use flagstone::{Config, Flagstone};

/// Not the program's: Miri is to look at the allocator, not at the test's own memory in it.
static ALLOC: Flagstone =
    Flagstone::with_config(Config::new().purge_delay_ms(0).large_cache(8 << 20));

/// Small, medium, gated, spans and mappings, the alignment of each.
const LAYOUTS: [(usize, usize); 8] = [
    (24, 8),
    (100, 64),
    (1_000, 8),
    (5_000, 4_096),
    (40_000, 8),
    (300_000, 8),
    (1_100_000, 8),
    (70_000, 128 << 10),
];

struct Block(NonNull<u8>, Layout);

// SAFETY: 1. the pointer is the only one to the block.
unsafe impl Send for Block {}

impl Block {
    fn new(size: usize, align: usize) -> Self {
        let layout = Layout::from_size_align(size, align).expect("a valid layout");
        // SAFETY: 1. the size is not 0.
        let block = NonNull::new(unsafe { ALLOC.alloc_zeroed(layout) }).expect("memory");
        let block = Self(block, layout);
        assert!(block.0.addr().get().is_multiple_of(align));
        assert_eq!(block.ends(), [0, 0]);
        block.fill()
    }

    fn last(&self) -> NonNull<u8> {
        // SAFETY: 1. inside the block.
        unsafe { self.0.add(self.1.size() - 1) }
    }

    /// The first byte and the last.
    fn ends(&self) -> [u8; 2] {
        // SAFETY: 1. inside the block, and written: zeroed, or by `fill`.
        [self.0, self.last()].map(|place| unsafe { place.read() })
    }

    fn fill(self) -> Self {
        for place in [self.0, self.last()] {
            // SAFETY: 1. inside the block.
            unsafe { place.write(7) };
        }
        self
    }

    fn resized(self, size: usize) -> Self {
        assert_eq!(self.ends(), [7, 7]);
        // SAFETY: 1. live, of this layout. 2. the size is not 0 and far from the largest.
        let block = unsafe { ALLOC.realloc(self.0.as_ptr(), self.1, size) };
        let layout = Layout::from_size_align(size, self.1.align()).expect("a valid layout");
        let block = Self(NonNull::new(block).expect("memory"), layout);
        // SAFETY: 1. the first byte moved along.
        assert_eq!(unsafe { block.0.read() }, 7);
        block.fill()
    }

    fn free(self) {
        assert_eq!(self.ends(), [7, 7]);
        // SAFETY: 1. live, of this layout.
        unsafe { ALLOC.dealloc(self.0.as_ptr(), self.1) };
    }
}

/// Blocks of every kind, of which the other thread gets every other one.
fn pass(other: &Sender<Block>) {
    let mut own = Vec::new();
    for round in 0..3 {
        for (size, align) in LAYOUTS {
            let block = Block::new(size + round, align);
            match round {
                0 => own.push(block),
                1 => other.send(block).expect("the other thread listens"),
                _ => block.free(),
            }
        }
        // More than a magazine holds at first.
        let many: Vec<Block> = (0..40).map(|_| Block::new(48, 8)).collect();
        many.into_iter().for_each(Block::free);
    }
    for block in own {
        let size = block.1.size();
        block.resized(size + size / 2).resized(size / 2 + 1).free();
    }
}

#[test]
fn every_layer_serves_two_threads() {
    let (to_other, from_here) = channel::<Block>();
    let (to_here, from_other) = channel::<Block>();
    let other = thread::spawn(move || {
        pass(&to_here);
        drop(to_here);
        from_here.into_iter().for_each(Block::free);
    });
    pass(&to_other);
    drop(to_other);
    Flagstone::purge();
    from_other.into_iter().for_each(Block::free);
    other.join().expect("the other thread did not panic");
    Flagstone::verify().expect("no violation");
    Flagstone::purge();
    Flagstone::verify().expect("no violation");
    assert_eq!(Flagstone::stats().map(|stats| stats.live), Some(0));
}
