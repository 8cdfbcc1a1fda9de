//! Any thread allocates and frees, and threads come and go.

use core::cell::RefCell;
use std::sync::mpsc;
use std::thread;

use flagstone::allocator_api2::boxed::Box;
use flagstone::allocator_api2::vec::Vec as HeapVec;
use flagstone::{Heap, HeapOptions};

use crate::common::allocator_model::Model;
use crate::common::process::{begin, expect_flat, verify};
use crate::kinds;

#[test]
fn one_allocates_and_another_frees() {
    let _turn = begin();
    expect_flat(|| {
        let mut heap = Heap::new().expect("memory");
        let most = thread::scope(|scope| {
            let (sender, receiver) = mpsc::sync_channel::<Box<[usize; 6], &Heap>>(256);
            let shared = &heap;
            scope.spawn(move || {
                for number in 0..100_000 {
                    sender
                        .send(Box::new_in([number; 6], shared))
                        .expect("a receiver");
                }
            });
            let freed = scope.spawn(move || {
                for (number, got) in receiver.into_iter().enumerate() {
                    assert_eq!(*got, [number; 6]);
                }
            });
            freed.join().expect("no panic");
            shared.stats().peak
        });
        // What comes back is used again: some 256 are under way at a time.
        assert!(most < 256 << 10, "{most}");
        assert_eq!(heap.stats().blocks, 0);
        heap.verify().expect("a sound heap");
        verify();
    });
}

#[test]
fn all_free_what_all_allocate() {
    const THREADS: usize = 6;
    let _turn = begin();
    let mut heap = Heap::new().expect("memory");
    for _ in 0..3 {
        thread::scope(|scope| {
            let ends = [(); THREADS].map(|()| mpsc::channel::<HeapVec<u8, &Heap>>());
            let senders: Vec<_> = ends.iter().map(|(sender, _)| sender.clone()).collect();
            for (number, (own, receiver)) in ends.into_iter().enumerate() {
                drop(own);
                let (senders, heap) = (senders.clone(), &heap);
                let mark = u8::try_from(number).expect("few threads");
                scope.spawn(move || {
                    for step in 0..20_000_usize {
                        let size = 1 + step * 37 % 700;
                        let mut bytes = HeapVec::with_capacity_in(size, heap);
                        bytes.resize(size, mark);
                        // Others may have left.
                        let _ = senders[(number + step) % THREADS].send(bytes);
                        for got in receiver.try_iter() {
                            assert!(got.iter().all(|byte| *byte == got[0]));
                        }
                    }
                });
            }
        });
        assert_eq!(heap.stats().blocks, 0);
        heap.verify().expect("a sound heap");
    }
}

#[test]
fn threads_that_come_and_go_share_their_parts() {
    let _turn = begin();
    let mut heap = Heap::new().expect("memory");
    let mut kept = Vec::new();
    let mut held = Vec::new();
    for number in 0..300_usize {
        let made = thread::scope(|scope| {
            let work = || {
                (0..50)
                    .map(|_| Box::new_in(number, &heap))
                    .collect::<Vec<_>>()
            };
            scope.spawn(work).join().expect("no panic")
        });
        // Half of what each has left stays.
        kept.extend(made.into_iter().step_by(2).map(|number| *Box::leak(number)));
        held.push(heap.stats().held);
    }
    assert_eq!(heap.stats().blocks, kept.len());
    // One part for all of them, and what they left free was used again.
    assert!(held[299] < 300 * 25 * 16 * 2 + (64 << 10), "{held:?}");
    heap.verify().expect("a sound heap");
}

#[test]
fn what_is_freed_when_all_owners_are_gone_is_used_again() {
    let _turn = begin();
    let heap = Heap::new().expect("memory");
    let round = || {
        let (heap, mut all) = (&heap, Vec::new());
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(move || {
                        (0..5_000_u64)
                            .map(|n| Box::new_in(n, heap))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            for thread in threads {
                all.extend(thread.join().expect("no panic"));
            }
        });
        assert_eq!(heap.stats().blocks, 20_000);
        drop(all);
        assert_eq!(heap.stats().blocks, 0);
        heap.stats().held
    };
    for _ in 0..10 {
        let held = round();
        // Not more than is in use at once, in as many parts as there are threads.
        assert!(held < 20_000 * 16 * 3 / 2 + (64 << 10), "{held}");
    }
}

#[test]
fn models_on_many_threads() {
    let _turn = begin();
    kinds().into_iter().for_each(models);
}

fn models(options: HeapOptions<'_>) {
    let mut heap = options.create().expect("memory");
    thread::scope(|scope| {
        for seed in 0..4 {
            let heap = &heap;
            scope.spawn(move || {
                let mut model = Model::new(heap, seed);
                (0..4_000).for_each(|_| model.step());
                model.free_all();
            });
        }
    });
    assert_eq!(heap.stats().blocks, 0);
    assert_eq!(heap.stats().live, 0);
    heap.verify().expect("a sound heap");
    verify();
}

/// A destructor of a thread's own storage may free in a heap after the allocator's clean-up.
#[test]
fn late_destructors_may_use_a_heap() {
    thread_local! {
        static LATE: RefCell<Vec<Box<u64, &'static Heap>>> = const { RefCell::new(Vec::new()) };
    }
    let _turn = begin();
    let heap: &'static Heap =
        std::boxed::Box::leak(std::boxed::Box::new(Heap::new().expect("memory")));
    for _ in 0..20 {
        thread::spawn(move || {
            // Registered before the allocator's key, or after it.
            LATE.with_borrow_mut(|late| late.push(Box::new_in(7, heap)));
            LATE.with_borrow_mut(|late| late.extend((0..100).map(|n| Box::new_in(n, heap))));
        })
        .join()
        .expect("no panic");
        assert_eq!(heap.stats().blocks, 0);
    }
}
