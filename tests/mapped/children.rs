//! Forked children: they share the heap, and own nothing of it that was their parent's.

use std::io::{self, Write};
use std::thread;

use flagstone::allocator_api2::boxed::Box;
use flagstone::allocator_api2::vec::Vec as MappedVec;
use flagstone::{Handle, Mapped};

use crate::common::allocator_model::Model;
use crate::common::process::begin;

/// A forked child that runs `work` and ends; its number.
pub(crate) fn start(work: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child uses this thread and those that it starts.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork refused");
    if child == 0 {
        // SAFETY: `alarm` has no preconditions.
        unsafe { libc::alarm(120) };
        let done = std::panic::catch_unwind(core::panic::AssertUnwindSafe(work));
        if let Err(panic) = &done {
            let words = panic.downcast_ref::<String>().map_or("?", String::as_str);
            let _ = writeln!(io::stderr(), "a child: {words}");
        }
        // SAFETY: `_exit` has no preconditions.
        unsafe { libc::_exit(i32::from(done.is_err())) };
    }
    child
}

/// How a child ended, as `waitpid` says.
pub(crate) fn end_of(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: the status is writable.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    status
}

#[test]
fn a_child_builds_what_its_parent_reads() {
    let _turn = begin();
    let heap = Mapped::create(64 << 20).expect("a heap");
    let handle = heap.handle();
    let own: Vec<_> = (0..1_000_u64)
        .map(|number| Box::new_in(number, handle))
        .collect();
    let child = start(|| {
        let mut numbers = MappedVec::new_in(handle);
        numbers.extend(0..100_000_u64);
        assert!(own.iter().zip(0..).all(|(number, place)| **number == place));
        let numbers = numbers.leak();
        heap.set_root("numbers", numbers.as_ptr(), numbers.len() as u64)
            .expect("room");
    });
    assert_eq!(end_of(child), 0);
    let (place, count) = heap.root("numbers").expect("set by the child");
    let count = usize::try_from(count).expect("few");
    // SAFETY: so many numbers, by a child that is gone.
    let numbers =
        unsafe { MappedVec::from_raw_parts_in(place.as_ptr().cast::<u64>(), count, count, handle) };
    assert_eq!(numbers.iter().sum::<u64>(), 100_000 * 99_999 / 2);
    drop((numbers, own));
    heap.verify().expect("a sound heap");
    assert_eq!(heap.stats().live, 0);
}

/// Parent and child, each with threads, allocate at once: no address is two's.
#[test]
fn parents_and_children_have_different_blocks() {
    let _turn = begin();
    let heap = Mapped::create(1 << 30).expect("a heap");
    let mut models: Vec<_> = (0..2).map(|seed| Model::new(heap.handle(), seed)).collect();
    for model in &mut models {
        (0..1_000).for_each(|_| model.step());
    }
    let work = |seed: u64| {
        thread::scope(|scope| {
            for number in 0..2 {
                scope.spawn(move || {
                    let mut model = Model::new(heap.handle(), seed + number);
                    (0..5_000).for_each(|_| model.step());
                    model.free_all();
                });
            }
        });
    };
    let children = [1, 2, 3].map(|number| {
        let model = models.pop();
        start(|| {
            work(number * 100);
            // What its parent allocated it may free, as any process may: so the parent does not.
            if let Some(mut model) = model {
                model.free_all();
            }
            let grandchild = start(|| work(number * 1_000));
            assert_eq!(end_of(grandchild), 0);
        })
    });
    work(0);
    assert!(children.into_iter().all(|child| end_of(child) == 0));
    heap.verify().expect("a sound heap");
    assert_eq!(heap.stats().live, 0);
    assert!(heap.stats().processes >= 1);
}

/// Blocks that children allocate and their parent frees.
#[test]
fn what_a_child_allocates_anyone_frees() {
    let _turn = begin();
    let heap = Mapped::create(256 << 20).expect("a heap");
    let handle = heap.handle();
    for round in 0..5_u64 {
        let child = start(|| {
            let mut all: MappedVec<Box<u64, Handle>, Handle> = MappedVec::new_in(handle);
            for number in 0..20_000 {
                all.push(Box::new_in(number + round, handle));
            }
            let whole = Box::leak(Box::new_in(all, handle));
            heap.set_root("all", &raw const *whole, 0).expect("room");
        });
        assert_eq!(end_of(child), 0);
        let (place, _) = heap.root("all").expect("set by the child");
        let place = place.as_ptr().cast::<MappedVec<Box<u64, Handle>, Handle>>();
        // SAFETY: made by the child, which is gone.
        let all = unsafe { Box::from_raw_in(place, handle) };
        assert!(
            all.iter()
                .zip(round..)
                .all(|(number, place)| **number == place)
        );
        drop(all);
        assert_eq!(heap.stats().live, 0);
    }
    heap.verify().expect("a sound heap");
    // The slabs of each child were the next one's.
    assert!(heap.stats().held < 8 << 20, "{:?}", heap.stats());
}
