//! What the kernel knows of the memory of heaps that ask for something.

use std::fs;

use core::mem::ManuallyDrop;
use flagstone::allocator_api2::vec::Vec as HeapVec;
use flagstone::{Flagstone, Heap, HeapError, HeapOptions, HugePages, failpoints};

use crate::common::process::{begin, expect_flat, live, stats, verify};

/// A size for each way that blocks are served: a sub-slab, granules, a unit, a span, a mapping.
const SIZES: [usize; 6] = [40, 9_000, 60_000, 300_000, 3 << 20, 9 << 20];

/// The mapping that holds an address, by the kernel's list: the lines that tell of it.
fn mapping(address: usize) -> Vec<String> {
    let all = fs::read_to_string("/proc/self/smaps").expect("a list of mappings");
    let mut lines = all.lines().map(str::to_owned).peekable();
    while let Some(line) = lines.next() {
        let range = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        let bounds = range.map(|(from, to)| {
            [from, to].map(|bound| usize::from_str_radix(bound, 16).unwrap_or(0))
        });
        if let Some([from, to]) = bounds
            && (from..to).contains(&address)
        {
            let is_of_it = |line: &String| {
                !line
                    .split(' ')
                    .next()
                    .is_some_and(|range| range.contains('-'))
            };
            return core::iter::from_fn(|| lines.next_if(is_of_it)).collect();
        }
    }
    panic!("nothing is mapped there")
}

/// Whether the kernel knows of this for the mapping of an address.
fn has(address: usize, flag: &str) -> bool {
    let lines = mapping(address);
    let flags = lines.iter().find_map(|line| line.strip_prefix("VmFlags:"));
    flags.expect("flags").split(' ').any(|known| known == flag)
}

/// A heap with these options whose blocks' mappings have a flag; others have none, then and afterwards.
fn expect_flag(options: HeapOptions<'_>, flag: &str) {
    let mut heap = match options.create() {
        Ok(heap) => heap,
        Err(HeapError::Unsupported) => return println!("skipped: {flag}: not with this kernel"),
        Err(error) => panic!("{error}"),
    };
    let outside = SIZES.map(Vec::<u8>::with_capacity);
    let mut blocks = Vec::new();
    for size in SIZES {
        let mut bytes = HeapVec::with_capacity_in(size, &heap);
        bytes.resize(size, 1_u8);
        assert!(has(bytes.as_ptr().addr(), flag), "{size}: no {flag}");
        assert!(
            has(bytes.as_ptr().addr() + size - 1, flag),
            "{size}: no {flag} at its end"
        );
        bytes.reserve_exact(size);
        bytes.resize(2 * size, 2_u8);
        assert!(
            has(bytes.as_ptr().addr() + size, flag),
            "{size}: no {flag} behind it"
        );
        blocks.push(bytes);
    }
    assert!(
        outside
            .iter()
            .all(|block| !has(block.as_ptr().addr(), flag)),
        "{flag} elsewhere"
    );
    verify();
    drop(blocks);
    assert_eq!(heap.stats().blocks, 0);
    heap.verify().expect("a sound heap");
    drop(heap);
    let again = SIZES.map(Vec::<u8>::with_capacity);
    assert!(
        again.iter().all(|block| !has(block.as_ptr().addr(), flag)),
        "{flag} is left"
    );
    verify();
}

#[test]
fn memory_is_as_it_was_asked_for() {
    let _turn = begin();
    expect_flag(Heap::options().core_dumps(false), "dd");
    expect_flag(Heap::options().mergeable(true), "mg");
    let both = Heap::options().huge_pages(HugePages::Advise);
    expect_flag(both.core_dumps(false), "dd");
}

/// Long mappings may keep such a wish when others have them.
#[test]
fn huge_pages_come_and_stay_out() {
    let _turn = begin();
    for (wish, flag) in [(HugePages::Advise, "hg"), (HugePages::Off, "nh")] {
        let options = Heap::options().huge_pages(wish);
        let heap = options.create().expect("memory");
        for size in SIZES {
            let bytes = HeapVec::<u8, _>::with_capacity_in(size, &heap);
            assert!(has(bytes.as_ptr().addr(), flag), "{size}: no {flag}");
        }
    }
}

#[test]
fn memory_is_of_a_node() {
    let _turn = begin();
    let Ok(heap) = Heap::options().node(0).create() else {
        return println!("skipped: this kernel knows of no nodes");
    };
    for size in SIZES {
        let mut bytes = HeapVec::with_capacity_in(size, &heap);
        bytes.resize(size, 1_u8);
        let policy = policy_at(bytes.as_ptr().addr());
        assert!(policy.starts_with("prefer"), "{size}: {policy}");
    }
    for number in [63, 1023, 1024, u32::MAX] {
        let other = Heap::options().node(number).create();
        assert_eq!(other.err(), Some(HeapError::Unsupported), "{number}");
    }
}

/// How the kernel chooses nodes for the mapping of an address.
fn policy_at(address: usize) -> String {
    let all = fs::read_to_string("/proc/self/numa_maps").expect("a list of mappings");
    let begins = |line: &&str| {
        let first = line
            .split(' ')
            .next()
            .and_then(|first| usize::from_str_radix(first, 16).ok());
        first.is_some_and(|first| first <= address)
    };
    let last = all.lines().rfind(begins).expect("a mapping");
    last.split(' ').nth(1).expect("a policy").to_owned()
}

#[test]
fn gigantic_pages_are_shared_and_go_back() {
    let _turn = begin();
    let options = Heap::options().gigantic_pages(true);
    let heap = match options.create() {
        Ok(heap) => heap,
        Err(HeapError::Unsupported) => return println!("skipped: no page of 1 GiB to spare"),
        Err(error) => panic!("{error}"),
    };
    let free = || {
        let path = "/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages";
        let text = fs::read_to_string(path).expect("a count");
        text.trim().parse::<usize>().expect("a number")
    };
    let before = free();
    let round = || {
        let mut blocks: Vec<_> = SIZES
            .map(|size| HeapVec::<u8, _>::with_capacity_in(size, &heap))
            .into();
        for (block, size) in blocks.iter_mut().zip(SIZES) {
            assert_eq!(block.as_ptr().addr() >> 30, blocks_first(&heap) >> 30);
            block.resize(size, 7_u8);
        }
        // What was used before is zero again.
        let zeroed: HeapVec<u8, _> = flagstone::allocator_api2::vec![in &heap; 0; 9 << 20];
        assert!(zeroed.iter().all(|byte| *byte == 0));
        assert_eq!(free(), before - 1);
        let _ = ManuallyDrop::new(blocks.swap_remove(0));
    };
    round();
    round();
    verify();
    drop(heap);
    Flagstone::purge();
    assert_eq!(free(), before);
}

/// An address in the first page of a heap's.
fn blocks_first(heap: &Heap) -> usize {
    HeapVec::<u8, _>::with_capacity_in(40, heap).as_ptr().addr()
}

#[test]
fn what_cannot_be_is_an_error() {
    let _turn = begin();
    let both = Heap::options()
        .gigantic_pages(true)
        .mergeable(true)
        .create();
    assert_eq!(both.err(), Some(HeapError::Unsupported));
    let short = Heap::options().core_dumps(false).limit(100).create();
    assert_eq!(short.err(), Some(HeapError::Limit));
}

#[test]
fn heaps_with_equal_options_share_chunks() {
    let _turn = begin();
    let mappings = || {
        fs::read_to_string("/proc/self/maps")
            .expect("a list")
            .lines()
            .count()
    };
    let options = Heap::options().core_dumps(false);
    let make = || {
        let heap = options.create().expect("memory");
        for size in [16, 100, 1_000, 20_000] {
            let _ = ManuallyDrop::new(HeapVec::<u8, _>::with_capacity_in(size, &heap));
        }
        heap
    };
    drop(make());
    let (before, committed) = (mappings(), stats().committed);
    let heaps: Vec<_> = (0..1_000).map(|_| make()).collect();
    let more = stats().committed - committed;
    // Each has 4 KiB of its own, granules of 2, 2, 4 and 20 KiB, and a table.
    assert!(more <= 48 << 20, "{more}");
    assert!(mappings() <= before + 16, "{} {before}", mappings());
    drop(heaps);
    verify();
}

#[test]
fn heaps_with_attributes_leave_nothing_behind() {
    let _turn = begin();
    expect_flat(|| {
        let heaps: Vec<_> = (0..50)
            .map(|_| Heap::options().core_dumps(false).create().expect("memory"))
            .collect();
        let with = live();
        for heap in &heaps {
            for size in SIZES {
                let _ = ManuallyDrop::new(HeapVec::<u8, _>::with_capacity_in(size, heap));
            }
        }
        assert!(live() >= with + 50 * SIZES.iter().sum::<usize>());
    });
    Flagstone::purge();
    verify();
}

/// Whatever runs out when a sub-slab begins, its memory goes back where it came from.
#[test]
fn without_memory_for_tables_nothing_goes_astray() {
    let _turn = begin();
    let heap = Heap::options().core_dumps(false);
    let heap = heap.create().expect("memory");
    let mut refusals = 0;
    for _ in 0..400 {
        // A chunk in which no sub-slab is yet.
        for size in [1 << 20, 1 << 20, 1 << 20, 960 << 10] {
            assert!(!heap.raw_alloc(size, 16).is_null());
        }
        failpoints::refuse_after(0, true);
        for _ in 0..8 {
            let block = heap.raw_alloc(8_000, 16);
            if !block.is_null() {
                // SAFETY: fresh, and so long.
                unsafe { block.write_bytes(1, 8_000) };
            }
        }
        refusals += failpoints::refuse_none();
        let outside = [2, 4, 8, 16, 32].map(|kib| Vec::<u8>::with_capacity(kib << 10));
        let astray = outside
            .iter()
            .find(|block| has(block.as_ptr().addr(), "dd"));
        assert!(astray.is_none(), "the engine has {astray:?} of the pool");
        if refusals > 3 {
            break;
        }
    }
    assert!(refusals > 0, "nothing was refused");
    verify();
}

#[test]
fn what_was_kept_out_of_dumps_is_erased() {
    let _turn = begin();
    const SIZE: usize = 3 << 20;
    let heap = Heap::options().core_dumps(false);
    let heap = heap.create().expect("memory");
    let block = heap.raw_alloc(SIZE, 16);
    // SAFETY: fresh, and so long.
    unsafe { block.write_bytes(0x5a, SIZE) };
    // SAFETY: live, and not used any more.
    unsafe { heap.raw_free(block) };
    // The mapping is kept, outside of the heap.
    let again = Vec::<u8>::with_capacity(SIZE);
    assert!(!has(again.as_ptr().addr(), "dd"));
    // SAFETY: a block so long, whatever is in it.
    let found = unsafe { core::slice::from_raw_parts(again.as_ptr(), SIZE) };
    assert!(found.iter().all(|byte| *byte != 0x5a));
}
