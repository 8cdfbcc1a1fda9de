//! A forked child has its copy of a heap, whatever other threads were at when the parent forked.

use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::io::{self, Write};
use std::thread;

use flagstone::Heap;
use flagstone::allocator_api2::boxed::Box;
use flagstone::allocator_api2::vec::Vec as HeapVec;
use flagstone::failpoints::{self, Callback, Point};

use crate::common::process::{begin, verify};
use crate::kinds;

/// Stops the thread that is to be stopped at its point, once it was there so often.
static CALLBACK: Callback = stop;
static POINT: AtomicU32 = AtomicU32::new(0);
static VISITS: AtomicUsize = AtomicUsize::new(0);
static STOP_AT: AtomicUsize = AtomicUsize::new(usize::MAX);
static STANDS: AtomicBool = AtomicBool::new(false);
static GOES_ON: AtomicBool = AtomicBool::new(false);
static ACTOR: AtomicUsize = AtomicUsize::new(0);

fn number(point: Point) -> u32 {
    match point {
        Point::Heap => 1,
        Point::Part => 2,
        Point::Claim => 3,
        _ => 0,
    }
}

fn this_thread() -> usize {
    // SAFETY: `pthread_self` has no preconditions.
    usize::try_from(unsafe { libc::pthread_self() }).expect("as wide as a pointer")
}

fn stop(point: Point) {
    if number(point) != POINT.load(Ordering::Relaxed)
        || ACTOR.load(Ordering::Relaxed) != this_thread()
    {
        return;
    }
    if VISITS.fetch_add(1, Ordering::Relaxed) == STOP_AT.load(Ordering::Relaxed) {
        STANDS.store(true, Ordering::Release);
        while !GOES_ON.load(Ordering::Acquire) {
            thread::yield_now();
        }
    }
}

/// Runs `work` in a forked child, which ends by it; what `waitpid` answered.
fn in_child(work: impl FnOnce()) -> i32 {
    // SAFETY: the child uses this thread and those that it starts.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork refused");
    if child == 0 {
        failpoints::at_points(None);
        // SAFETY: `alarm` has no preconditions.
        unsafe { libc::alarm(60) };
        let done = std::panic::catch_unwind(core::panic::AssertUnwindSafe(work));
        if let Err(panic) = &done {
            let words = panic.downcast_ref::<String>().map_or("?", String::as_str);
            // Past the harness, which keeps what a test prints.
            let _ = writeln!(io::stderr(), "a child: {words}");
        }
        // SAFETY: `_exit` has no preconditions.
        unsafe { libc::_exit(i32::from(done.is_err())) };
    }
    let mut status = 0;
    // SAFETY: the status is writable.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    status
}

/// Passes every point there is, and ends with nothing.
fn act(heap: &Heap) {
    let mut kept = Vec::new();
    for round in 0..4 {
        for size in [16, 100, 1_000, 5_000] {
            for _ in 0..60 {
                kept.push(HeapVec::<u8, _>::with_capacity_in(size, heap));
            }
        }
        let long = HeapVec::<u8, _>::with_capacity_in(50_000 << round, heap);
        kept.retain({
            let mut place = 0;
            move |_| {
                place += 1;
                place % 3 == 0
            }
        });
        // What another thread frees comes back to this one.
        thread::scope(|scope| {
            let others: Vec<_> = (0..200)
                .map(|number| Box::new_in([number; 4], heap))
                .collect();
            scope.spawn(move || drop(others));
        });
        drop(long);
    }
}

/// What a child does with the heap: as the thread that forked, and as new ones.
fn examine(heap: &mut Heap, own: &[Box<usize, &Heap>], most: usize) {
    assert!(
        own.iter()
            .enumerate()
            .all(|(place, number)| **number == place)
    );
    act(heap);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| act(heap));
        }
    });
    act(heap);
    // The actor's blocks are nobody's, all others came back.
    let left = heap.stats().blocks - own.len();
    assert!(left <= most, "{left} blocks are left");
}

#[test]
fn a_child_uses_its_copy_wherever_a_thread_stood() {
    let _turn = begin();
    failpoints::at_points(Some(&CALLBACK));
    // Parts are the same in both kinds of heaps.
    let [plain, apart] = kinds();
    for (point, options) in [(1, plain), (1, apart), (2, plain)] {
        let mut stops = 0;
        // All of the first, then fewer and fewer.
        for stop_at in 0.. {
            POINT.store(point, Ordering::Relaxed);
            VISITS.store(0, Ordering::Relaxed);
            STOP_AT.store(stop_at, Ordering::Relaxed);
            STANDS.store(false, Ordering::Relaxed);
            GOES_ON.store(false, Ordering::Relaxed);
            let mut heap = options.create().expect("memory");
            let shared: &'static Heap = {
                let heap: *const Heap = &raw const heap;
                // SAFETY: it outlives all that is done with it below.
                unsafe { &*heap }
            };
            let own: Vec<_> = (0..100).map(|number| Box::new_in(number, shared)).collect();
            let done = AtomicBool::new(false);
            let stood = thread::scope(|scope| {
                scope.spawn(|| {
                    ACTOR.store(this_thread(), Ordering::Relaxed);
                    act(shared);
                    done.store(true, Ordering::Release);
                });
                while !STANDS.load(Ordering::Acquire) && !done.load(Ordering::Acquire) {
                    thread::yield_now();
                }
                let stood = STANDS.load(Ordering::Acquire);
                let status = stood.then(|| in_child(|| examine(&mut heap, &own, 1_400)));
                GOES_ON.store(true, Ordering::Release);
                assert_eq!(status.unwrap_or(0), 0, "point {point}, visit {stop_at}");
                stood
            });
            drop(own);
            assert_eq!(heap.stats().blocks, 0);
            heap.verify().expect("a sound heap");
            if !stood {
                break;
            }
            stops += 1;
        }
        assert!(stops > 5, "{stops}");
    }
    failpoints::at_points(None);
    verify();
}

#[test]
fn a_child_drops_and_makes_heaps() {
    let _turn = begin();
    let mut heap = Heap::new().expect("memory");
    let mut numbers = HeapVec::new_in(&heap);
    numbers.extend(0..10_000_u32);
    let status = in_child(|| {
        assert!(
            numbers
                .iter()
                .zip(0..)
                .all(|(number, place)| *number == place)
        );
        drop(numbers.clone());
        let other = Heap::new().expect("memory");
        act(&other);
        thread::scope(|scope| scope.spawn(|| act(&heap)).join().expect("no panic"));
        let _ = ManuallyDrop::new(numbers.clone());
    });
    assert_eq!(status, 0);
    assert_eq!(heap.stats().blocks, 1);
    drop(numbers);
    heap.verify().expect("a sound heap");
}

/// A child whose first call is for a span, while another thread of the parent had the lock under which these are claimed.
#[test]
fn a_child_begins_with_a_span_of_a_pool() {
    let _turn = begin();
    let [_, apart] = kinds();
    failpoints::at_points(Some(&CALLBACK));
    let (heap, other) = (
        apart.create().expect("memory"),
        apart.create().expect("memory"),
    );
    let span = |heap: &Heap| drop(HeapVec::<u8, _>::with_capacity_in(200_000, heap));
    span(&heap);
    POINT.store(3, Ordering::Relaxed);
    VISITS.store(0, Ordering::Relaxed);
    STOP_AT.store(0, Ordering::Relaxed);
    STANDS.store(false, Ordering::Relaxed);
    GOES_ON.store(false, Ordering::Relaxed);
    thread::scope(|scope| {
        scope.spawn(|| {
            ACTOR.store(this_thread(), Ordering::Relaxed);
            span(&other);
        });
        while !STANDS.load(Ordering::Acquire) {
            thread::yield_now();
        }
        assert_eq!(in_child(|| span(&heap)), 0);
        GOES_ON.store(true, Ordering::Release);
    });
    failpoints::at_points(None);
    verify();
}
