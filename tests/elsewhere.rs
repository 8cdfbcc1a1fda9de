//! Without this, a program could not be built or run where there is no engine, or not learn there what is missing. It
//! runs where the engine is, too: a program is the same everywhere. `.ci/elsewhere` runs it without.

use core::alloc::{GlobalAlloc, Layout};
use core::hint::black_box;
use core::mem::ManuallyDrop;
use core::panic::AssertUnwindSafe;
use std::collections::{BTreeMap, HashMap};
use std::panic::catch_unwind;
use std::sync::mpsc;
use std::thread;

use flagstone::allocator_api2::alloc::Allocator;
use flagstone::allocator_api2::boxed::Box as HeapBox;
use flagstone::allocator_api2::vec::Vec as HeapVec;
use flagstone::{Background, Config, Flagstone, Hardening, Heap, HeapError, OptionError};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::with_config(Config::new().background(Background::Off));

/// As `src/lib.rs` chooses.
const ENGINE: bool = cfg!(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(flagstone_elsewhere),
));

#[test]
fn collections_and_threads() {
    let (send, receive) = mpsc::channel();
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let send = send.clone();
            scope.spawn(move || {
                for round in 0..200 {
                    let lines: Vec<String> =
                        (0..round).map(|line| format!("{thread} {line}")).collect();
                    let sizes: BTreeMap<usize, usize> =
                        lines.iter().map(|line| (line.len(), 1)).collect();
                    send.send((thread, lines, sizes))
                        .expect("the receiver is there");
                }
            });
        }
        drop(send);
        // What one thread allocated, another frees.
        let mut counts = HashMap::new();
        for (thread, lines, sizes) in receive {
            assert!(lines.iter().all(|line| sizes.contains_key(&line.len())));
            assert!(
                lines
                    .iter()
                    .enumerate()
                    .all(|(number, line)| *line == format!("{thread} {number}"))
            );
            *counts.entry(thread).or_insert(0) += lines.len();
        }
        assert_eq!(counts.len(), 4);
        assert!(counts.values().all(|count| *count == 199 * 100));
    });
}

#[test]
fn every_layout_and_every_call_of_the_trait() {
    for align in [1, 8, 64, 4096, 1 << 16] {
        for size in [1, 24, 5_000, 300_000, 3 << 20] {
            let layout = Layout::from_size_align(size, align).expect("a layout");
            // SAFETY: of some bytes.
            let block = unsafe { ALLOC.alloc(layout) };
            assert!(!block.is_null() && block.addr().is_multiple_of(align));
            // SAFETY: so long.
            unsafe { block.write_bytes(7, size) };
            // SAFETY: live, and the old address is not used again.
            let block = unsafe { ALLOC.realloc(block, layout, 2 * size) };
            assert!(!block.is_null() && block.addr().is_multiple_of(align));
            // SAFETY: as long, and written.
            let bytes = unsafe { core::slice::from_raw_parts(block, size) };
            assert!(bytes.iter().all(|byte| *byte == 7));
            let longer = Layout::from_size_align(2 * size, align).expect("a layout");
            // SAFETY: live, and not used again.
            unsafe { ALLOC.dealloc(block, longer) };
            // SAFETY: of some bytes.
            let zeroed = unsafe { ALLOC.alloc_zeroed(longer) };
            assert!(!zeroed.is_null());
            // SAFETY: as long, and zero.
            let bytes = unsafe { core::slice::from_raw_parts(zeroed, 2 * size) };
            assert!(bytes.iter().all(|byte| *byte == 0));
            // SAFETY: live, and not used again.
            unsafe { ALLOC.dealloc(zeroed, longer) };
        }
    }
    let most = Layout::from_size_align(isize::MAX as usize, 1).expect("a layout");
    // SAFETY: of some bytes. The compiler may not leave it out.
    assert!(black_box(unsafe { ALLOC.alloc(most) }).is_null());
}

#[test]
fn what_is_missing_is_told() {
    let buffer = vec![1_u8; 1 << 20];
    assert_eq!(Flagstone::stats().is_some(), ENGINE);
    assert!(Flagstone::stats().is_none_or(|stats| stats.live >= 1 << 20));
    drop(buffer);
    assert_eq!(Flagstone::purge() > 0, ENGINE);
    assert_eq!(Flagstone::verify(), Ok(()));
    assert_eq!(ALLOC.start_background().is_ok(), ENGINE);

    let all = Hardening::ALL;
    let wanted = Config::new().with_option("FLAGSTONE_HARDENED", b"1");
    let sampled = Config::new().with_option("FLAGSTONE_SAMPLE", b"100");
    if ENGINE {
        assert_eq!(Hardening::AVAILABLE, all);
        assert_eq!(wanted, Ok(Config::new().hardening(all)));
        assert_eq!(sampled, Ok(Config::new().sample_one_in(100)));
    } else {
        assert_eq!(Hardening::AVAILABLE, Hardening::NONE);
        assert_eq!(wanted, Err(OptionError::Unsupported));
        assert_eq!(sampled, Err(OptionError::Unsupported));
    }
    let none = Config::new().with_option("FLAGSTONE_HARDENED", b"0");
    assert_eq!(none, Ok(Config::new()));
    let other = Config::new().with_option("FLAGSTONE_LARGE_CACHE", b"1M");
    assert_eq!(other, Ok(Config::new().large_cache(1 << 20)));
    // This process has none on either system.
    assert_eq!(ALLOC.require(Hardening::NONE), Ok(()));
    let missing = ALLOC.require(all).expect_err("nothing is on").missing;
    assert_eq!(missing, all);
}

#[test]
fn a_heap_counts_and_is_dropped_as_one() {
    let mut heap = Heap::options().name("tenant 7").create().expect("memory");
    assert_eq!((heap.name(), heap.limit()), ("tenant 7", None));
    let empty = heap.stats();
    assert_eq!((empty.blocks, empty.live, empty.refused), (0, 0, 0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut kept = Vec::new();
                for number in 0..1_000_u64 {
                    let mut numbers = HeapVec::new_in(&heap);
                    numbers.extend((0..number % 70).map(|place| place * number));
                    numbers.shrink_to_fit();
                    assert!(
                        numbers
                            .iter()
                            .zip(0..)
                            .all(|(n, place)| *n == place * number)
                    );
                    if number % 3 == 0 {
                        kept.push(HeapBox::new_in([number; 5], &heap));
                        kept.swap_remove(kept.len() / 2);
                        kept.push(HeapBox::new_in([number; 5], &heap));
                    }
                }
                assert!(heap.stats().blocks >= kept.len());
                // No destructor runs: what is left is the heap's to give back.
                for block in kept {
                    let _ = ManuallyDrop::new(block);
                }
            });
        }
    });
    let stats = heap.stats();
    assert_eq!(stats.blocks, 4 * 334);
    assert!(stats.live >= 4 * 334 * 40 && stats.held >= stats.live && stats.peak >= stats.held);
    assert_eq!(heap.verify(), Ok(()));
    heap.purge();
    heap.reset();
    assert_eq!((heap.stats().blocks, heap.stats().live), (0, 0));
    assert_eq!(heap.stats().held, empty.held);
    assert_eq!(heap.verify(), Ok(()));
    let _ = ManuallyDrop::new(HeapVec::<u8, _>::with_capacity_in(1 << 20, &heap));
    assert!(format!("{heap:?}").contains("tenant 7"));
}

#[test]
fn a_heap_keeps_its_limit() {
    const LIMIT: usize = 256 << 10;
    let low = Heap::options().limit(4095).create().map(drop);
    assert_eq!(low, Err(HeapError::Limit));
    let heap = Heap::options().limit(LIMIT).create().expect("memory");
    assert_eq!(heap.limit(), Some(LIMIT));
    let fill = || {
        let boxes = core::iter::from_fn(|| HeapBox::try_new_in([0_u64; 64], &heap).ok());
        boxes.collect::<Vec<_>>()
    };
    let full = fill();
    assert!(full.len() * 512 > LIMIT / 10 * 8, "{}", full.len());
    assert!(heap.stats().held <= LIMIT && heap.stats().refused > 0);
    heap.set_limit(Some(2 * LIMIT));
    let more = fill();
    assert!(more.len() * 512 > LIMIT / 10 * 8, "{}", more.len());
    drop((full, more));
    assert_eq!(heap.stats().blocks, 0);
    let mut bytes = HeapVec::<u8, _>::new_in(&heap);
    assert!(bytes.try_reserve(3 * LIMIT).is_err());
    assert!(bytes.try_reserve(LIMIT).is_ok());
    assert!(bytes.try_reserve(isize::MAX as usize).is_err());
    heap.set_limit(Some(LIMIT));
    // What is there stays, and may become shorter.
    bytes.extend_from_slice(&[7; 1_000]);
    bytes.shrink_to_fit();
    assert!(bytes.iter().all(|byte| *byte == 7));
}

#[test]
fn a_heap_panics_if_it_was_made_so() {
    let heap = Heap::options()
        .name("request 17")
        .limit(64 << 10)
        .panics(true);
    let heap = heap.create().expect("memory");
    let mut numbers = HeapVec::new_in(&heap);
    let push = || {
        // Many times what the limit holds, should there be none.
        for number in 0..1 << 20 {
            numbers.push(number);
        }
    };
    let stopped = catch_unwind(AssertUnwindSafe(push)).expect_err("a panic");
    let words = stopped.downcast::<String>().expect("a message");
    assert!(
        words.contains("request 17") && words.contains("limit"),
        "{words}"
    );
    assert!(
        numbers
            .iter()
            .enumerate()
            .all(|(place, number)| place == *number)
    );
    assert!(Heap::fallibly(|| numbers.try_reserve(1 << 20)).is_err());
    let nested = || Heap::fallibly(|| panic!("of the program"));
    assert!(catch_unwind(nested).is_err());
    let reserve = || numbers.try_reserve(1 << 20);
    assert!(catch_unwind(AssertUnwindSafe(reserve)).is_err());
}

#[test]
fn a_heap_has_no_memory_of_a_kind_that_the_system_lacks() {
    let options = Heap::options();
    let kinds = [
        options.gigantic_pages(true).core_dumps(false),
        options.core_dumps(false),
        options.mergeable(true),
        options.node(Some(0)),
    ];
    for kind in kinds {
        match kind.create().map(drop) {
            // The kernel or the machine may lack it, too.
            Err(HeapError::Unsupported) => {}
            granted => assert!(ENGINE && granted.is_ok(), "{granted:?}"),
        }
    }
}

#[test]
fn blocks_of_a_heap_by_address_and_by_layout() {
    let mut heap = Heap::new().expect("memory");
    for align in [1, 16, 64, 4096] {
        for size in [0, 1, 100, 70_000] {
            for (later, fit) in [(2 * size, align), (size / 2, align), (3 * size, 1)] {
                let block = heap.raw_alloc_zeroed(size, align);
                assert!(!block.is_null() && block.addr().is_multiple_of(align));
                // SAFETY: live.
                assert!(unsafe { heap.raw_usable_size(block) } >= size.max(1));
                // SAFETY: at least so long, and zero.
                let bytes = unsafe { core::slice::from_raw_parts_mut(block, size) };
                assert!(bytes.iter().all(|byte| *byte == 0));
                bytes.fill(7);
                // In a list between others.
                let between = heap.raw_alloc(24, 8);
                // SAFETY: live, and the old address is not used again.
                let moved = unsafe { heap.raw_realloc(block, later, fit) };
                assert!(!moved.is_null() && moved.addr().is_multiple_of(fit));
                // SAFETY: live, and not used again.
                unsafe { heap.raw_free(between) };
                // SAFETY: at least so long, and written.
                let bytes = unsafe { core::slice::from_raw_parts(moved, size.min(later)) };
                assert!(bytes.iter().all(|byte| *byte == 7));
                assert_eq!(heap.stats().blocks, 1);
                assert_eq!(heap.verify(), Ok(()));
                // SAFETY: live, and not used again.
                unsafe { heap.raw_free(moved) };
            }
        }
    }
    // SAFETY: null.
    unsafe { heap.raw_free(core::ptr::null_mut()) };
    assert!(heap.raw_alloc(usize::MAX, 16).is_null());
    assert_eq!(heap.stats().blocks, 0);
    assert_eq!(heap.verify(), Ok(()));

    // Alignments that grow and shrink with a block.
    let (low, high) = (Layout::new::<[u8; 40]>(), Layout::from_size_align(96, 64));
    let high = high.expect("a layout");
    let block = (&heap).allocate_zeroed(low).expect("memory").cast::<u8>();
    // SAFETY: of this layout, and the old address is not used again.
    let grown = unsafe { (&heap).grow_zeroed(block, low, high) }.expect("memory");
    assert!(grown.len() >= 96 && grown.addr().get().is_multiple_of(64));
    // SAFETY: so long, and zero.
    assert!(unsafe { grown.as_ref() }.iter().all(|byte| *byte == 0));
    // SAFETY: of this layout, and the old address is not used again.
    let shrunk = unsafe { (&heap).shrink(grown.cast(), high, low) }.expect("memory");
    assert!(shrunk.len() >= 40);
    // SAFETY: of this layout, and not used again.
    unsafe { (&heap).deallocate(shrunk.cast(), low) };
    // No bytes are no block.
    let nothing = (&heap)
        .allocate(Layout::new::<[u64; 0]>())
        .expect("nothing");
    assert!(nothing.is_empty() && heap.stats().blocks == 0);
    assert_eq!(heap.verify(), Ok(()));
}
