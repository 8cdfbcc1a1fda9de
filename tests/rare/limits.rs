//! Memory that is there and is nearly overlooked.

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::sync::Barrier;
use std::thread;

use flagstone::failpoints::{self, Callback, Point};
use flagstone::{Config, Flagstone, raw};

use super::common::child::{alone, run_child_with, scenario};
use super::common::process::{is_readable, mapped, page_size, stats, until_others_sleep};
use super::{get, go_to, put, step, until};

const MIB: usize = 1 << 20;

/// Holds the first thread that makes a chunk until the others sleep.
fn hold_the_maker(point: Point) {
    if point == Point::Reserve && step() == HERD {
        go_to(HERD + 1);
        until_others_sleep();
    }
}

/// Threads that need a chunk at the same time, each for a sixteenth of it.
const HERD: usize = 16;

/// One of the threads makes a chunk; the others wait for it and find room there.
#[test]
fn threads_in_need_of_a_chunk_share_it() {
    static HOLD: Callback = hold_the_maker;
    const SIZE: usize = 200_000;
    alone("limits::threads_in_need_of_a_chunk_share_it", &[], || {
        failpoints::at_points(Some(&HOLD));
        let before = AtomicUsize::new(0);
        let (begun, all) = (Barrier::new(HERD), Barrier::new(HERD));
        thread::scope(|scope| {
            for _ in 0..HERD {
                scope.spawn(|| {
                    // The thread has its cache, and a chunk for small blocks is there.
                    put(get(100), 100);
                    if begun.wait().is_leader() {
                        before.store(stats().committed, Ordering::Relaxed);
                        go_to(HERD);
                    }
                    all.wait();
                    let block = get(SIZE);
                    assert!(!block.is_null());
                    // Who has a block sleeps, too, until all have one.
                    all.wait();
                    put(block, SIZE);
                });
            }
        });
        failpoints::at_points(None);
        assert_eq!(step(), HERD + 1, "nobody made a chunk");
        let made = stats().committed - before.into_inner();
        assert_eq!(made, 4 * MIB, "one chunk");
    });
}

/// Addresses for chunks go by what the heap has, not by all that ever came and went.
#[test]
fn addresses_do_not_pile_up() {
    alone("limits::addresses_do_not_pile_up", &[], || {
        // Before the first call.
        let before = mapped();
        for _ in 0..60 {
            let blocks = [(); 50].map(|()| get(MIB));
            blocks.iter().for_each(|block| put(*block, MIB));
            Flagstone::purge();
            let after = mapped();
            assert!(after <= before + 8 * MIB, "{before} then {after} bytes");
        }
    });
}

/// The first long block of a big heap takes addresses for itself, not for a part of the heap.
#[test]
fn the_first_of_a_kind_needs_few_addresses() {
    alone(
        "limits::the_first_of_a_kind_needs_few_addresses",
        &[],
        || {
            while stats().committed < 80 * MIB {
                assert!(!get(5_000).is_null());
            }
            let before = mapped();
            assert!(!get(200_000).is_null());
            let more = mapped() - before;
            assert!(more <= 5 * MIB, "{more} bytes");
        },
    );
}

/// A mapping that the kernel refuses to unmap does not keep others, and is tried again.
#[test]
fn one_refusal_keeps_nothing() {
    alone("limits::one_refusal_keeps_nothing", &[], || {
        for calls in 0.. {
            // Three to go back, and two live ones that keep them apart.
            let blocks = [(); 5].map(|()| get(2 * MIB));
            put(get(100), 100);
            Flagstone::purge();
            let full = stats().committed;
            blocks
                .iter()
                .step_by(2)
                .for_each(|block| put(*block, 2 * MIB));
            failpoints::refuse_after(calls, false);
            Flagstone::purge();
            let refused = failpoints::refuse_none();
            let left = stats().committed;
            assert_eq!(left + 3 * 2 * MIB, full, "after {calls} calls");
            blocks[1..4]
                .iter()
                .step_by(2)
                .for_each(|block| put(*block, 2 * MIB));
            Flagstone::verify().expect("a whole heap");
            if refused == 0 {
                assert!(calls > 3, "nothing to refuse");
                break;
            }
        }
    });
}

/// Without memory for a slab, blocks that another heap has free will do, however few, and whoever is at work there.
#[test]
fn the_last_blocks_are_found() {
    const SIZE: usize = 3072;
    static HOLDS: Callback = |point| {
        if point == Point::Refill && step() == 2 {
            go_to(3);
            until(4);
        }
    };
    for is_held in [false, true] {
        let name = "limits::the_last_blocks_are_found";
        if let Some(scenario) = scenario() {
            let is_held = scenario == "held";
            let other = thread::spawn(move || {
                // With a heap of its own, the class's slabs in the first one.
                put(get(100), 100);
                go_to(1);
                until(2);
                if is_held {
                    thread::scope(|scope| {
                        // The holder goes on while this thread waits for its lock.
                        let later = scope.spawn(|| {
                            until(3);
                            thread::sleep(Duration::from_millis(20));
                            go_to(4);
                        });
                        until(3);
                        let block = get(SIZE);
                        later.join().expect("no panic");
                        block.addr()
                    })
                } else {
                    let block = get(SIZE);
                    go_to(4);
                    block.addr()
                }
            });
            let blocks: Vec<_> = (0..210).map(|_| get(SIZE)).collect();
            // Few of them: less than a slab's worth.
            for block in blocks.iter().step_by(2).take(10) {
                put(*block, SIZE);
            }
            Flagstone::purge();
            until(1);
            failpoints::refuse_after(0, true);
            while !get(8192).is_null() {}
            if is_held {
                failpoints::at_points(Some(&HOLDS));
                go_to(2);
                assert!(!get(SIZE).is_null());
                failpoints::at_points(None);
            } else {
                go_to(2);
            }
            until(4);
            let found = other.join().expect("no panic");
            failpoints::refuse_none();
            assert_ne!(found, 0, "null beside free blocks");
            println!("found");
            return;
        }
        let scenario = if is_held { "held" } else { "few" };
        let exit = run_child_with::<&str>(name, scenario, &[]);
        let is_found = exit.code == Some(0) && exit.stdout.contains("found");
        assert!(is_found, "{scenario}: {exit:?}");
    }
}

/// A resize to nothing is one to the least, sampled or not.
#[test]
fn a_sampled_block_shrinks_to_nothing() {
    let options = [("FLAGSTONE_SAMPLE", "1")];
    alone(
        "limits::a_sampled_block_shrinks_to_nothing",
        &options,
        || {
            raw::begin();
            for _ in 0..64 {
                let block = raw::alloc(100, raw::ALIGN);
                // SAFETY: a live block of this module's.
                let moved = unsafe { raw::realloc(block, 0) };
                assert!(!moved.is_null());
                // SAFETY: the same.
                unsafe { raw::free(moved) };
            }
        },
    );
}

/// Without memory for a shorter block, the block itself will do.
#[test]
fn a_block_shrinks_without_memory() {
    alone("limits::a_block_shrinks_without_memory", &[], || {
        raw::begin();
        let block = raw::alloc(8192, raw::ALIGN);
        failpoints::refuse_after(0, true);
        while !raw::alloc(8192, raw::ALIGN).is_null() {}
        while !raw::alloc(100, raw::ALIGN).is_null() {}
        // SAFETY: a live block of this module's.
        let shorter = unsafe { raw::realloc(block, 100) };
        // SAFETY: the same; as long as it was if this fails.
        let longer = unsafe { raw::realloc(shorter, 20_000) };
        failpoints::refuse_none();
        assert!(!shorter.is_null());
        assert!(longer.is_null());
        // SAFETY: the same.
        unsafe { raw::free(shorter) };
        Flagstone::verify().expect("a whole heap");
    });
}

/// One line for a bad option, though the first call is repeated for want of memory.
#[test]
fn a_bad_option_is_named_once() {
    const NAME: &str = "limits::a_bad_option_is_named_once";
    if scenario().is_some() {
        failpoints::refuse_after(0, true);
        (0..5).for_each(|_| assert!(get(480).is_null()));
        failpoints::refuse_none();
        assert!(!get(480).is_null());
        return;
    }
    let exit = run_child_with(NAME, "", &[("FLAGSTONE_LARGE_CACHE", "bad")]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let lines = exit.stderr.lines();
    assert_eq!(
        lines.filter(|line| line.contains("bad")).count(),
        1,
        "{exit:?}"
    );
}

/// Of two allocators whose first calls meet, one decides what is sampled; the other changes nothing of it.
#[test]
fn one_of_two_decides() {
    static RARELY: Flagstone = Flagstone::with_config(Config::new().sample_one_in(1_000_000));
    // Where the first one makes its tables.
    static HOLDS: Callback = |point| {
        if point == Point::Meta && step() == 0 {
            go_to(1);
            until(2);
        }
    };
    alone("limits::one_of_two_decides", &[], || {
        failpoints::at_points(Some(&HOLDS));
        let layout = Layout::from_size_align(100, 8).expect("a layout");
        let first = thread::spawn(move || {
            // SAFETY: the size is not 0.
            let block = unsafe { RARELY.alloc(layout) };
            // SAFETY: allocated above.
            unsafe { RARELY.dealloc(block, layout) };
        });
        until(1);
        let second = thread::spawn(|| put(get(100), 100));
        // The second waits for the first one's lock by now, or soon.
        thread::sleep(Duration::from_millis(50));
        go_to(2);
        first.join().expect("no panic");
        second.join().expect("no panic");
        let blocks: Vec<_> = (0..1000).map(|_| get(100)).collect();
        let page = page_size();
        let is_sampled = |block: &&*mut u8| {
            let page_of = block.addr() / page * page;
            !is_readable(page_of - 1) && !is_readable(page_of + page)
        };
        let sampled = blocks.iter().filter(is_sampled).count();
        assert!(sampled < 10, "{sampled} of 1000 blocks");
        blocks.into_iter().for_each(|block| put(block, 100));
    });
}

/// Sampled blocks are live ones.
#[test]
fn sampled_blocks_are_counted() {
    let options = [("FLAGSTONE_SAMPLE", "1")];
    alone("limits::sampled_blocks_are_counted", &options, || {
        put(get(100), 100);
        let before = stats();
        let blocks: Vec<_> = (0..32).map(|_| get(4000)).collect();
        let stats = stats();
        assert!(
            stats.live >= before.live + 32 * 4000,
            "{before:?} {stats:?}"
        );
        assert!(stats.resident >= stats.live, "{stats:?}");
        blocks.iter().for_each(|block| put(*block, 4000));
        Flagstone::verify().expect("a whole heap");
    });
}

/// A process that may have few addresses, or locks them, needs few: a chunk, a region of tables, some pages.
fn begin_with_few_addresses(name: &str, hardened: &str) {
    const FEW: usize = 6 * MIB;
    alone(name, &[("FLAGSTONE_HARDENED", hardened)], || {
        let most = u64::try_from(mapped() + FEW).expect("a limit");
        let limit = libc::rlimit {
            rlim_cur: most,
            rlim_max: most,
        };
        // SAFETY: the limit is a valid, initialised value.
        let result = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
        assert_eq!(result, 0, "setrlimit refused");
        // The last but one wants a chunk that it does not share, and does with what there is.
        let blocks = [16, 100, 5_000, 50_000, 200_000].map(|size| (get(size), size));
        for (block, size) in blocks {
            assert!(!block.is_null(), "{size}");
            put(block, size);
        }
        Flagstone::verify().expect("a whole heap");
    });
}

#[test]
fn the_first_block_needs_few_addresses() {
    // Where the kernel begins differs from process to process.
    let runs = if scenario().is_some() { 1 } else { 8 };
    for _ in 0..runs {
        begin_with_few_addresses("limits::the_first_block_needs_few_addresses", "0");
    }
}

#[test]
fn hardened_the_first_block_needs_few_addresses() {
    begin_with_few_addresses("limits::hardened_the_first_block_needs_few_addresses", "1");
}
