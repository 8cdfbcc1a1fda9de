//! Values that processes share: they go with the last.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use flagstone::mapped::{Arc, Box, Event, Mutex, Persist, Vec};
use flagstone::{Mapped, MappedError};

use crate::children::{end_of, start};
use crate::common::process::begin;
use crate::locks::{die, killed};

type Shared = Arc<Box<AtomicU64>>;

#[test]
fn a_value_goes_with_the_last_process() {
    let _turn = begin();
    let heap = Mapped::create(16 << 20).expect("a heap");
    let handle = heap.handle();
    let list: Vec<Shared> = Vec::new_in(handle);
    let list = heap.insert("list", Mutex::new(list)).expect("room");
    let go = heap.insert("go", Event::new()).expect("room");
    let empty = heap.stats().live;
    let number = Box::try_new_in(AtomicU64::new(0), handle).expect("room");
    let own = Arc::try_new_in(number, handle).expect("room");
    list.lock().expect("free").push(own.clone());
    assert_eq!(Arc::count(&own), 2);
    let wait = core::time::Duration::from_secs(100);
    let children = [0; 2].map(|_| {
        start(|| {
            // Its own, from the heap: what was on its parent's stack is the parent's.
            let shared = list.lock().expect("free")[0].clone();
            assert!(go.wait_beyond(0, wait));
            thread::scope(|scope| {
                for _ in 0..2 {
                    let copy = shared.clone();
                    scope.spawn(move || {
                        for _ in 0..10_000 {
                            copy.clone().fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
            drop(shared);
        })
    });
    let place: *const AtomicU64 = &raw const **own;
    assert!(heap.contains(place));
    go.signal();
    assert!(children.into_iter().all(|child| end_of(child) == 0));
    assert_eq!((Arc::count(&own), own.load(Ordering::Relaxed)), (2, 40_000));
    drop(own);
    // The last is dropped by a child, which frees it in the heap.
    let child = start(|| drop(list.lock().expect("free").pop()));
    assert_eq!(end_of(child), 0);
    let capacity = list.lock().expect("free").capacity();
    assert!(capacity > 0);
    list.lock().expect("free").shrink_to_fit();
    assert_eq!(heap.stats().live, empty);
}

#[test]
fn what_a_killed_process_had_stays() {
    let _turn = begin();
    let heap = Mapped::create(16 << 20).expect("a heap");
    let mut own = Arc::try_new_in(7_u64, heap.handle()).expect("room");
    assert_eq!(Arc::get_mut(&mut own), Some(&mut 7));
    killed(|| {
        let _kept = own.clone();
        die();
    });
    assert_eq!(Arc::count(&own), 2);
    assert_eq!(Arc::get_mut(&mut own), None);
    let live = heap.stats().live;
    drop(own);
    assert_eq!(heap.stats().live, live);
}

#[test]
fn each_block_is_told_once() {
    let _turn = begin();
    let heap = Mapped::create(1 << 20).expect("a heap");
    let one = Arc::try_new_in(Box::new_in(1_u8, heap.handle()), heap.handle()).expect("room");
    let both = (one.clone(), one);
    assert!(Arc::ptr_eq(&both.0, &both.1));
    let mut told = std::vec::Vec::new();
    let mut visit = |place: NonNull<u8>| {
        let is_new = !told.contains(&place);
        told.push(place);
        is_new
    };
    // SAFETY: nobody else has it.
    unsafe { both.visit(&mut visit) };
    // The value of the first, its box, and the value once more.
    assert_eq!(told.len(), 3);
    assert_eq!(told[0], told[2]);
    // More than there is.
    let mut long = (0..10).map(|_| Arc::try_new_in([0_u8; 200 << 10], heap.handle()));
    assert!(long.any(|long| {
        let long = long.map(core::mem::ManuallyDrop::new);
        long.err() == Some(MappedError::NoSpace)
    }));
}
