//! What nothing with a name leads to is free after a sweep, and all else is as it was.

use core::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use flagstone::mapped::{Box, Map, Mutex, String, Vec};
use flagstone::{Handle, Mapped, MappedError, persist};

use crate::children::{end_of, start};
use crate::common::allocator_model::Model;
use crate::common::process::begin;
use crate::kinds::KINDS;

persist! {
    struct Node {
        number: u64,
        text: String,
        next: Option<Box<Node>>,
    }
}

persist! {
    struct Board {
        ages: Mutex<Map<String, Vec<u32>>>,
        nodes: Option<Box<Node>>,
        long: Vec<u64>,
    }
}

fn text(number: u64, handle: Handle) -> String {
    String::try_from_str_in(&format!("number {number}"), handle).expect("room")
}

fn board(handle: Handle) -> Board {
    let mut ages = Map::new_in(handle);
    let mut nodes = None;
    for number in 0..100 {
        let mut list = Vec::new_in(handle);
        list.extend(0..10);
        ages.insert(text(number, handle), list).expect("room");
        let text = text(number, handle);
        let next = nodes.take();
        nodes = Some(Box::new_in(Node { number, text, next }, handle));
    }
    let mut long = Vec::new_in(handle);
    long.extend(0..100_000);
    Board {
        ages: Mutex::new(ages),
        nodes,
        long,
    }
}

fn check(board: &Board) {
    let ages = board.ages.lock().expect("free");
    for number in 0..100 {
        let list = ages.get(format!("number {number}").as_str());
        assert!(
            list.expect("whole")
                .expect("an entry")
                .iter()
                .copied()
                .eq(0..10)
        );
    }
    let mut nodes = core::iter::successors(board.nodes.as_deref(), |node| node.next.as_deref());
    assert!((0..100).rev().all(|number| {
        let node = nodes.next().expect("a node");
        node.number == number && node.text.as_str() == format!("number {number}")
    }));
    assert!(board.long.iter().copied().eq(0..100_000));
}

#[test]
fn what_the_killed_had_is_freed() {
    let _turn = begin();
    for kind in &KINDS {
        let heap = (kind.create)(64 << 20).expect("a heap");
        let handle = heap.handle();
        let own = heap.insert("board", board(handle)).expect("room");
        let plain = Box::leak(Box::new_in([7_u8; 300], handle));
        heap.set_root("plain", plain, 1).expect("room");
        let before = heap.stats().live;
        // Killed with all that they had.
        for seed in 0..3 {
            let child = start(|| {
                let mut model = Model::new(handle, seed);
                let _ = (0..2_000).try_for_each(|_| model.try_step());
                Vec::<u64>::with_capacity_in(1 << 17, handle).leak();
                // SAFETY: this process.
                unsafe { libc::raise(libc::SIGKILL) };
            });
            assert_eq!(end_of(child) & 0x7f, libc::SIGKILL);
        }
        let full = heap.stats().live;
        assert!(full > before + (3 << 20), "{full} {before}");
        let board_alone = |heap: Mapped| {
            // SAFETY: nobody else has the heap; all that is used is told.
            unsafe { heap.sweep(|sweep| sweep.root::<Board>("board")) }
        };
        assert_eq!(board_alone(heap), Err(MappedError::Name));
        assert_eq!(heap.stats().live, full, "nothing was freed");
        // SAFETY: as above.
        let swept = unsafe {
            heap.sweep(|sweep| {
                assert_eq!(sweep.root::<u64>("board"), Err(MappedError::Type));
                assert_eq!(sweep.block("none"), Err(MappedError::Name));
                sweep.block("plain")?;
                sweep.root::<Board>("board")
            })
        };
        let swept = swept.expect("nobody else has it");
        assert_eq!(heap.stats().live, before, "{}", kind.name);
        assert_eq!(swept.bytes, full - before);
        assert!(swept.blocks > 3);
        heap.verify().expect("a sound heap");
        check(own);
        assert_eq!(plain, &[7; 300]);
        // Its threads go on with it.
        let mut model = Model::new(handle, 9);
        (0..5_000).for_each(|_| model.step());
        thread::spawn(move || {
            let mut model = Model::new(handle, 10);
            (0..1_000).for_each(|_| model.step());
            model.free_all();
        })
        .join()
        .expect("the thread");
        model.free_all();
        check(own);
        // Nothing leads to anything any more.
        heap.remove_root("board").expect("nobody refuses");
        heap.remove_root("plain").expect("nobody refuses");
        // SAFETY: nothing is used any more.
        let swept = unsafe { heap.sweep(|_| Ok(())) }.expect("nobody else has it");
        assert_eq!((swept.bytes, heap.stats().live), (before, 0));
        heap.verify().expect("a sound heap");
        // SAFETY: nobody else has it.
        unsafe { heap.close() }.expect("not closed yet");
    }
}

#[test]
fn a_heap_that_others_have_is_not_swept() {
    let _turn = begin();
    let heap = Mapped::create(16 << 20).expect("a heap");
    let step = Box::leak(Box::new_in(AtomicU32::new(0), heap.handle()));
    heap.set_root("step", step, 0).expect("room");
    let child = start(|| {
        drop(Box::new_in(7, heap.handle()));
        step.store(1, Ordering::Release);
        while step.load(Ordering::Acquire) != 2 {
            thread::yield_now();
        }
    });
    while step.load(Ordering::Acquire) != 1 {
        thread::yield_now();
    }
    // SAFETY: it is refused, or nothing is used.
    let sweep = || unsafe { heap.sweep(|sweep| sweep.block("step")) };
    assert_eq!(sweep(), Err(MappedError::InUse));
    step.store(2, Ordering::Release);
    assert_eq!(end_of(child), 0);
    assert_eq!(sweep().map(|swept| swept.blocks), Ok(0));
    // SAFETY: nobody else has it.
    unsafe { heap.close() }.expect("not closed yet");
    assert_eq!(sweep(), Err(MappedError::Closed));
}

/// A block that has a name without a type is one that a type leads to, too; and what is allocated meanwhile stays.
#[test]
fn names_of_one_block_agree() {
    let _turn = begin();
    let heap = Mapped::create(64 << 20).expect("a heap");
    let handle = heap.handle();
    let mut lines = Vec::new_in(handle);
    (0..10).for_each(|number| lines.push(text(number, handle)));
    let lines = heap.insert("lines", lines).expect("room");
    heap.set_root("alias", lines, 0).expect("room");
    let before = heap.stats().live;
    for is_first in [true, false] {
        let mut meanwhile = Vec::new_in(handle);
        // SAFETY: nobody else has the heap; all that is used is told, or was allocated meanwhile.
        let swept = unsafe {
            heap.sweep(|sweep| {
                if is_first {
                    sweep.block("alias")?;
                }
                sweep.root::<Vec<String>>("lines")?;
                // Beyond what was looked at.
                (0..30).for_each(|_| meanwhile.push(Vec::<u8>::with_capacity_in(1 << 20, handle)));
                sweep.block("alias")
            })
        };
        swept.expect("nobody else has it");
        assert!((0..10).all(|number| lines[number].as_str() == format!("number {number}")));
        // What was allocated in units that were looked at is swept: it is not to be dropped.
        let _ = core::mem::ManuallyDrop::new(meanwhile);
        heap.verify().expect("a sound heap");
        // SAFETY: as above.
        let swept = unsafe {
            heap.sweep(|sweep| {
                sweep.block("alias")?;
                sweep.root::<Vec<String>>("lines")
            })
        };
        swept.expect("nobody else has it");
        assert_eq!(heap.stats().live, before);
    }
}
