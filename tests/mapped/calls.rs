//! One process: every block keeps its bytes, and what is wrong is refused.

use core::alloc::Layout;
use core::ptr::NonNull;
use std::thread;

use flagstone::allocator_api2::alloc::Allocator;
use flagstone::allocator_api2::boxed::Box;
use flagstone::allocator_api2::vec::Vec as MappedVec;
use flagstone::{Handle, Mapped, MappedError};
use hashbrown::HashMap;

use crate::common::allocator_model::Model;
use crate::common::process::{begin, verify};

#[test]
fn every_block_keeps_its_bytes() {
    let _turn = begin();
    let heap = Mapped::create(256 << 20).expect("a heap");
    for seed in 0..3 {
        let mut model = Model::new(heap.handle(), seed);
        for _ in 0..10_000 {
            model.step();
        }
        heap.verify().expect("a sound heap");
        model.free_all();
        let stats = heap.stats();
        assert_eq!((stats.live, stats.refused), (0, 0), "{stats:?}");
        // A current slab of each class stays.
        assert!(stats.held <= 80 << 16, "{stats:?}");
    }
    verify();
}

#[test]
fn threads_share_a_heap() {
    let _turn = begin();
    let heap = Mapped::create(1 << 30).expect("a heap");
    for round in 0..3 {
        let (sender, receiver) = std::sync::mpsc::channel::<Box<[u64; 9], Handle>>();
        thread::scope(|scope| {
            for seed in 0..4 {
                let (handle, sender) = (heap.handle(), sender.clone());
                scope.spawn(move || {
                    let mut model = Model::new(handle, round * 10 + seed);
                    for number in 0..5_000 {
                        model.step();
                        let _ = sender.send(Box::new_in([number; 9], handle));
                    }
                    model.free_all();
                });
            }
            drop(sender);
            // What the others allocated is freed here.
            assert!(
                receiver
                    .into_iter()
                    .all(|numbers| numbers.iter().all(|n| *n == numbers[0]))
            );
        });
        heap.verify().expect("a sound heap");
        assert_eq!(heap.stats().live, 0);
    }
    // What threads left that ended is used again.
    let held = heap.stats().held;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut model = Model::new(heap.handle(), 99);
            (0..5_000).for_each(|_| model.step());
            model.free_all();
        });
    });
    assert!(
        heap.stats().held <= held + (80 << 16),
        "{held} {:?}",
        heap.stats()
    );
}

#[test]
fn collections_lie_in_it() {
    let _turn = begin();
    let heap = Mapped::options()
        .name("collections")
        .capacity(64 << 20)
        .create()
        .expect("a heap");
    let handle = heap.handle();
    let mut map: HashMap<u64, MappedVec<u8, Handle>, _, Handle> =
        HashMap::with_hasher_in(std::hash::RandomState::new(), handle);
    for number in 0..20_000_u64 {
        let mut bytes = MappedVec::new_in(handle);
        bytes.extend_from_slice(&number.to_le_bytes());
        assert!(heap.contains(bytes.as_ptr()));
        map.insert(number, bytes);
    }
    map.retain(|number, _| number % 3 == 0);
    assert!(
        map.iter()
            .all(|(number, bytes)| bytes[..] == number.to_le_bytes())
    );
    drop(map);
    assert_eq!(heap.stats().live, 0);
    let maps = std::fs::read_to_string("/proc/self/maps").expect("a list");
    assert!(maps.contains("/memfd:collections"));
}

#[test]
fn a_full_heap_refuses_and_goes_on() {
    let _turn = begin();
    let heap = Mapped::create(4 << 20).expect("a heap");
    for size in [24, 700, 5_000, 40_000, 300_000] {
        let mut kept = Vec::new();
        loop {
            let mut bytes = MappedVec::<u8, _>::new_in(heap.handle());
            if bytes.try_reserve_exact(size).is_err() {
                break;
            }
            bytes.resize(size, 7);
            kept.push(bytes);
        }
        let most = (4 << 20) / size;
        assert!(
            kept.len() <= most && kept.len() * 3 >= most,
            "{size}: {}",
            kept.len()
        );
        assert!(kept.iter().all(|bytes| bytes.iter().all(|byte| *byte == 7)));
        heap.verify().expect("a sound heap");
        drop(kept);
        assert_eq!(heap.stats().live, 0);
    }
}

#[test]
fn what_is_wrong_is_refused() {
    let _turn = begin();
    for capacity in [0, 1, 65_536, (1 << 20) + 1, usize::MAX, !0xffff] {
        let error = Mapped::create(capacity).err();
        assert_eq!(error, Some(MappedError::Capacity), "{capacity}");
    }
    let heap = Mapped::create(16 << 20).expect("a heap");
    let handle = heap.handle();
    let layout = |size| Layout::from_size_align(size, 8).expect("a layout");
    let mut refused = 0;
    for size in [40, 100_000] {
        let block = handle.allocate(layout(size)).expect("memory").cast::<u8>();
        let outside = NonNull::from(&mut refused).cast::<u8>();
        // SAFETY: inside the block.
        let inside = unsafe { block.add(8) };
        for wrong in [inside, outside] {
            // SAFETY: not a block: nothing happens.
            unsafe { handle.deallocate(wrong, layout(size)) };
            refused += 1;
            assert_eq!(heap.stats().refused, refused);
        }
        // SAFETY: live, and not used any more.
        unsafe { handle.deallocate(block, layout(size)) };
        assert_eq!(heap.stats().refused, refused);
        // SAFETY: no block any more: nothing happens.
        unsafe { handle.deallocate(block, layout(size)) };
        refused += 1;
        assert_eq!(heap.stats().refused, refused);
    }
    let huge = Layout::from_size_align(1 << 60, 8).expect("a layout");
    assert!(handle.allocate(huge).is_err() && handle.allocate(layout(32 << 20)).is_err());
    let aligned = Layout::from_size_align(8, 8 << 20).expect("a layout");
    assert!(handle.allocate(aligned).is_err());
    heap.verify().expect("a sound heap");
}

#[test]
fn things_have_names() {
    let _turn = begin();
    let heap = Mapped::create(4 << 20).expect("a heap");
    let numbers = [1_u32, 2].map(|number| Box::new_in(number, heap.handle()));
    assert_eq!(heap.root("one"), None);
    for name in ["", "a\0b", &"n".repeat(49)] {
        assert_eq!(
            heap.set_root(name, &raw const *numbers[0], 0),
            Err(MappedError::Name)
        );
    }
    assert_eq!(
        heap.set_root("stack", &raw const numbers, 0),
        Err(MappedError::Foreign)
    );
    let longest = "n".repeat(48);
    heap.set_root(&longest, &raw const *numbers[0], 7)
        .expect("room");
    heap.set_root("two", &raw const *numbers[1], 8)
        .expect("room");
    let at = |name: &str| {
        heap.root(name)
            .map(|(place, kind)| (place.as_ptr().cast_const(), kind))
    };
    assert_eq!(at(&longest), Some(((&raw const *numbers[0]).cast(), 7)));
    heap.set_root(&longest, &raw const *numbers[1], 9)
        .expect("room");
    assert_eq!(at(&longest), Some(((&raw const *numbers[1]).cast(), 9)));
    assert_eq!(heap.remove_root("two"), Ok(true));
    assert_eq!((heap.remove_root("two"), at("two")), (Ok(false), None));
    for number in 0..63 {
        heap.set_root(&format!("{number}"), &raw const *numbers[0], number)
            .expect("room");
    }
    assert_eq!(
        heap.set_root("one more", &raw const *numbers[0], 0),
        Err(MappedError::Name)
    );
    assert!((0..63).all(|number| at(&format!("{number}")).is_some_and(|(_, kind)| kind == number)));
}

#[test]
fn a_closed_heap_is_a_private_copy() {
    let _turn = begin();
    let heap = Mapped::create(4 << 20).expect("a heap");
    let handle = heap.handle();
    let mut numbers = MappedVec::new_in(handle);
    numbers.extend(0..1_000_u32);
    // SAFETY: nobody else is there.
    unsafe { heap.close() }.expect("the first time");
    assert!(
        numbers
            .iter()
            .zip(0..)
            .all(|(number, place)| *number == place)
    );
    numbers[7] = 70;
    assert!(numbers.try_reserve(10_000).is_err());
    assert!(handle.allocate(Layout::new::<u64>()).is_err());
    // SAFETY: as above.
    assert_eq!(unsafe { heap.close() }, Err(MappedError::Closed));
    assert_eq!(heap.verify(), Err(MappedError::Closed));
    // It is freed in vain.
    drop(numbers);
    let other = Mapped::create(4 << 20).expect("another heap");
    drop(MappedVec::<u8, _>::with_capacity_in(100, other.handle()));
    assert_eq!(other.stats().live, 0);
}

/// Bytes of the file that are in memory.
fn in_memory(heap: &Mapped) -> u64 {
    // SAFETY: all zero is one.
    let mut found: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: the structure is writable.
    assert_eq!(unsafe { libc::fstat(heap.as_raw_fd(), &raw mut found) }, 0);
    found.st_blocks.unsigned_abs() * 512
}

#[test]
fn memory_goes_back() {
    let _turn = begin();
    let heap = Mapped::create(512 << 20).expect("a heap");
    let fill = |size: usize, count: usize| -> Vec<_> {
        (0..count)
            .map(|_| {
                let mut bytes = MappedVec::new_in(heap.handle());
                bytes.resize(size, 1_u8);
                bytes
            })
            .collect()
    };
    for (size, count) in [(1_000, 200_000), (100_000, 2_000), (20 << 20, 10)] {
        let blocks = fill(size, count);
        let full = in_memory(&heap);
        assert!(full >= 190 << 20, "{size}: {full}");
        drop(blocks);
        // A share of what was in use may stay.
        let freed = in_memory(&heap);
        assert!(freed <= full / 8 + (24 << 20), "{size}: {freed} of {full}");
        heap.purge().expect("a heap");
        let purged = in_memory(&heap);
        assert!(purged <= 16 << 20, "{size}: {purged} of {full}");
    }
    heap.verify().expect("a sound heap");
}

/// What others freed is of use for blocks of other sizes, too.
#[test]
fn free_memory_is_any_sizes() {
    let _turn = begin();
    let heap = Mapped::create(32 << 20).expect("a heap");
    let fill = |size: usize| {
        let mut kept = Vec::new();
        loop {
            let mut bytes = MappedVec::<u8, _>::new_in(heap.handle());
            if bytes.try_reserve_exact(size).is_err() {
                return kept;
            }
            kept.push(bytes);
        }
    };
    for round in 0..3 {
        for size in [64, 128, 5_000, 1 << 20, 30_000] {
            let kept = fill(size);
            let bytes = kept.len() * size;
            assert!(bytes > 18 << 20, "round {round}, {size}: {bytes}");
            // By another thread, which has no part of the heap, or one that is another's.
            thread::scope(|scope| scope.spawn(|| drop(kept)).join().expect("no panic"));
            assert_eq!(heap.stats().live, 0);
        }
    }
    heap.verify().expect("a sound heap");
}

/// Slabs of somebody who lives, with free blocks that only he can have, do not hide one's own.
#[test]
fn others_do_not_hide_what_is_ones_own() {
    let _turn = begin();
    let heap = Mapped::create(1 << 30).expect("a heap");
    let handle = heap.handle();
    let fill = |count: usize| {
        (0..count)
            .map(|_| Box::new_in([0_u8; 64], handle))
            .collect::<Vec<_>>()
    };
    let (ready, go) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            let mut kept = fill(300_000);
            kept.retain(|_| {
                number += 1;
                number % 2 == 0
            });
            ready.wait();
            go.wait();
        });
        ready.wait();
        let (mut held, mut all) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            // Of each slab some blocks stay, all others are free.
            let kept = fill(100_000);
            held.push(heap.stats().held);
            all.extend(kept.into_iter().step_by(100));
        }
        assert!(held[9] <= held[0] + (8 << 20), "{held:?}");
        go.wait();
    });
    heap.verify().expect("a sound heap");
}
