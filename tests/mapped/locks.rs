//! Mutexes and events: one at a time, whoever is killed.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::thread;

use flagstone::mapped::{Box, Event, LockError, Mutex};
use flagstone::{Mapped, MappedError};

use crate::children::{end_of, start};
use crate::common::process::begin;

/// Ends this process at once, as the kernel's killer of processes does.
pub(crate) fn die() -> ! {
    let own = i32::try_from(std::process::id()).expect("a number of a process");
    // SAFETY: this process.
    unsafe { libc::kill(own, libc::SIGKILL) };
    unreachable!("killed");
}

/// A child that is killed at the end of `work`, if not before.
pub(crate) fn killed(work: impl FnOnce()) {
    let child = start(|| {
        work();
        die();
    });
    assert_eq!(end_of(child) & 0x7f, libc::SIGKILL);
}

fn heap() -> Mapped {
    Mapped::create(16 << 20).expect("a heap")
}

fn leak<T>(value: T, heap: &Mapped) -> &'static T {
    Box::leak(Box::new_in(value, heap.handle()))
}

#[test]
fn one_at_a_time_has_the_lock() {
    let _turn = begin();
    let heap = heap();
    // Two numbers that are equal whenever nobody is at work.
    let pair = leak(Mutex::new([0_u64; 2]), &heap);
    let work = || {
        for _ in 0..5_000 {
            let mut held = pair.lock().expect("nobody was killed");
            assert_eq!(held[0], held[1]);
            held[0] += 1;
            held[1] += 1;
        }
    };
    let both = || {
        thread::scope(|scope| {
            scope.spawn(work);
            work();
        });
    };
    let children = [0; 2].map(|_| start(both));
    both();
    assert!(children.into_iter().all(|child| end_of(child) == 0));
    assert_eq!(*pair.lock().expect("nobody was killed"), [30_000; 2]);
    assert!(pair.try_lock().is_ok());
}

#[test]
fn what_the_dead_left_is_told_until_it_is_fit() {
    let _turn = begin();
    let heap = heap();
    let pair = leak(Mutex::new([7_u64, 7]), &heap);
    killed(|| {
        let mut held = pair.lock().expect("nobody was killed yet");
        held[0] += 1;
        die();
    });
    // Who does not wait does not ask.
    assert!(matches!(pair.try_lock(), Err(LockError::Held)));
    // Told, and goes on without a repair: so is the next, in another process.
    let found = pair.lock();
    let Err(LockError::Abandoned(guard)) = found else {
        panic!("{found:?}");
    };
    assert_eq!(*guard, [8, 7]);
    drop(guard);
    let child = start(|| assert!(matches!(pair.lock(), Err(LockError::Abandoned(_)))));
    assert_eq!(end_of(child), 0);
    assert!(matches!(pair.try_lock(), Err(LockError::Abandoned(_))));
    // Whoever is killed while he repairs leaves it abandoned, too.
    killed(|| drop(pair.lock().or_else(|error| error.repair(|_| die()))));
    let repaired = pair
        .lock()
        .or_else(|error| error.repair(|pair| pair[0] = pair[1]));
    assert_eq!(*repaired.expect("the lock"), [7, 7]);
    assert!(pair.lock().is_ok());
    assert_eq!(pair.try_lock().expect("fit")[0], 7);
}

/// Waiters of several processes get the lock of one that is killed; each death is told.
#[test]
fn kills_hold_nobody_up() {
    let _turn = begin();
    let heap = heap();
    let count = leak(Mutex::new(0_u64), &heap);
    let begun = leak(AtomicU32::new(0), &heap);
    let worker = || {
        start(|| {
            begun.fetch_add(1, Ordering::Relaxed);
            loop {
                *count
                    .lock()
                    .or_else(|error| error.repair(|_| ()))
                    .expect("a lock") += 1;
            }
        })
    };
    let workers = [0; 3].map(|_| worker());
    while begun.load(Ordering::Relaxed) < 3 {
        thread::yield_now();
    }
    let mut last = 0;
    for child in workers {
        // SAFETY: our own child, not yet waited for.
        assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
        assert_eq!(end_of(child) & 0x7f, libc::SIGKILL);
        let held = count.lock().or_else(|error| error.repair(|_| ()));
        let now = *held.expect("a lock");
        assert!(now >= last);
        last = now;
    }
    assert!(count.lock().is_ok());
}

#[test]
fn a_childs_copy_of_a_guard_does_nothing() {
    let _turn = begin();
    let heap = heap();
    let number = leak(Mutex::new(1_u64), &heap);
    let guard = number.lock().expect("free");
    let mut guard = Some(guard);
    let child = start(|| {
        // The first that the child does with the library.
        drop(guard.take());
        assert!(matches!(number.try_lock(), Err(LockError::Held)));
        let late = number.lock_for(Duration::from_millis(20));
        assert!(matches!(late, Err(LockError::Held)), "{late:?}");
    });
    assert_eq!(end_of(child), 0);
    assert!(matches!(number.try_lock(), Err(LockError::Held)));
    drop(guard);
    assert!(number.try_lock().is_ok());
}

#[test]
fn a_mutex_is_one_of_its_heap() {
    let _turn = begin();
    let mut number = Mutex::new(1_u64);
    let foreign = |found: Option<LockError<'_, u64>>| {
        matches!(found, Some(LockError::Heap(MappedError::Foreign)))
    };
    assert!(foreign(number.lock().err()));
    assert!(foreign(number.try_lock().err()));
    *number.get_mut() += 1;
    assert_eq!(number.into_inner(), 2);
    // Two heaps: each is found by its own addresses.
    let (first, second) = (heap(), heap());
    let (one, two) = (leak(Mutex::new(1), &first), leak(Mutex::new(2), &second));
    let held = one.lock().expect("free");
    assert_eq!(*two.lock().expect("free"), 2);
    drop(held);
    // SAFETY: nobody else is there.
    unsafe { first.close() }.expect("the first time");
    assert!(matches!(
        one.lock(),
        Err(LockError::Heap(MappedError::Closed))
    ));
    assert_eq!(*two.lock().expect("free"), 2);
}

#[test]
fn events_wake_other_processes() {
    let _turn = begin();
    let heap = heap();
    let (to, from) = (leak(Event::new(), &heap), leak(Event::default(), &heap));
    let long = Duration::from_secs(100);
    let child = start(|| {
        let threads = || {
            for round in 0..500 {
                assert!(to.wait_beyond(round, long));
                from.signal();
            }
        };
        thread::scope(|scope| {
            scope.spawn(threads);
            threads();
        });
    });
    for round in 0..500 {
        to.signal();
        // Both of the child's threads answer each.
        assert!(from.wait_beyond(round * 2 + 1, long), "{round}");
    }
    assert_eq!(end_of(child), 0);
    assert_eq!((to.count(), from.count()), (500, 1_000));
    // Beyond is ahead, not different: the count may have begun again at 0.
    assert!(to.wait_beyond(u32::MAX - 10, Duration::ZERO));
    assert!(!to.wait_beyond(500, Duration::from_millis(5)));
    assert!(!to.wait_beyond(501, Duration::ZERO));
    // Nobody signals any more.
    killed(|| ());
    assert!(!to.wait_beyond(500, Duration::from_millis(5)));
}
