//! Random programs beside a model: whatever happens to a heap, every block keeps what was written to it.

use core::alloc::Layout;
use core::ptr::NonNull;

use flagstone::allocator_api2::alloc::Allocator;
use flagstone::{Heap, HeapOptions};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::common::child::{run_child_with, scenario};
use crate::common::process::{begin, expect_flat, verify};
use crate::kinds;

/// A live block and the byte that it is full of.
struct Live {
    block: NonNull<u8>,
    layout: Layout,
    length: usize,
    mark: u8,
}

/// A heap and what the model knows of it.
pub(crate) struct Model<'a> {
    heap: &'a Heap,
    live: Vec<Live>,
    random: SmallRng,
}

impl<'a> Model<'a> {
    pub(crate) fn new(heap: &'a Heap, seed: u64) -> Self {
        Self {
            heap,
            live: Vec::new(),
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// Most are short; some are as long as an engine's block, a span or a mapping.
    fn layout(&mut self) -> Layout {
        let size = match self.random.random_range(0..100) {
            0..60 => self.random.random_range(1..=256),
            60..85 => self.random.random_range(1..=2_048),
            85..95 => self.random.random_range(1..=10_000),
            95..99 => self.random.random_range(1..=100_000),
            _ => self.random.random_range(1..=2_000_000),
        };
        let shift = match self.random.random_range(0..10) {
            0..7 => self.random.random_range(0..=4),
            7..9 => self.random.random_range(0..=8),
            _ => self.random.random_range(0..=13),
        };
        Layout::from_size_align(size, 1 << shift).expect("a layout")
    }

    fn enter(&mut self, found: NonNull<[u8]>, layout: Layout, zeroed: bool) {
        let block = found.cast::<u8>();
        assert!(found.len() >= layout.size());
        assert!(block.addr().get().is_multiple_of(layout.align()));
        if zeroed {
            // SAFETY: the block is as long as the layout.
            let bytes = unsafe { core::slice::from_raw_parts(block.as_ptr(), layout.size()) };
            assert!(bytes.iter().all(|byte| *byte == 0), "not zeroed");
        }
        let mark = self.random.random();
        // SAFETY: all of the true length is ours.
        unsafe { block.write_bytes(mark, found.len()) };
        self.live.push(Live {
            block,
            layout,
            length: found.len(),
            mark,
        });
    }

    fn check(live: &Live, length: usize) {
        // SAFETY: live, and so long.
        let bytes = unsafe { core::slice::from_raw_parts(live.block.as_ptr(), length) };
        assert!(
            bytes.iter().all(|byte| *byte == live.mark),
            "a block of {} changed",
            live.layout.size()
        );
    }

    fn alloc(&mut self) {
        let layout = self.layout();
        let zeroed = self.random.random_range(0..4) == 0;
        let found = if zeroed {
            self.heap.allocate_zeroed(layout)
        } else {
            self.heap.allocate(layout)
        };
        self.enter(found.expect("memory"), layout, zeroed);
    }

    fn pick(&mut self) -> Option<Live> {
        if self.live.is_empty() {
            return None;
        }
        let place = self.random.random_range(0..self.live.len());
        Some(self.live.swap_remove(place))
    }

    pub(crate) fn free(&mut self) {
        if let Some(live) = self.pick() {
            Self::check(&live, live.length);
            // Any layout that fits.
            let size = self.random.random_range(live.layout.size()..=live.length);
            let layout = Layout::from_size_align(size, live.layout.align()).expect("a layout");
            // SAFETY: live, and not used any more.
            unsafe { self.heap.deallocate(live.block, layout) };
        }
    }

    fn resize(&mut self) {
        let Some(live) = self.pick() else { return };
        Self::check(&live, live.length);
        let wanted = self.layout().size();
        let new = Layout::from_size_align(wanted, live.layout.align()).expect("a layout");
        let kept = wanted.min(live.layout.size());
        let zeroed = self.random.random_range(0..3) == 0;
        let (block, old) = (live.block, live.layout);
        let resized = if wanted < old.size() {
            // SAFETY: live, and not used any more where another is returned; here and below.
            unsafe { self.heap.shrink(block, old, new) }
        } else if zeroed {
            // SAFETY: as above.
            unsafe { self.heap.grow_zeroed(block, old, new) }
        } else {
            // SAFETY: as above.
            unsafe { self.heap.grow(block, old, new) }
        };
        let resized = resized.expect("memory");
        let moved = Live {
            block: resized.cast(),
            ..live
        };
        Self::check(&moved, kept);
        if zeroed && wanted >= live.layout.size() {
            // SAFETY: as long as `new`.
            let all = unsafe { core::slice::from_raw_parts(moved.block.as_ptr(), wanted) };
            assert!(all[kept..].iter().all(|byte| *byte == 0), "not zeroed");
        }
        self.enter(resized, new, false);
    }

    pub(crate) fn step(&mut self) {
        let most = 400;
        match self.random.random_range(0..10) {
            0..4 if self.live.len() < most => self.alloc(),
            0..8 => self.free(),
            _ => self.resize(),
        }
        if self.live.len() < most / 2 {
            self.alloc();
        }
    }

    pub(crate) fn expect_counts(&self) {
        let stats = self.heap.stats();
        assert_eq!(stats.blocks, self.live.len());
        let bytes: usize = self.live.iter().map(|live| live.length).sum();
        assert_eq!(stats.live, bytes);
        assert!(
            stats.held >= stats.live && stats.peak >= stats.held,
            "{stats:?}"
        );
    }

    pub(crate) fn free_all(&mut self) {
        while !self.live.is_empty() {
            self.free();
        }
    }
}

#[test]
fn every_block_keeps_its_bytes() {
    let _turn = begin();
    for options in kinds() {
        expect_flat(|| keep_bytes(options.create().expect("memory")));
    }
}

fn keep_bytes(mut heap: Heap) {
    for seed in 0..4 {
        let mut model = Model::new(&heap, seed);
        for step in 0..3_000 {
            model.step();
            if step % 500 == 0 {
                model.expect_counts();
            }
        }
        model.expect_counts();
        if seed % 2 == 0 {
            model.free_all();
            model.expect_counts();
        }
        // What is left goes with the heap.
        drop(model);
        heap.verify().expect("a sound heap");
        verify();
        if seed == 1 {
            heap.reset();
            assert_eq!(heap.stats().blocks, 0);
        }
    }
}

#[test]
fn two_heaps_share_nothing() {
    let _turn = begin();
    let mut kinds = kinds().into_iter().cycle();
    let mut heap = || kinds.next().expect("endless").create().expect("memory");
    let mut heaps = [(); 20].map(|()| heap());
    let mut models: Vec<_> = heaps
        .iter()
        .zip(0..)
        .map(|(heap, seed)| Model::new(heap, seed))
        .collect();
    for _ in 0..500 {
        models.iter_mut().for_each(Model::step);
    }
    models.iter().for_each(Model::expect_counts);
    // Half are reset with blocks in them; the others keep theirs.
    models.truncate(10);
    models.iter_mut().for_each(Model::free_all);
    drop(models);
    assert!(heaps[..10].iter().all(|heap| heap.stats().blocks == 0));
    assert!(heaps.iter_mut().all(|heap| heap.verify().is_ok()));
    heaps[10..].iter_mut().for_each(Heap::reset);
    verify();
}

/// With safeguards and samples every block is one of the engine's.
#[test]
fn hardened_and_sampled_processes_have_heaps_too() {
    const NAME: &str = "model::hardened_and_sampled_processes_have_heaps_too";
    let work = |options: HeapOptions<'_>| {
        let mut heap = options.limit(1 << 30).create().expect("memory");
        for seed in 0..2 {
            let mut model = Model::new(&heap, seed);
            (0..2_000).for_each(|_| model.step());
            model.expect_counts();
            model.free_all();
        }
        assert_eq!(heap.stats().blocks, 0);
        let mut model = Model::new(&heap, 7);
        (0..500).for_each(|_| model.step());
        drop(model);
        heap.verify().expect("a sound heap");
        heap.reset();
        assert_eq!(heap.stats().held, 4096);
        verify();
    };
    if scenario().is_some() {
        return kinds().into_iter().for_each(work);
    }
    let _turn = begin();
    for options in [("FLAGSTONE_HARDENED", "all"), ("FLAGSTONE_SAMPLE", "1/50")] {
        let exit = run_child_with(NAME, "work", &[options]);
        assert_eq!(exit.code, Some(0), "{options:?}: {exit:?}");
    }
}
