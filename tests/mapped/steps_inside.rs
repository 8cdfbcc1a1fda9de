//! A process that is killed at any instruction of a change of what lies in a heap: what it leaves is whole,
//! or said not to be.

use flagstone::Mapped;
use flagstone::mapped::{Arc, Box, LockError, Map, Mutex};

use crate::common::process::begin;
use crate::steps::budget;
use crate::tracer::{Point, kill_at, stopped, walk};

/// Kills children in `call`, which begins anew with `begin` each time, and has `look` see what each left.
fn kill_all_over<P>(
    heap: &Mapped,
    mut begin: impl FnMut() -> P,
    call: impl Fn(&mut P),
    mut look: impl FnMut(&mut P),
) {
    let prepare = || {
        // A process in the heap, so that the call is not about that.
        let block = Box::new_in(0_u8, heap.handle());
        core::mem::ManuallyDrop::new(block)
    };
    let mut place = begin();
    let Some(child) = stopped(prepare, |_| call(&mut place)) else {
        return println!("skipped: nobody may trace here");
    };
    let way = walk(child);
    look(&mut place);
    let chosen = |point: &&Point| point.visit < 2 || point.is_last;
    let points: Vec<_> = way.iter().filter(chosen).collect();
    // A budget's worth of them, others in each process that runs this.
    let step = points.len().div_ceil(budget());
    let from = usize::try_from(std::process::id()).expect("32 bits") % step;
    let mut reached = 0;
    for point in points.iter().skip(from).step_by(step) {
        let mut place = begin();
        let child = stopped(prepare, |_| call(&mut place)).expect("it was traced before");
        reached += usize::from(kill_at(child, **point));
        look(&mut place);
    }
    println!("{} instructions, {reached} kills", way.len());
    heap.verify().expect("a sound heap");
}

#[test]
fn a_map_is_whole_or_torn() {
    let _turn = begin();
    let heap = Mapped::create(64 << 20).expect("a heap");
    // The next entry finds room, or has the table grow.
    for room in [28, 14] {
        let (mut whole, mut torn) = (0, 0);
        let fresh = || {
            let mut map = Map::new_in(heap.handle());
            map.reserve(room).expect("room");
            (0..14_u64).for_each(|key| assert_eq!(map.insert(key, [key; 4]), Ok(None)));
            Box::new_in(map, heap.handle())
        };
        kill_all_over(
            &heap,
            fresh,
            |map| {
                map.insert(99, [99; 4]).expect("room");
            },
            |map| {
                if map.is_torn() {
                    torn += 1;
                    map.reset();
                    assert_eq!(map.insert(1, [1; 4]), Ok(None));
                    return;
                }
                whole += 1;
                let length = map.len().expect("whole");
                let has_it = map.get(&99) == Ok(Some(&[99; 4]));
                assert_eq!(length, 14 + usize::from(has_it));
                assert!((0..14).all(|key| map.get(&key) == Ok(Some(&[key; 4]))));
            },
        );
        println!("{room}: {whole} whole, {torn} torn");
        assert!(whole > 0 && whole + torn > 3 && (torn > 0 || room > 14));
    }
}

#[test]
fn a_value_is_whole_or_abandoned() {
    let _turn = begin();
    let heap = Mapped::create(16 << 20).expect("a heap");
    let pair = heap.insert("pair", Mutex::new([0_u64; 2])).expect("room");
    let (mut whole, mut abandoned) = (0, 0);
    kill_all_over(
        &heap,
        || (),
        |()| {
            let mut held = pair.lock().expect("repaired");
            held[0] += 1;
            held[1] += 1;
        },
        |()| match pair.lock() {
            Ok(held) => {
                whole += 1;
                assert_eq!(held[0], held[1]);
            }
            Err(error @ LockError::Abandoned(_)) => {
                abandoned += 1;
                drop(error.repair(|pair| pair[0] = pair[1]).expect("the lock"));
            }
            Err(error) => panic!("{error}"),
        },
    );
    assert!(
        whole > 3 && abandoned > 3,
        "{whole} whole, {abandoned} abandoned"
    );
}

#[test]
fn a_name_has_the_old_value_or_the_new() {
    let _turn = begin();
    let heap = Mapped::create(64 << 20).expect("a heap");
    heap.insert("number", 0_u64).expect("room");
    let mut last = 0;
    kill_all_over(
        &heap,
        || (),
        |()| {
            let number = heap.get::<u64>("number").expect("a number").expect("put");
            heap.replace("number", number + 1).expect("room");
        },
        |()| {
            let number = heap.get::<u64>("number").expect("a number").expect("put");
            assert!((last..=last + 1).contains(number), "{number} after {last}");
            assert_eq!(heap.roots().count(), 1);
            last = *number;
        },
    );
    assert!(last > 0);
}

#[test]
fn a_count_is_no_less_than_what_is_left() {
    let _turn = begin();
    let heap = Mapped::create(16 << 20).expect("a heap");
    let own = Arc::try_new_in(7_u64, heap.handle()).expect("room");
    let mut last = 1;
    kill_all_over(
        &heap,
        || (),
        |()| drop(Arc::clone(&own)),
        |()| {
            let count = Arc::count(&own);
            assert!((last..=last + 1).contains(&count), "{count} after {last}");
            last = count;
        },
    );
    assert_eq!(*own, 7);
}
