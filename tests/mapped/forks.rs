//! A process forks while another of its threads is in a critical section; then parent and child go on at once, and the
//! parent ends before the child, in that section or later.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;

use flagstone::allocator_api2::alloc::Allocator;
use flagstone::allocator_api2::boxed::Box;
use flagstone::failpoints::{self, Callback, Point};
use flagstone::{Handle, Mapped};

use crate::children::{end_of, start};
use crate::common::allocator_model::Model;
use crate::common::process::{begin, until};
use crate::files::remove_left;
use crate::kinds::{FEW, Kind, of_each};
use crate::step_calls::{alloc, free, layout};
use crate::tables::tables_of;

const CAPACITY: usize = 128 << 20;

/// Stops the thread that is to be stopped at its point, once it was there so often.
static CALLBACK: Callback = stop;
static POINT: AtomicU32 = AtomicU32::new(0);
static VISITS: AtomicUsize = AtomicUsize::new(0);
static STOP_AT: AtomicUsize = AtomicUsize::new(0);
static STANDS: AtomicBool = AtomicBool::new(false);
static GOES_ON: AtomicBool = AtomicBool::new(false);
static ACTOR: AtomicUsize = AtomicUsize::new(0);

const POINTS: [Point; 4] = [Point::Units, Point::Slot, Point::Parts, Point::Enter];

fn number(point: Point) -> u32 {
    match point {
        Point::Units => 1,
        Point::Slot => 2,
        Point::Parts => 3,
        Point::Enter => 4,
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

/// Comes by all points: joins the heap, claims and frees units of both kinds, and makes another heap.
fn act(kind: &Kind, heap: &Mapped) {
    let handle = heap.handle();
    for size in [48, 30_000, 200_000, 2_000_000] {
        let blocks = [(); 3].map(|()| alloc(handle, size));
        blocks
            .into_iter()
            .for_each(|block| free(handle, block, size));
    }
    let other = (kind.create)(1 << 20).expect("another heap");
    drop(Box::new_in(7, other.handle()));
}

/// What the three processes tell each other.
#[derive(Default)]
struct Words {
    /// The child's number, once there is one.
    child: AtomicU32,
    /// Whether the parent came to its point.
    stood: AtomicBool,
    /// Whether the parent is gone for all that one can tell, and whether the child has asked who lives then.
    is_gone: AtomicBool,
    has_seen: AtomicBool,
    /// Whether the child is to find that the lock is its own.
    tries_lock: AtomicBool,
    /// Whether the child may end.
    may_end: AtomicBool,
}

/// Blocks that were there before all of them, and stay.
fn expect_all(own: &[Box<u64, Handle>]) {
    assert!(own.iter().zip(0..).all(|(number, place)| **number == place));
}

/// What the parent does: another of its threads stands at a point while it forks.
fn parent(kind: &Kind, heap: &Mapped, words: &Words, own: &[Box<u64, Handle>], ends_there: bool) {
    failpoints::at_points(Some(&CALLBACK));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            ACTOR.store(this_thread(), Ordering::Relaxed);
            act(kind, heap);
            done.store(true, Ordering::Release);
        });
        while !STANDS.load(Ordering::Acquire) && !done.load(Ordering::Acquire) {
            thread::yield_now();
        }
        if !STANDS.load(Ordering::Acquire) {
            return;
        }
        let child = start(|| child(kind, heap, words, own));
        words.child.store(child.cast_unsigned(), Ordering::Release);
        words.stood.store(true, Ordering::Release);
        if ends_there {
            // SAFETY: `_exit` has no preconditions.
            unsafe { libc::_exit(0) };
        }
        GOES_ON.store(true, Ordering::Release);
        let mut model = Model::new(heap.handle(), 1);
        (0..100).for_each(|_| model.step());
        model.free_all();
        heap.verify().expect("a sound heap");
    });
}

fn child(kind: &Kind, heap: &Mapped, words: &Words, own: &[Box<u64, Handle>]) {
    failpoints::at_points(None);
    let work = |seed: u64| {
        let mut model = Model::new(heap.handle(), seed);
        (0..100).for_each(|_| model.step());
        model.free_all();
        expect_all(own);
    };
    work(1);
    thread::scope(|scope| {
        scope.spawn(|| work(2));
    });
    heap.verify().expect("a sound heap");
    act(kind, heap);
    until(|| words.is_gone.load(Ordering::Acquire));
    assert!(heap.handle().allocate(layout(CAPACITY)).is_err());
    words.has_seen.store(true, Ordering::Release);
    work(3);
    if words.tries_lock.load(Ordering::Acquire) {
        // A stray write: the lock is this process's, of which no thread has it.
        let tables = tables_of(heap);
        tables.set_lock(tables.own_bits());
        work(4);
    }
    heap.verify().expect("a sound heap");
    assert_eq!(heap.stats().refused, 0);
    until(|| words.may_end.load(Ordering::Acquire));
}

/// Whether there was a point at which the parent stood.
fn fork_at(kind: &Kind, point: Point, stop_at: usize, ends_there: bool) -> bool {
    POINT.store(number(point), Ordering::Relaxed);
    STOP_AT.store(stop_at, Ordering::Relaxed);
    VISITS.store(0, Ordering::Relaxed);
    let heap = (kind.create)(CAPACITY).expect("a heap");
    let handle = heap.handle();
    let own: Vec<_> = (0..1_000_u64)
        .map(|number| Box::new_in(number, handle))
        .collect();
    let words: &Words = Box::leak(Box::new_in(Words::default(), handle));
    // Waiting takes a second.
    let tries_lock = point == Point::Units && stop_at == 0 && !ends_there;
    words.tries_lock.store(tries_lock, Ordering::Release);
    let before = heap.stats().live;
    let told = format!("{}, {point:?}, {stop_at}, {ends_there}", kind.name);
    let first = start(|| parent(kind, &heap, words, &own, ends_there));
    assert_eq!(end_of(first), 0, "{told}");
    remove_left(first);
    if !words.stood.load(Ordering::Acquire) {
        return false;
    }
    words.is_gone.store(true, Ordering::Release);
    until(|| words.has_seen.load(Ordering::Acquire));
    // This process and the child, which has let go of what its parent had locked.
    assert_eq!(heap.stats().processes, 2, "{told}");
    words.may_end.store(true, Ordering::Release);
    let child = words.child.load(Ordering::Acquire).cast_signed();
    assert_eq!(end_of(child), 0, "{told}");
    assert!(handle.allocate(layout(CAPACITY)).is_err());
    let stats = heap.stats();
    assert_eq!((stats.processes, stats.refused), (1, 0), "{told}");
    // What the parent had when it ended there.
    let most = if ends_there {
        3 * 2_000_000 + (1 << 16)
    } else {
        0
    };
    assert!(
        (before..=before + most).contains(&stats.live),
        "{told}: {stats:?}"
    );
    expect_all(&own);
    drop(own);
    heap.verify().expect("a sound heap");
    // SAFETY: all others are gone.
    unsafe { heap.close() }.expect("not closed yet");
    true
}

/// Forks at each point each time that a thread comes there; in kinds of files other than the first at some of many
/// times, others in each process that runs this.
fn fork_everywhere(kind: &Kind) {
    // The child's end is told to this process once its parent is gone.
    // SAFETY: an attribute of this process.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }, 0);
    for (point, ends_there) in POINTS
        .into_iter()
        .flat_map(|point| [(point, false), (point, true)])
        .filter(|(_, ends_there)| *ends_there || kind.share(2) == 2)
    {
        let least = [6, 1, 2, 1][number(point) as usize - 1];
        let step = if least < FEW { 1 } else { kind.one_call_in() };
        let from = usize::try_from(std::process::id()).expect("32 bits") % step;
        let stops = (from..)
            .step_by(step)
            .take_while(|stop_at| fork_at(kind, point, *stop_at, ends_there))
            .count();
        println!("{}, {point:?}: {stops} stops", kind.name);
        assert!(
            stops >= least / step,
            "{}, {point:?}: {stops} stops",
            kind.name
        );
    }
}

#[test]
fn a_process_forks_in_each_critical_section() {
    let _turn = begin();
    of_each(fork_everywhere);
}
