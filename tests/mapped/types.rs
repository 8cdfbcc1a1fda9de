//! Typed roots: what another process or program finds by a name is what was put there, or an error.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;
use std::thread;

use flagstone::mapped::{Box, Event, LockError, Map, Mutex, Off, Persist, String, Vec, shape_of};
use flagstone::{Mapped, MappedError, persist};

use crate::attach::{given, run_guest};
use crate::children::{end_of, start};
use crate::common::process::begin;
use crate::locks::{die, killed};

persist! {
    /// What processes share.
    struct Board {
        ages: Mutex<Map<String, u32>>,
        changed: Event,
        hits: AtomicU64,
    }
}

persist! {
    struct Node {
        number: u32,
        next: Option<Box<Node>>,
        other: Option<Off<Node>>,
    }
}

mod other {
    use super::{Box, Off};

    flagstone::persist! {
        pub(crate) struct Node {
            number: u64,
            next: Option<Box<Node>>,
            other: Option<Off<Node>>,
        }
    }
}

fn board(heap: &Mapped) -> Board {
    Board {
        ages: Mutex::new(Map::new_in(heap.handle())),
        changed: Event::new(),
        hits: AtomicU64::new(0),
    }
}

#[test]
fn what_has_a_name_has_a_type() {
    let _turn = begin();
    let heap = Mapped::create(16 << 20).expect("a heap");
    let own = heap.insert("board", board(&heap)).expect("room");
    assert!(heap.contains(own));
    let child = start(|| {
        let board = heap.get::<Board>("board").expect("a board").expect("put");
        let name = String::try_from_str_in("Ada", heap.handle()).expect("room");
        let mut ages = board.ages.lock().expect("free");
        ages.insert(name, 36).expect("room");
        board.hits.fetch_add(3, Ordering::Relaxed);
        board.changed.signal();
    });
    assert_eq!(end_of(child), 0);
    assert_eq!(own.ages.lock().expect("free").get("Ada"), Ok(Some(&36)));
    assert_eq!(
        (own.hits.load(Ordering::Relaxed), own.changed.count()),
        (3, 1)
    );
    // Another type, and the same name again.
    assert_eq!(heap.get::<u64>("board"), Err(MappedError::Type));
    assert_eq!(heap.insert("board", 1_u64), Err(MappedError::Exists));
    assert_eq!(heap.replace("board", 1_u64), Err(MappedError::Type));
    assert_eq!(heap.get::<u64>("none"), Ok(None));
    assert_eq!(heap.get::<u64>(""), Err(MappedError::Name));
    assert_eq!(heap.insert(&"x".repeat(49), 1_u64), Err(MappedError::Name));
    // What was put there without a type, and what lies nowhere.
    heap.set_root("untyped", own, 5).expect("room");
    assert!(matches!(
        heap.get::<Board>("untyped"),
        Err(MappedError::Type)
    ));
    let unaligned = (&raw const *own).wrapping_byte_add(1);
    heap.set_root("odd", unaligned, shape_of::<Board>())
        .expect("room");
    assert!(heap.get::<Board>("odd").is_err());
    let names: HashSet<std::string::String> =
        heap.roots().map(|root| root.name().to_owned()).collect();
    assert_eq!(names, ["board", "untyped", "odd"].map(str::to_owned).into());
    let kind = |name| {
        heap.roots()
            .find(|root| root.name() == name)
            .map(|root| root.kind)
    };
    assert_eq!(
        (kind("untyped"), kind("board")),
        (Some(5), Some(shape_of::<Board>()))
    );
    // SAFETY: nobody uses what has the name.
    let wrong = unsafe { heap.remove::<u64>("board") };
    assert_eq!(wrong.err(), Some(MappedError::Type));
    // SAFETY: `own` is not used any more.
    let board = unsafe { heap.remove::<Board>("board") };
    drop(board.expect("a board").expect("put"));
    assert_eq!(heap.stats().live, 0);
    // SAFETY: nobody has one.
    let none = unsafe { heap.remove::<Board>("board") };
    assert!(none.expect("no error").is_none());
}

/// Whatever a program says of a place that it gives a name: it does not make a type of it.
#[test]
fn what_a_program_says_is_no_type() {
    let _turn = begin();
    let heap = Mapped::create(16 << 20).expect("a heap");
    let bytes = Box::leak(Box::new_in([7_u8; 64], heap.handle()));
    let kind = shape_of::<Vec<u8>>();
    heap.set_root("bytes", bytes, kind).expect("room");
    assert_eq!(heap.get::<Vec<u8>>("bytes"), Err(MappedError::Type));
    let found = heap
        .root("bytes")
        .map(|(place, kind)| (place.as_ptr().addr(), kind));
    assert_eq!(found, Some(((&raw const *bytes).addr(), kind)));
    // What has a type is found by its place, too.
    let number = heap.insert("number", 7_u32).expect("room");
    let (place, kind) = heap.root("number").expect("a name");
    assert_eq!(place.addr().get(), (&raw const *number).addr());
    assert_eq!(kind, shape_of::<u32>());
}

#[test]
fn blocks_of_other_heaps_are_refused() {
    let _turn = begin();
    let [heap, other] = [0, 1].map(|_| Mapped::create(1 << 20).expect("a heap"));
    let foreign = Box::new_in(7_u64, other.handle());
    assert_eq!(heap.insert("number", foreign), Err(MappedError::Foreign));
    let own = Box::new_in(7_u64, heap.handle());
    assert_eq!(heap.insert("number", own).map(|number| **number), Ok(7));
}

#[test]
fn a_value_takes_the_place_of_another() {
    let _turn = begin();
    let heap = Mapped::create(1 << 20).expect("a heap");
    assert_eq!(heap.replace("number", 1_u64), Ok((&1, None)));
    let (new, old) = heap.replace("number", 2_u64).expect("room");
    assert_eq!((new, old), (&2, Some(&1)));
    assert_eq!(heap.get::<u64>("number"), Ok(Some(&2)));
    assert_eq!(heap.roots().count(), 1);
    let old: *const u64 = old.expect("the first");
    // SAFETY: a block that nobody uses any more.
    drop(unsafe { Box::from_raw_in(old.cast_mut(), heap.handle()) });
    // SAFETY: nobody uses it any more.
    unsafe { heap.close() }.expect("the first time");
    assert_eq!(heap.get::<u64>("number"), Err(MappedError::Closed));
    assert_eq!(heap.insert("other", 3_u64), Err(MappedError::Closed));
}

/// A program of its own, with other addresses than this one's for all but the heap: it fills a map that was empty, waits and
/// signals, and is killed while it holds the mutex.
#[test]
fn another_program_finds_them() {
    const NAME: &str = "types::another_program_finds_them";
    if let Some(heap) = given() {
        let board = heap.get::<Board>("board").expect("a board").expect("put");
        {
            let mut ages = board.ages.lock().expect("free");
            assert_eq!((ages.len(), ages.get("Ada")), (Ok(0), Ok(None)));
            for age in 0..1_000_u32 {
                let name = String::try_from_str_in(&format!("{age} years"), heap.handle());
                ages.insert(name.expect("room"), age).expect("room");
            }
        }
        heap.insert("ages", Map::<u64, u64>::new_in(heap.handle()))
            .expect("room");
        board.changed.signal();
        let mut held = board.ages.lock().expect("free");
        held.insert(String::new_in(heap.handle()), 0).expect("room");
        die();
    }
    let _turn = begin();
    let heap = Mapped::create(16 << 20).expect("a heap");
    let own = heap.insert("board", board(&heap)).expect("room");
    let status = run_guest(NAME, &heap);
    assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
    assert!(own.changed.wait_beyond(0, core::time::Duration::ZERO));
    let Err(LockError::Abandoned(mut ages)) = own.ages.lock() else {
        panic!("a process was killed with the lock");
    };
    // It was not in the midst of a change of the map.
    assert_eq!(ages.len(), Ok(1_001));
    assert_eq!(ages.remove(""), Ok(Some(0)));
    ages.mark_fit();
    assert!((0..1_000).all(|age| ages.get(&*format!("{age} years")) == Ok(Some(&age))));
    ages.insert(
        String::try_from_str_in("Ada", heap.handle()).expect("room"),
        36,
    )
    .expect("room");
    drop(ages);
    assert!(own.ages.lock().is_ok());
    let names = heap
        .get::<Map<u64, u64>>("ages")
        .expect("a map")
        .expect("put by the other");
    assert_eq!(names.get(&1), Ok(None));
    heap.verify().expect("a sound heap");
}

/// Who reads a name while others give it other places finds one of them, with its own number.
#[test]
fn readers_find_what_stands() {
    let _turn = begin();
    let heap = Mapped::create(16 << 20).expect("a heap");
    let done = heap.insert("done", AtomicBool::new(false)).expect("room");
    heap.insert("pair", [0_u64; 2]).expect("room");
    let child = start(|| {
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut looks = 0_u64;
                    while !done.load(Ordering::Relaxed) || looks == 0 {
                        let pair = heap.get::<[u64; 2]>("pair").expect("a pair");
                        let [left, right] = pair.expect("it has a place all the time");
                        assert_eq!(left, right);
                        let is_there = |name| heap.roots().any(|root| root.name() == name);
                        assert!(is_there("pair") && is_there("done"));
                        looks += 1;
                    }
                });
            }
        });
    });
    for number in 1..20_000_u64 {
        heap.replace("pair", [number; 2]).expect("room");
        if number % 2 == 0 {
            heap.replace("other", [number; 4]).expect("room");
        } else {
            heap.remove_root("other").expect("a heap");
        }
    }
    done.store(true, Ordering::Relaxed);
    assert_eq!(end_of(child), 0);
}

/// A process that is killed with the heap's lock holds no reader up.
#[test]
fn readers_do_not_wait() {
    let _turn = begin();
    let heap = Mapped::create(16 << 20).expect("a heap");
    heap.insert("number", 7_u32).expect("room");
    killed(|| {
        for number in 0.. {
            heap.replace("other", [number; 4]).expect("room");
            if number == 1_000 {
                die();
            }
        }
    });
    assert_eq!(heap.get::<u32>("number"), Ok(Some(&7)));
    assert_eq!(heap.get::<[i32; 4]>("other"), Ok(Some(&[1_000; 4])));
}

#[test]
fn shapes_differ() {
    // Fields that changed places, and types behind many blocks.
    mod one {
        flagstone::persist! { pub(super) struct Rect { pub(super) width: u32, pub(super) height: u32 } }
    }
    mod two {
        flagstone::persist! { pub(super) struct Rect { pub(super) height: u32, pub(super) width: u32 } }
    }
    assert_ne!(shape_of::<one::Rect>(), shape_of::<two::Rect>());
    type Deep<T> = Box<Box<Box<Box<Box<T>>>>>;
    assert_ne!(shape_of::<Deep<[u64; 2]>>(), shape_of::<Deep<(u64, u64)>>());
    assert_ne!(shape_of::<Deep<u64>>(), shape_of::<Deep<Box<u64>>>());
    let shapes = [
        shape_of::<u64>(),
        shape_of::<i64>(),
        shape_of::<[u64; 1]>(),
        shape_of::<(u64,)>(),
        shape_of::<(u8, u64)>(),
        shape_of::<(u64, u8)>(),
        shape_of::<Option<u64>>(),
        shape_of::<Vec<u64>>(),
        shape_of::<Vec<i64>>(),
        shape_of::<Vec<Vec<u64>>>(),
        shape_of::<Box<u64>>(),
        shape_of::<Off<u64>>(),
        shape_of::<Off<i64>>(),
        shape_of::<Map<u64, u32>>(),
        shape_of::<Map<u32, u64>>(),
        shape_of::<Mutex<u64>>(),
        shape_of::<Mutex<Event>>(),
        shape_of::<String>(),
        shape_of::<Vec<u8>>(),
        shape_of::<AtomicU64>(),
        shape_of::<Node>(),
        shape_of::<other::Node>(),
        shape_of::<Board>(),
    ];
    assert_eq!(shapes.iter().collect::<HashSet<_>>().len(), shapes.len());
    // The same in each process.
    assert_eq!(shape_of::<Board>(), shape_of::<Board>());
}

/// All blocks that are reached from a value are told, once each.
#[test]
fn a_visit_tells_of_all_blocks() {
    let _turn = begin();
    let heap = Mapped::create(16 << 20).expect("a heap");
    let handle = heap.handle();
    let text = |text| String::try_from_str_in(text, handle).expect("room");
    let mut map = Map::new_in(handle);
    map.insert(
        text("long enough for a block"),
        Some(Box::new_in(7_u32, handle)),
    )
    .expect("room");
    map.insert(text("another"), None).expect("room");
    let mut list = Vec::new_in(handle);
    list.push((Mutex::new(map), text("third")));
    let node = |next| Node {
        number: 1,
        next,
        other: None,
    };
    let nodes = node(Some(Box::new_in(node(None), handle)));
    let all = (list, nodes, text(""));
    let mut found = HashSet::new();
    let mut visit = |place: NonNull<u8>| {
        assert!(heap.contains(place.as_ptr()));
        found.insert(place)
    };
    // SAFETY: nobody else has it.
    unsafe { all.visit(&mut visit) };
    // The list, the table, two keys, a number, the third text, a node.
    assert_eq!(found.len(), 7);
    assert_eq!(all.1.number + u32::from(all.1.other.is_some()), 1);
    drop(all);
    assert_eq!(heap.stats().live, 0);
}
