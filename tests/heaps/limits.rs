//! A limit is one: for collections that ask, and for those that do not.

use core::mem::ManuallyDrop;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::thread;

use flagstone::allocator_api2::boxed::Box;
use flagstone::allocator_api2::vec::Vec as HeapVec;
use flagstone::{Heap, HeapError};

use crate::common::process::{begin, expect_flat};
use crate::kinds;

const LIMIT: usize = 256 << 10;

/// Fills a heap by boxes until it refuses one; how many it took.
fn fill(heap: &Heap) -> usize {
    let mut kept = Vec::new();
    while let Ok(number) = Box::try_new_in([0_u64; 8], heap) {
        kept.push(number);
        assert!(heap.stats().held <= heap.limit().unwrap_or(usize::MAX));
    }
    kept.len()
}

#[test]
fn a_full_heap_refuses_and_goes_on() {
    let _turn = begin();
    expect_flat(|| {
        let heap = Heap::options().limit(LIMIT).create().expect("memory");
        let first = fill(&heap);
        // Nearly all of it is in blocks.
        assert!(first * 64 > LIMIT / 10 * 9, "{first}");
        // A magazine's slots may be counted since.
        for _ in 0..5 {
            assert!(fill(&heap) + 100 > first);
        }
        // What one class held serves another.
        let mut bytes: HeapVec<u8, _> = HeapVec::new_in(&heap);
        assert!(bytes.try_reserve(LIMIT / 2).is_ok());
        assert!(bytes.try_reserve(LIMIT).is_err());
        drop(bytes);
        let long: Vec<_> = core::iter::from_fn(|| {
            let mut page = HeapVec::<u8, _>::new_in(&heap);
            page.try_reserve(4_000).ok().map(|()| page)
        })
        .collect();
        assert!(long.len() * 4096 > LIMIT / 10 * 7, "{}", long.len());
        drop(long);
        assert_eq!(heap.stats().blocks, 0);
        assert!(heap.stats().peak <= LIMIT);
    });
}

#[test]
fn what_a_thread_that_ended_has_left_is_within_the_limit() {
    let _turn = begin();
    let heap = Heap::options().limit(LIMIT).create().expect("memory");
    let first = fill(&heap);
    thread::scope(|scope| {
        for _ in 0..20 {
            let filled = scope.spawn(|| fill(&heap)).join().expect("no panic");
            assert!(filled * 64 > LIMIT / 10 * 8, "{filled} {first}");
        }
    });
    let again = fill(&heap);
    assert!(again * 64 > LIMIT / 10 * 8, "{again} {first}");
}

#[test]
fn what_is_freed_of_a_thread_that_ended_is_taken_over() {
    let _turn = begin();
    let heap = Heap::options().limit(LIMIT).create().expect("memory");
    // Has a part before the other thread has one, which it could be given else.
    let first = Box::new_in([0_u64; 8], &heap);
    let made = thread::scope(|scope| {
        let make = || -> Vec<_> {
            let boxes = (0..LIMIT / 100).map(|_| Box::new_in([1_u64; 8], &heap));
            boxes.collect()
        };
        let thread = scope.spawn(make);
        thread.join().expect("no panic")
    });
    drop(made);
    let filled = fill(&heap);
    assert!(filled * 64 > LIMIT / 10 * 8, "{filled}");
    drop(first);
}

#[test]
fn a_limit_may_change() {
    let _turn = begin();
    let heap = Heap::options().limit(LIMIT).create().expect("memory");
    let first = fill(&heap);
    heap.set_limit(Some(2 * LIMIT));
    assert!(fill(&heap) > first * 3 / 2);
    heap.set_limit(Some(LIMIT));
    assert!(fill(&heap) + 100 > first);
    heap.set_limit(None);
    assert_eq!(heap.limit(), None);
    let mut all: HeapVec<u8, _> = HeapVec::new_in(&heap);
    assert!(all.try_reserve(4 * LIMIT).is_ok());
}

#[test]
fn what_cannot_be_made_is_an_error() {
    let _turn = begin();
    let refused = Heap::options().limit(4095).create().map(|_| ());
    assert_eq!(refused, Err(HeapError::Limit));
    assert!(format!("{}", HeapError::Limit).contains("limit"));
    let heap = Heap::options().limit(4096).create().expect("memory");
    assert_eq!(fill(&heap), 0);
    let heap = Heap::new().expect("memory");
    let mut all: HeapVec<u8, _> = HeapVec::new_in(&heap);
    assert!(all.try_reserve(isize::MAX as usize).is_err());
    assert_eq!(heap.stats().held, 4096);
}

#[test]
fn a_panic_unwinds_and_leaves_the_collection_as_it_was() {
    let _turn = begin();
    let heap = Heap::options()
        .name("tenant 7")
        .limit(LIMIT)
        .panics(true)
        .create()
        .expect("memory");
    for _ in 0..3 {
        let mut numbers = HeapVec::new_in(&heap);
        let push = || {
            loop {
                numbers.push(numbers.len());
            }
        };
        let stopped = catch_unwind(AssertUnwindSafe(push)).expect_err("a panic");
        let words = stopped.downcast::<String>().expect("a message");
        assert!(
            words.contains("tenant 7") && words.contains("limit"),
            "{words}"
        );
        assert!(numbers.len() > 10_000);
        assert!(
            numbers
                .iter()
                .enumerate()
                .all(|(place, number)| place == *number)
        );
        let more = Heap::fallibly(|| numbers.try_reserve(LIMIT));
        assert!(more.is_err());
        // The scope is left, by a panic too.
        let nested = || Heap::fallibly(|| panic!("of the program"));
        assert!(catch_unwind(nested).is_err());
        let reserve = || numbers.try_reserve(LIMIT);
        assert!(catch_unwind(AssertUnwindSafe(reserve)).is_err());
    }
    assert_eq!(heap.stats().blocks, 0);
}

#[test]
fn heaps_at_their_limits_leave_nothing_behind() {
    let _turn = begin();
    let round = || {
        for limit in (4096..40_000).step_by(1_000) {
            let heap = Heap::options().limit(limit).create().expect("memory");
            fill(&heap);
            let mut long = HeapVec::<u8, _>::new_in(&heap);
            let _ = long.try_reserve(20_000);
            let _ = ManuallyDrop::new(long);
            assert!(heap.stats().peak <= limit, "{:?}", heap.stats());
        }
    };
    expect_flat(round);
}

/// A buffer that is filled, shrunk and kept is no way past a limit.
#[test]
fn shrinking_keeps_to_the_limit() {
    let _turn = begin();
    let heap = Heap::options().limit(LIMIT).create().expect("memory");
    let mut kept = Vec::new();
    for _ in 0..10_000 {
        let mut bytes = HeapVec::<u8, _>::new_in(&heap);
        // Beyond what is allowed for it, a shorter block is refused, which would end the program.
        if bytes.try_reserve_exact(4_000).is_err() || heap.stats().held > LIMIT + (24 << 10) {
            break;
        }
        bytes.extend_from_slice(&[1; 600]);
        bytes.shrink_to_fit();
        kept.push(bytes);
    }
    assert!(
        kept.len() > 300 && kept.len() < LIMIT / 600,
        "{}",
        kept.len()
    );
    assert!(
        heap.stats().peak <= LIMIT + (64 << 10),
        "{:?}",
        heap.stats()
    );
}

/// A thread that finds no room for a part of its own is served short blocks one by one, which others then keep.
#[test]
fn short_blocks_served_one_by_one_fit_their_class() {
    #[repr(align(64))]
    struct Aligned([u8; 64]);
    let _turn = begin();
    let heap = Heap::options().limit(24 << 10).create().expect("memory");
    let filled: Vec<_> =
        core::iter::from_fn(|| Box::try_new_in([0_u8; 2_000], &heap).ok()).collect();
    heap.set_limit(Some(heap.stats().held + 2_000));
    let made = thread::scope(|scope| {
        let make = || [(); 4].map(|()| Box::try_new_in([7_u8; 64], &heap));
        scope.spawn(make).join().expect("no panic")
    });
    assert!(made.iter().all(Result::is_ok));
    // The global allocator's classes lie closer together: what is kept may be asked for as more.
    drop(made);
    let aligned: Vec<_> = (0..4)
        .map_while(|_| Box::try_new_in(Aligned([7; 64]), &heap).ok())
        .collect();
    assert!(!aligned.is_empty());
    assert!(aligned.iter().all(|block| block.0 == [7; 64]));
    thread::scope(|scope| scope.spawn(move || drop(aligned)).join().expect("no panic"));
    drop(filled);
    assert_eq!(heap.stats().blocks, 0);
}

#[test]
fn long_blocks_become_shorter_at_the_limit() {
    let _turn = begin();
    for options in kinds() {
        for (limit, size, shorter) in [
            (16 << 20, 12 << 20, 5 << 20),
            (1 << 20, 900 << 10, 300 << 10),
        ] {
            let heap = options.limit(limit).panics(true).create().expect("memory");
            let mut bytes = HeapVec::<u8, _>::with_capacity_in(size, &heap);
            bytes.resize(shorter, 7);
            bytes.shrink_to_fit();
            assert!(bytes.iter().all(|byte| *byte == 7));
            let held = heap.stats().held;
            drop(bytes);
            assert!(heap.stats().blocks == 0 && heap.stats().held < held);
        }
    }
}
