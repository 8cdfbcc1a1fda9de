//! Without this, blocks that change threads could leak, be handed out twice or lose their contents.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
mod common;

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Barrier;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use common::block::Block;
use common::child::alone;
use common::process::{begin, expect_flat, live, stats};
use flagstone::Flagstone;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

/// A block on its way to another thread, and the tag of its contents.
type Parcel = (Block, usize);

/// Waits until the threads are gone, not only done: what they keep is given back, or parked, as they exit.
fn join<T>(threads: Vec<JoinHandle<T>>) -> Vec<T> {
    threads
        .into_iter()
        .map(|thread| thread.join().expect("the thread did not panic"))
        .collect()
}

fn parcel(rng: &mut SmallRng, max_bits: u32) -> Parcel {
    let low = 1_usize << rng.random_range(0..=max_bits);
    let align = 1 << rng.random_range(0..=6);
    let tag = rng.random_range(0..1_000_000);
    (
        Block::filled(&ALLOC, rng.random_range(low..low * 2), align, tag),
        tag,
    )
}

fn open((block, tag): Parcel) {
    block.check(tag);
    block.free(&ALLOC);
}

/// Four threads in a circle: each allocates for the next and frees what the one before allocated.
#[test]
fn blocks_freed_by_another_thread() {
    const THREADS: u64 = 4;
    const PARCELS: usize = 10_000;
    fn member(seed: u64, next: &Sender<Parcel>, mine: &Receiver<Parcel>) {
        let mut rng = SmallRng::seed_from_u64(seed);
        for _ in 0..PARCELS {
            next.send(parcel(&mut rng, 11))
                .expect("the next thread listens");
            mine.try_iter().for_each(open);
        }
    }
    let _turn = begin();
    expect_flat(|| {
        let (mut senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| channel()).unzip();
        senders.rotate_left(1);
        let members = senders.into_iter().zip(receivers).zip(0..);
        let threads = members.map(|((next, mine), seed)| {
            thread::spawn(move || {
                member(seed, &next, &mine);
                drop(next);
                mine.iter().for_each(open);
            })
        });
        join(threads.collect());
    });
}

/// One thread only allocates and one only frees, with few blocks between them.
#[test]
fn a_producer_and_a_consumer() {
    const PARCELS: usize = 60_000;
    let _turn = begin();
    expect_flat(|| {
        let (to, from) = sync_channel::<Parcel>(64);
        let producer = thread::spawn(move || {
            let mut rng = SmallRng::seed_from_u64(1);
            for _ in 0..PARCELS {
                to.send(parcel(&mut rng, 8)).expect("the consumer listens");
            }
        });
        let consumer = thread::spawn(move || from.into_iter().map(open).count());
        join(vec![producer]);
        assert_eq!(join(vec![consumer]), [PARCELS]);
    });
}

/// A consumer of larger blocks, up to those that have a mapping of their own.
#[test]
fn a_producer_and_a_consumer_of_large_blocks() {
    const PARCELS: usize = 300;
    let _turn = begin();
    expect_flat(|| {
        let (to, from) = sync_channel::<Parcel>(8);
        let producer = thread::spawn(move || {
            let mut rng = SmallRng::seed_from_u64(2);
            for _ in 0..PARCELS {
                to.send(parcel(&mut rng, 20)).expect("the consumer listens");
            }
        });
        let consumer = thread::spawn(move || from.into_iter().map(open).count());
        join(vec![producer]);
        assert_eq!(join(vec![consumer]), [PARCELS]);
    });
}

/// Threads that live for a few allocations only; half of the blocks outlive them.
#[test]
fn short_threads_with_survivors() {
    const THREADS: u64 = 1_200;
    const AT_A_TIME: usize = 8;
    const BLOCKS: usize = 40;
    fn short(seed: u64) -> Vec<Parcel> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut parcels: Vec<_> = (0..BLOCKS).map(|_| parcel(&mut rng, 12)).collect();
        parcels.drain(..BLOCKS / 2).for_each(open);
        parcels
    }
    let _turn = begin();
    expect_flat(|| {
        let mut survivors = Vec::new();
        let seeds: Vec<u64> = (0..THREADS).collect();
        for seeds in seeds.chunks(AT_A_TIME) {
            let threads = seeds.iter().map(|&seed| thread::spawn(move || short(seed)));
            survivors.extend(join(threads.collect()).into_iter().flatten());
            // The survivors of the thread before are freed by a later one, not all by this one.
            if survivors.len() > 4 * AT_A_TIME * BLOCKS {
                let old: Vec<_> = survivors.drain(..survivors.len() / 2).collect();
                join(vec![thread::spawn(move || old.into_iter().for_each(open))]);
            }
        }
        survivors.into_iter().for_each(open);
    });
}

/// Every thread reallocates its blocks up and down, across all kinds of sizes.
#[test]
fn growing_and_shrinking() {
    const THREADS: u64 = 4;
    const BLOCKS: usize = 16;
    const STEPS: usize = 600;
    fn work(seed: u64) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut parcels: Vec<_> = (0..BLOCKS).map(|_| parcel(&mut rng, 10)).collect();
        for _ in 0..STEPS {
            let (block, tag) = parcels.swap_remove(rng.random_range(0..parcels.len()));
            block.check(tag);
            let old = block.size();
            let low = 1 << rng.random_range(0..=19);
            let block = block
                .realloc(&ALLOC, rng.random_range(low..low * 2))
                .expect("memory");
            assert!(
                block.is_aligned(),
                "{:?} at {:#x}",
                block.layout(),
                block.addr()
            );
            assert!(
                block.holds(tag, old.min(block.size())),
                "the contents did not come along"
            );
            block.fill(tag);
            parcels.push((block, tag));
        }
        parcels.into_iter().for_each(open);
    }
    let _turn = begin();
    expect_flat(|| {
        join(
            (0..THREADS)
                .map(|seed| thread::spawn(move || work(seed)))
                .collect(),
        );
    });
}

/// The pattern of a server: each thread replaces random blocks and then hands all of them to a new
/// thread, so that most blocks are freed by a thread that did not allocate them.
#[test]
fn random_replacement_over_generations() {
    const LINES: u64 = 4;
    const GENERATIONS: u64 = 8;
    const BLOCKS: usize = 500;
    const REPLACEMENTS: usize = 2_000;
    fn generation(seed: u64, mut parcels: Vec<Parcel>) -> Vec<Parcel> {
        let mut rng = SmallRng::seed_from_u64(seed);
        for _ in 0..REPLACEMENTS {
            let i = rng.random_range(0..BLOCKS);
            open(core::mem::replace(&mut parcels[i], parcel(&mut rng, 9)));
        }
        parcels
    }
    let _turn = begin();
    expect_flat(|| {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut lines: Vec<Vec<Parcel>> = (0..LINES)
            .map(|_| (0..BLOCKS).map(|_| parcel(&mut rng, 9)).collect())
            .collect();
        for seed in 0..GENERATIONS {
            let threads = lines.drain(..).zip(0..);
            let threads = threads.map(|(line, number)| {
                thread::spawn(move || generation(seed * LINES + number, line))
            });
            lines = join(threads.collect());
        }
        lines.into_iter().flatten().for_each(open);
    });
}

/// What a thread gives back as it ends, while it is being counted, is neither live nor cached twice.
#[test]
fn live_bytes_are_counted_while_threads_end() {
    const HELD: usize = 1 << 20;
    const THREADS: usize = 300;
    // More than these threads, the harness's and std have at any moment.
    const ELSE: usize = 4 << 20;
    /// Leaves the thread with full magazines.
    fn churn() {
        for size in [64, 1_000, 8_000, 30_000] {
            let blocks: Vec<_> = (0..(200 << 10) / size)
                .map(|tag| Block::filled(&ALLOC, size, 8, tag))
                .collect();
            blocks.into_iter().for_each(|block| block.free(&ALLOC));
        }
    }
    let _turn = begin();
    let held = Block::filled(&ALLOC, HELD, 8, 1);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..THREADS {
                let thread = thread::spawn(churn);
                thread.join().expect("the thread did not panic");
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let live = live();
            assert!((HELD..HELD + ELSE).contains(&live), "{live} bytes live");
        }
    });
    held.free(&ALLOC);
}

/// But for blocks that share cache lines, see the test of gifts.
#[test]
fn the_next_thread_finds_what_the_last_one_left() {
    const SIZE: usize = 200;
    const BLOCKS: usize = 100;
    // With safeguards nothing is left: what was freed is not to be handed out soon.
    if std::env::var_os("FLAGSTONE_HARDENED").is_some() {
        return;
    }
    let _turn = begin();
    // Threads of other tests would leave theirs, too.
    alone("the_next_thread_finds_what_the_last_one_left", &[], || {
        let some_blocks = || -> Vec<usize> {
            let blocks: Vec<_> = (0..BLOCKS)
                .map(|tag| Block::filled(&ALLOC, SIZE, 8, tag))
                .collect();
            let addresses = blocks.iter().map(Block::addr).collect();
            blocks.into_iter().for_each(|block| block.free(&ALLOC));
            addresses
        };
        let on_a_thread = || {
            let thread = thread::spawn(some_blocks);
            thread.join().expect("the thread did not panic")
        };
        let cached = || stats().cached;
        Flagstone::purge();
        let before = cached();
        let left = on_a_thread();
        assert!(cached() > before + BLOCKS / 2 * SIZE);
        common::process::verify();
        let found = on_a_thread();
        let again = found.iter().filter(|block| left.contains(block)).count();
        assert!(again > BLOCKS / 2, "{again} of {BLOCKS}");
        // A child of a fork has it, too, and gives it back.
        // SAFETY: the child calls the allocator only, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            Flagstone::purge();
            let is_back = cached() < before + SIZE && Flagstone::verify().is_ok();
            // SAFETY: ends the child at once, which is what is wanted.
            unsafe { libc::_exit(i32::from(!is_back)) };
        }
        let mut status = 0;
        // SAFETY: `status` is writable.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "the child failed");
        Flagstone::purge();
        assert!(cached() < before + SIZE);
    });
}

#[test]
fn few_of_many_threads_leave_something() {
    let _turn = begin();
    alone("few_of_many_threads_leave_something", &[], || {
        let most = thread::available_parallelism().map_or(1, usize::from) * 2;
        let threads = most * 8;
        // All there at the same time, or one would take over what another has left.
        let together = std::sync::Arc::new(Barrier::new(threads));
        let leaves = move || {
            let blocks = [(); 10].map(|()| Block::filled(&ALLOC, 3000, 8, 1));
            together.wait();
            blocks.into_iter().for_each(|block| block.free(&ALLOC));
            together.wait();
        };
        Flagstone::purge();
        let before = stats().cached;
        join(
            (0..threads)
                .map(|_| thread::spawn(leaves.clone()))
                .collect(),
        );
        let left = stats().cached.saturating_sub(before);
        // std's threads have some blocks of their own.
        assert!(left < (most + 1) * 48_000, "{left} bytes are left");
    });
}

/// What a thread is given and frees shares a cache line with others' blocks, most likely. What it allocates after
/// that, if it had no such block before, does not (false sharing, after Berger and others, 2000). Safeguards hand
/// out blocks at random.
#[test]
fn a_gift_is_not_handed_out_where_it_was_freed() {
    const THREADS: usize = 8;
    // A class that std's threads have no use for.
    const SIZE: usize = 56;
    if std::env::var_os("FLAGSTONE_HARDENED").is_some() {
        return;
    }
    let _turn = begin();
    let small = || Block::filled(&ALLOC, SIZE, 8, 0);
    // Their caches will be those of the threads below.
    let earlier = |_| {
        thread::spawn(move || {
            let blocks: Vec<_> = (0..100).map(|_| small()).collect();
            blocks.into_iter().for_each(|block| block.free(&ALLOC));
        })
    };
    join((0..THREADS).map(earlier).collect());
    let gifts: Vec<_> = (0..THREADS).map(|_| small()).collect();
    let (freed, done) = (Barrier::new(THREADS), Barrier::new(THREADS));
    let (freed, done) = (&freed, &done);
    let mut lines = thread::scope(|scope| {
        let threads = gifts.into_iter().map(|gift| {
            scope.spawn(move || {
                gift.free(&ALLOC);
                freed.wait();
                let own = small();
                let lines = [own.addr() / 64, (own.addr() + SIZE - 1) / 64];
                done.wait();
                own.free(&ALLOC);
                lines
            })
        });
        let threads: Vec<_> = threads.collect();
        let lines = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        lines.collect::<Vec<_>>()
    });
    lines.sort_unstable();
    let are_apart = |pair: &[[usize; 2]]| pair[0][1] < pair[1][0];
    assert!(lines.windows(2).all(are_apart), "{lines:?}");
}

#[test]
fn again_hardened() {
    common::child::again_hardened("again_hardened");
}
