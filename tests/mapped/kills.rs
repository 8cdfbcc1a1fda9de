//! Processes that are killed in the midst of whatever they are at: the others go on.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::thread;

use flagstone::allocator_api2::boxed::Box;
use flagstone::allocator_api2::vec::Vec as MappedVec;
use flagstone::{Handle, Mapped};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::children::{end_of, start};
use crate::common::allocator_model::Model;
use crate::common::process::begin;

fn kill(child: libc::pid_t) {
    // SAFETY: our own child, not yet waited for.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
    assert_eq!(end_of(child) & 0x7f, libc::SIGKILL);
}

#[test]
fn survivors_go_on() {
    let _turn = begin();
    let heap = Mapped::create(1 << 30).expect("a heap");
    let handle = heap.handle();
    let mut random = SmallRng::seed_from_u64(7);
    // Steps that children made, in the heap.
    let steps: &AtomicU64 = Box::leak(Box::new_in(AtomicU64::new(0), handle));
    let worker = |seed: u64| {
        start(|| {
            let mut model = Model::new(handle, seed);
            loop {
                let _ = model.try_step();
                steps.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let mut workers: Vec<_> = (0..4).map(worker).collect();
    let kills = if cfg!(debug_assertions) { 60 } else { 200 };
    for number in 0..kills {
        thread::sleep(Duration::from_micros(random.random_range(100..8_000)));
        let place = random.random_range(0..workers.len());
        kill(workers[place]);
        workers[place] = worker(100 + number);
        if number % 20 == 0 {
            // All others are alive, and at work.
            let before = steps.load(Ordering::Relaxed);
            while steps.load(Ordering::Relaxed) < before + 1_000 {
                thread::yield_now();
            }
            heap.verify().expect("a sound heap");
        }
    }
    workers.into_iter().for_each(kill);
    heap.verify().expect("a sound heap");
    // This process uses what they left: all that is not allocated.
    let mut model = Model::new(handle, 1);
    (0..20_000).for_each(|_| model.step());
    model.free_all();
    heap.verify().expect("a sound heap");
    // Before memory is refused, the dead are looked for.
    assert!(
        MappedVec::<u8, _>::new_in(handle)
            .try_reserve(2 << 30)
            .is_err()
    );
    let stats = heap.stats();
    assert_eq!(stats.processes, 1, "{stats:?}");
    assert_eq!(stats.refused, 0);
}

/// A process that ends gives nothing up: who needs memory finds that it is gone.
#[test]
fn what_the_dead_had_free_is_the_livings() {
    let _turn = begin();
    let heap = Mapped::create(32 << 20).expect("a heap");
    let handle = heap.handle();
    for _ in 0..20 {
        // More than half of the heap is its own, and free.
        let child = start(|| {
            let mut kept = Vec::new();
            for _ in 0..300_000 {
                kept.push(Box::new_in([0_u8; 64], handle));
            }
            // A current slab stays, and one block.
            kept.truncate(1);
            let _ = core::mem::ManuallyDrop::new(kept);
        });
        assert_eq!(end_of(child), 0);
        let kept: Vec<_> = (0..300_000)
            .map(|_| Box::try_new_in([1_u8; 64], handle))
            .collect();
        assert!(kept.iter().all(Result::is_ok));
    }
    heap.verify().expect("a sound heap");
    assert_eq!(heap.stats().live, 20 * 64);
}

/// What children leave, and their parent frees, is of use for blocks of other sizes.
#[test]
fn what_the_dead_left_is_any_sizes() {
    let _turn = begin();
    let heap = Mapped::create(32 << 20).expect("a heap");
    let handle = heap.handle();
    for (size, other) in [(64, 1_000), (1_000, 300_000), (20_000, 64)] {
        let child = start(|| {
            let mut kept = MappedVec::with_capacity_in((14 << 20) / size, handle);
            let bytes = || MappedVec::<u8, _>::with_capacity_in(size, handle);
            (0..(14 << 20) / size).for_each(|_| kept.push(bytes()));
            let left = Box::leak(Box::new_in(kept, handle));
            heap.set_root("left", &raw const *left, 0).expect("room");
        });
        assert_eq!(end_of(child), 0);
        let (place, _) = heap.root("left").expect("set by the child");
        type Left = MappedVec<MappedVec<u8, Handle>, Handle>;
        // SAFETY: made by the child, which is gone.
        drop(unsafe { Box::from_raw_in(place.as_ptr().cast::<Left>(), handle) });
        assert_eq!(heap.stats().live, 0);
        let kept: Vec<_> = (0..(20 << 20) / other)
            .map(|_| {
                let mut bytes = MappedVec::<u8, _>::new_in(handle);
                bytes.try_reserve_exact(other).map(|()| bytes)
            })
            .collect();
        assert!(kept.iter().all(Result::is_ok), "{size} and {other}");
    }
    heap.verify().expect("a sound heap");
}
