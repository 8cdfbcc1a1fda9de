//! The tables of a heap that processes had that are gone, to be changed and attached.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use std::fs::File;
use std::os::unix::fs::FileExt;

use flagstone::Handle;
use flagstone::allocator_api2::alloc::Allocator;
use flagstone::allocator_api2::boxed::Box;

use crate::children::{end_of, start};
use crate::kinds::Kind;
use crate::tables::{BYTES, Tables, base_of, start_of, tables_of};

pub(crate) const SIZES: [usize; 8] = [16, 48, 200, 1_000, 5_000, 30_000, 70_000, 150_000];

pub(crate) fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

/// A block that is somebody's: so far from the base, and so long.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub(crate) distance: usize,
    pub(crate) size: usize,
}

/// A heap that processes had that are gone, in all its parts.
pub(crate) struct Image {
    words: Vec<AtomicU64>,
    pub(crate) tables: usize,
    pub(crate) blocks: Vec<Block>,
}

pub(crate) const ROOT: &str = "first";

impl Image {
    pub(crate) fn new(kind: &Kind) -> Self {
        let heap = (kind.create)(BYTES).expect("a heap");
        let handle = heap.handle();
        let base = base_of(&heap);
        let fill = |counts: [usize; 8]| -> Vec<_> {
            let sizes = SIZES.iter().zip(counts);
            let all = sizes.flat_map(|(size, count)| core::iter::repeat_n(*size, count));
            all.map(|size| {
                (
                    handle.allocate(layout(size)).expect("room").cast::<u8>(),
                    size,
                )
            })
            .collect()
        };
        let free = |block: NonNull<u8>, size: usize| {
            // SAFETY: allocated by `fill`, and not used any more.
            unsafe { handle.deallocate(block, layout(size)) };
        };
        let mut own = fill([40, 30, 20, 10, 6, 3, 2, 1]);
        heap.set_root(ROOT, own[0].0.as_ptr(), 1).expect("room");
        heap.set_root("second", own[9].0.as_ptr(), 2).expect("room");
        // A process that is gone, and whose blocks another freed, in part; it freed some of that one's.
        let theirs: Box<[AtomicU64; 64], Handle> =
            Box::new_in([const { AtomicU64::new(0) }; 64], handle);
        let child = start(|| {
            let blocks = fill([20, 10, 10, 6, 3, 2, 1, 1]);
            for (place, (block, _)) in theirs.iter().zip(&blocks) {
                place.store((block.addr().get() - base) as u64, Ordering::Relaxed);
            }
            own.iter()
                .step_by(5)
                .for_each(|(block, size)| free(*block, *size));
        });
        assert_eq!(end_of(child), 0);
        let mut number = 0;
        own.retain(|_| {
            number += 1;
            number % 5 != 1
        });
        let mut blocks: Vec<_> = own
            .iter()
            .map(|(block, size)| Block {
                distance: block.addr().get() - base,
                size: *size,
            })
            .collect();
        let counts = [20, 10, 10, 6, 3, 2, 1, 1];
        let sizes = SIZES.iter().zip(counts);
        let sizes = sizes.flat_map(|(size, count)| core::iter::repeat_n(*size, count));
        for (number, (place, size)) in theirs.iter().zip(sizes).enumerate() {
            let distance = usize::try_from(place.load(Ordering::Relaxed)).expect("64 bits");
            if number % 3 == 0 {
                // SAFETY: in the heap.
                free(unsafe { start_of(&heap).add(distance) }, size);
            } else {
                blocks.push(Block { distance, size });
            }
        }
        let whole = theirs.as_ptr().addr() - base;
        blocks.push(Block {
            distance: whole,
            size: size_of::<[AtomicU64; 64]>(),
        });
        heap.verify().expect("a sound heap");
        let tables = heap.stats().tables;
        tables_of(&heap).expect_places(tables, ROOT);
        let words = tables_of(&heap).0.iter();
        let words = words
            .map(|word| AtomicU64::new(word.load(Ordering::Relaxed)))
            .collect();
        let _ = Box::leak(theirs);
        // SAFETY: nobody else is there.
        unsafe { heap.close() }.expect("not closed yet");
        Self {
            words,
            tables,
            blocks,
        }
    }

    pub(crate) fn write_to(&self, file: &File, change: impl FnOnce(Tables<'_>)) {
        let copy = self
            .words
            .iter()
            .map(|word| AtomicU64::new(word.load(Ordering::Relaxed)));
        let copy: Vec<_> = copy.collect();
        Tables(&copy).set_closed();
        change(Tables(&copy));
        // SAFETY: so many bytes, which nobody changes any more.
        let bytes = unsafe { core::slice::from_raw_parts(copy.as_ptr().cast(), self.tables) };
        file.write_all_at(bytes, 0).expect("room");
    }
}
