//! Random programs beside a model: whatever happens to a heap, every block keeps what was written to it.

use flagstone::{Heap, HeapOptions};

use crate::common::allocator_model::Model;
use crate::common::child::{run_child_with, scenario};
use crate::common::process::{begin, expect_flat, verify};
use crate::kinds;

fn expect_counts(heap: &Heap, model: &Model<&Heap>) {
    let stats = heap.stats();
    assert_eq!((stats.blocks, stats.live), model.live());
    assert!(
        stats.held >= stats.live && stats.peak >= stats.held,
        "{stats:?}"
    );
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
                expect_counts(&heap, &model);
            }
        }
        expect_counts(&heap, &model);
        if seed % 2 == 0 {
            model.free_all();
            expect_counts(&heap, &model);
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
    heaps
        .iter()
        .zip(&models)
        .for_each(|(heap, model)| expect_counts(heap, model));
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
            expect_counts(&heap, &model);
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
