//! Whatever kernel call is refused: an error, and a heap that goes on.

use core::alloc::Layout;
use core::ptr::NonNull;

use flagstone::allocator_api2::alloc::Allocator;
use flagstone::{Flagstone, Heap, HeapOptions, failpoints};

use crate::common::child::one_in;
use crate::common::process::{begin, live, verify};
use crate::kinds;

const ROOM: usize = 300;

/// Blocks in memory that needs no allocation.
struct Kept {
    blocks: [Option<(NonNull<u8>, Layout)>; ROOM],
    count: usize,
    refused: usize,
}

fn mark(place: usize) -> u8 {
    u8::try_from(place % 251).expect("a byte")
}

impl Kept {
    fn alloc(&mut self, heap: &Heap, size: usize) {
        let layout = Layout::from_size_align(size, 8).expect("a layout");
        match (&heap).allocate(layout) {
            Ok(block) => {
                let block = block.cast();
                // SAFETY: as long as the layout.
                unsafe { block.write_bytes(mark(self.count), size) };
                self.blocks[self.count] = Some((block, layout));
                self.count += 1;
            }
            Err(_) => self.refused += 1,
        }
    }

    fn grow(&mut self, heap: &Heap, place: usize, size: usize) {
        if let Some((block, old)) = self.blocks[place] {
            let new = Layout::from_size_align(size, 8).expect("a layout");
            // SAFETY: live; not used any more on success.
            match unsafe { (&heap).grow(block, old, new) } {
                Ok(grown) => self.blocks[place] = Some((grown.cast(), new)),
                Err(_) => self.refused += 1,
            }
        }
    }

    fn free_all(&mut self, heap: &Heap) {
        for (number, kept) in self.blocks.iter_mut().enumerate() {
            if let Some((block, layout)) = kept.take() {
                // SAFETY: live, and as long at least as when it was filled.
                assert_eq!(unsafe { block.read() }, mark(number));
                // SAFETY: live, not used any more.
                unsafe { (&heap).deallocate(block, layout) };
            }
        }
        self.count = 0;
    }
}

/// Uses a heap for all that it does; refusals.
fn program() -> usize {
    kinds().into_iter().map(use_one).sum()
}

fn use_one(options: HeapOptions<'_>) -> usize {
    let Ok(mut heap) = options.create() else {
        return 1;
    };
    let mut kept = Kept {
        blocks: [const { None }; ROOM],
        count: 0,
        refused: 0,
    };
    for size in [16, 48, 700, 3_000, 8_192, 20_000, 100_000, 3 << 20] {
        (0..20).for_each(|_| kept.alloc(&heap, size));
    }
    kept.grow(&heap, 0, 9_000);
    kept.grow(&heap, 1, 70_000);
    kept.grow(&heap, 2, 5 << 20);
    kept.grow(&heap, 2, 9 << 20);
    assert!(heap.verify().is_ok());
    assert_eq!(heap.stats().blocks, kept.count);
    kept.free_all(&heap);
    assert_eq!(heap.stats().blocks, 0);
    // Some are left to the heap.
    (0..50).for_each(|_| kept.alloc(&heap, 40));
    (0..5).for_each(|_| kept.alloc(&heap, 60_000));
    kept.refused
}

#[test]
fn a_heap_lives_through_each_refusal() {
    let _turn = begin();
    assert_eq!(program(), 0);
    Flagstone::purge();
    let before = live();
    // Other calls are refused in each process that runs this.
    let step = one_in(5, 5);
    let from = usize::try_from(std::process::id()).expect("32 bits") % step;
    for forever in [false, true] {
        for pass in (from..).step_by(step) {
            assert!(pass < 10_000, "endless");
            Flagstone::purge();
            failpoints::refuse_after(pass, forever);
            let errors = program();
            let refused = failpoints::refuse_none();
            assert!(errors == 0 || refused > 0, "an error without a reason");
            verify();
            assert_eq!(
                program(),
                0,
                "pass {pass}: an error once nothing is refused"
            );
            if refused == 0 {
                break;
            }
        }
    }
    Flagstone::purge();
    assert!(live() <= before + 4096, "{} {before}", live());
}
