//! What heaps cost, and that they leave nothing behind.

use core::mem::ManuallyDrop;
use flagstone::allocator_api2::boxed::Box;
use flagstone::allocator_api2::vec::Vec as HeapVec;
use flagstone::{Heap, failpoints};

use crate::common::process::{begin, expect_flat, live, resident, stats, verify};
use crate::kinds;

#[test]
fn an_empty_heap_holds_4096_bytes() {
    let _turn = begin();
    let heap = Heap::new().expect("memory");
    assert_eq!(heap.stats().held, 4096);
    expect_flat(|| {
        // The harness may allocate between two looks, now and then.
        let cost = |_| {
            let before = live();
            let other = Heap::new().expect("memory");
            let cost = live() - before;
            drop(other);
            cost
        };
        assert!((0..10).map(cost).any(|cost| cost == 4096));
    });
    assert_eq!((heap.name(), heap.limit()), ("", None));
}

#[test]
fn a_hundred_thousand_heaps_leave_nothing_behind() {
    let _turn = begin();
    let round = || {
        for number in 0..100_000_u32 {
            let heap = Heap::new().expect("memory");
            let mut numbers = HeapVec::new_in(&heap);
            numbers.extend_from_slice(&[number; 20]);
            let _ = ManuallyDrop::new(numbers);
        }
    };
    round();
    let before = (live(), stats().committed);
    round();
    assert_eq!((live(), stats().committed), before);
}

#[test]
fn ten_thousand_heaps_live_at_once() {
    let _turn = begin();
    let before = live();
    let mut heaps: Vec<_> = (0..10_000).map(|_| Heap::new().expect("memory")).collect();
    for (number, heap) in heaps.iter().enumerate() {
        let _ = ManuallyDrop::new(Box::new_in(number, heap));
    }
    for heap in &heaps {
        assert_eq!(heap.stats().blocks, 1);
        assert!(heap.stats().held <= 8192, "{:?}", heap.stats());
    }
    assert!(heaps.iter_mut().all(|heap| heap.verify().is_ok()));
    verify();
    drop(heaps);
    assert!(live() <= before + 4096, "{} {before}", live());
}

#[test]
fn a_heap_that_is_emptied_gives_its_memory_back() {
    let _turn = begin();
    let heap = Heap::new().expect("memory");
    for size in [16, 100, 1_000, 8_000, 20_000] {
        let boxes: Vec<_> = (0..2_000)
            .map(|_| HeapVec::<u8, _>::with_capacity_in(size, &heap))
            .collect();
        assert!(heap.stats().held >= 2_000 * size);
        drop(boxes);
        // One sub-slab may stay with each class, and descriptors.
        let held = heap.stats().held;
        assert!(held <= 2_000 * size / 8 + (40 << 10), "{size}: {held}");
        assert_eq!(heap.stats().blocks, 0);
    }
}

#[test]
fn a_reset_heap_is_as_it_was_made() {
    let _turn = begin();
    let mut heap = Heap::options()
        .name("again")
        .limit(1 << 20)
        .create()
        .expect("memory");
    for _ in 0..10 {
        let mut words = HeapVec::new_in(&heap);
        words.extend((0..5_000).map(|_| Box::new_in(7_u64, &heap)));
        assert!(heap.stats().peak > 80_000);
        let _ = ManuallyDrop::new(words);
        heap.reset();
        let stats = heap.stats();
        assert_eq!(
            (stats.live, stats.blocks, stats.held, stats.peak),
            (0, 0, 4096, 4096)
        );
    }
    assert_eq!((heap.name(), heap.limit()), ("again", Some(1 << 20)));
}

#[test]
fn heaps_that_were_reset_are_told_apart() {
    let _turn = begin();
    let mut heaps = [(); 3].map(|()| Heap::new().expect("memory"));
    for round in 1..5 {
        heaps.iter_mut().for_each(Heap::reset);
        let made: Vec<_> = heaps
            .iter()
            .zip(1..)
            .flat_map(|(heap, number)| (0..number * round).map(move |_| Box::new_in(7_u64, heap)))
            .collect();
        for (heap, number) in heaps.iter().zip(1..) {
            assert_eq!(heap.stats().blocks, number * round);
        }
        drop(made);
        assert!(heaps.iter().all(|heap| heap.stats().blocks == 0));
    }
}

#[test]
fn names_are_cut_at_a_character() {
    let _turn = begin();
    let long = "ä".repeat(40);
    let heap = Heap::options().name(&long).create().expect("memory");
    assert_eq!(heap.name(), "ä".repeat(23));
    assert!(format!("{heap:?}").contains("ä"));
}

#[test]
fn lengths_are_true() {
    let _turn = begin();
    use core::alloc::Layout;
    use flagstone::allocator_api2::alloc::Allocator;
    let heap = Heap::new().expect("memory");
    for (size, length) in [
        (1, 16),
        (65, 80),
        (1_025, 1_280),
        (9_000, 10_240),
        (2_000_001, 2_002_944),
    ] {
        let layout = Layout::from_size_align(size, 8).expect("a layout");
        let block = (&heap).allocate(layout).expect("memory");
        assert_eq!(block.len(), length, "{size}");
        // SAFETY: live, not used any more.
        unsafe { (&heap).deallocate(block.cast(), layout) };
    }
    assert_eq!(heap.stats().blocks, 0);
    // No bytes are no block.
    let nothing = Layout::from_size_align(0, 64).expect("a layout");
    let block = (&heap).allocate(nothing).expect("nothing");
    assert_eq!((block.len(), block.cast::<u8>().addr().get() % 64), (0, 0));
    // SAFETY: as above.
    unsafe { (&heap).deallocate(block.cast(), nothing) };
    assert_eq!(heap.stats().blocks, 0);
}

#[test]
fn blocks_freed_by_address_are_as_others() {
    let _turn = begin();
    let heap = Heap::new().expect("memory");
    let mut blocks = Vec::new();
    for size in [0, 24, 1_000, 9_000, 100_000, 3 << 20] {
        for _ in 0..50 {
            let block = heap.raw_alloc(size, 16);
            assert!(!block.is_null() && block.addr().is_multiple_of(16));
            // SAFETY: live, of this heap.
            let length = unsafe { heap.raw_usable_size(block) };
            assert!(length >= size);
            // SAFETY: so long.
            unsafe { block.write_bytes(7, length) };
            // SAFETY: live; not used any more where another is returned. What the user could use is kept.
            let grown = unsafe { heap.raw_realloc(block, length + length / 2 + 1, 16) };
            // SAFETY: at least so long.
            let bytes = unsafe { core::slice::from_raw_parts(grown, length) };
            assert!(bytes.iter().all(|byte| *byte == 7), "{size}");
            blocks.push(grown);
        }
    }
    assert_eq!(heap.stats().blocks, 300);
    for block in blocks {
        // SAFETY: live, not used any more.
        unsafe { heap.raw_free(block) };
    }
    // SAFETY: null is nothing.
    unsafe { heap.raw_free(core::ptr::null_mut()) };
    assert_eq!(heap.stats().blocks, 0);
    let zero = heap.raw_alloc_zeroed(5_000, 8);
    // SAFETY: so long.
    let bytes = unsafe { core::slice::from_raw_parts(zero, 5_000) };
    assert!(bytes.iter().all(|byte| *byte == 0));
    assert!(heap.raw_alloc(usize::MAX, 8).is_null());
    // SAFETY: live, not used any more.
    unsafe { heap.raw_free(zero) };
}

#[test]
fn a_shorter_block_is_served_at_the_limit() {
    let _turn = begin();
    let heap = Heap::options().limit(128 << 10).create().expect("memory");
    let mut bytes: HeapVec<u8, _> = HeapVec::with_capacity_in(100_000, &heap);
    bytes.push(7);
    let mut more = HeapVec::<u8, _>::new_in(&heap);
    while more.try_reserve_exact(more.capacity() + 1_024).is_ok() {}
    heap.set_limit(Some(heap.stats().held));
    bytes.shrink_to_fit();
    assert_eq!((bytes.as_slice(), bytes.capacity()), (&[7][..], 1));
}

/// What one vector grew through is no reason to refuse it more.
#[test]
fn empty_sub_slabs_make_room() {
    let _turn = begin();
    let heap = Heap::options().limit(64 << 10).create().expect("memory");
    let mut bytes: HeapVec<u8, _> = HeapVec::new_in(&heap);
    while bytes.len() < 20_000 {
        bytes.try_reserve(1).expect("a third of the limit");
        bytes.push(1);
    }
    assert_eq!(heap.stats().refused, 0);
}

#[test]
fn purge_reaches_into_used_sub_slabs() {
    let _turn = begin();
    let heap = Heap::new().expect("memory");
    let fill = || -> Vec<_> {
        (0..4_000_usize)
            .map(|number| {
                let mut bytes = HeapVec::with_capacity_in(2_000, &heap);
                bytes.resize(2_000, u8::try_from(number % 251).expect("a byte"));
                bytes
            })
            .collect()
    };
    let mut kept = fill();
    // One of 16 stays, and three of four pages have nothing in them.
    let mut number = 0;
    kept.retain(|_| {
        number += 1;
        number % 16 == 0
    });
    let (before, held) = (resident(), heap.stats().held);
    let purged = heap.purge();
    let after = resident();
    assert!(purged >= 4_000 * 2_000 / 2, "{purged} of {held}");
    assert!(after + purged / 2 <= before, "{after} {before} {purged}");
    let is_whole = |(place, bytes): (usize, &HeapVec<u8, &Heap>)| {
        let mark = ((place + 1) * 16 - 1) % 251;
        bytes.iter().all(|byte| usize::from(*byte) == mark)
    };
    assert!(kept.iter().enumerate().all(is_whole));
    assert_eq!(heap.purge(), 0, "nobody touched it since");
    // What threads left that ended, too.
    std::thread::scope(|scope| {
        let held = scope.spawn(fill).join().expect("no panic");
        kept.extend(held.into_iter().step_by(16));
    });
    assert!(heap.purge() >= 4_000 * 2_000 / 2);
    let more = fill();
    drop(fill());
    assert!(heap.purge() >= 4_000 * 2_000 / 2, "all of it was touched");
    assert!(kept[..250].iter().enumerate().all(is_whole));
    drop((kept, more));
    assert_eq!(heap.stats().blocks, 0);
    // Nothing is left for a second one, but for what threads keep.
    heap.purge();
    assert_eq!(heap.purge(), 0);
    verify();
}

#[test]
fn a_purge_that_was_refused_is_tried_again() {
    let _turn = begin();
    for options in kinds() {
        let heap = options.create().expect("memory");
        let mut kept: Vec<_> = (0..400)
            .map(|_| HeapVec::<u8, _>::with_capacity_in(4_096, &heap))
            .collect();
        let mut number = 0;
        kept.retain(|_| {
            number += 1;
            number % 4 == 0
        });
        // What is wholly free goes to the engine first.
        heap.purge();
        kept.truncate(kept.len() / 2);
        failpoints::refuse_after(0, true);
        heap.purge();
        failpoints::refuse_none();
        assert!(heap.purge() > 0);
        assert_eq!(heap.purge(), 0);
    }
}
