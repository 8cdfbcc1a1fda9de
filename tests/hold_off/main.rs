//! Without this, a purge could take memory that another thread is using, or leave what sleeping threads keep.

#[expect(dead_code, reason = "shared with the tests of purges")]
#[path = "../purge/blocks.rs"]
mod blocks;
#[expect(dead_code, reason = "each test uses a part of what the tests share")]
#[path = "../common/mod.rs"]
mod common;
mod hammer;
mod sleepers;
mod stop;

use core::sync::atomic::{AtomicUsize, Ordering};

use blocks::Blocks;
use common::block::Block;
use common::child::{alone, is_again};
use common::process::{
    expect_back, expect_grown, live, resident, stats, verify, without_huge_pages,
};
use common::raw_thread::on_raw_thread;
use flagstone::failpoints::{self, Callback, Point};
use flagstone::{Background, Config, Flagstone};
use hammer::while_hammering;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use sleepers::{
    CACHED, FEW, SLEEPERS, Sizes, Sleeper, all_sizes, cached_sizes, expect_few_pinned, pinned,
    with_sleepers,
};
use stop::purge_while_stopped;

#[global_allocator]
static ALLOC: Flagstone = Flagstone::with_config(Config::new().background(Background::Off));

const MIB: usize = 1 << 20;
/// The variable that has everything due at once, so that no test waits for a clock.
const AT_ONCE: (&str, &str) = ("FLAGSTONE_PURGE_DELAY_MS", "0");
/// The variable that has nothing due during a test.
const NEVER: (&str, &str) = ("FLAGSTONE_PURGE_DELAY_MS", "4000000000");

#[test]
fn memory_of_sleeping_threads_goes_back() {
    alone("memory_of_sleeping_threads_goes_back", &[NEVER], || {
        without_huge_pages();
        let (before, live_before) = (resident(), live());
        let stages: [fn(&mut Sleeper); 3] = [
            |sleeper| sleeper.alloc(CACHED),
            Sleeper::free,
            |sleeper| {
                sleeper.alloc(CACHED);
                sleeper.free();
            },
        ];
        with_sleepers(&stages, |stage, sleepers| {
            verify();
            if stage == 2 {
                let cached = stats().cached;
                assert!(
                    cached > SLEEPERS * MIB / 4,
                    "only {cached} bytes are cached"
                );
                expect_grown(before, SLEEPERS * MIB);
                Flagstone::purge();
                // Stacks and what the sleepers hold themselves come on top.
                expect_back(before, 2 * MIB);
                expect_few_pinned(sleepers, cached_sizes());
                verify();
            }
        });
        Flagstone::purge();
        expect_back(before, 2 * MIB);
        assert_eq!(live(), live_before);
        verify();
    });
}

/// A purge that finds blocks in use, or in a magazine, must not make the next one pass them over.
#[test]
fn memory_of_sleeping_threads_goes_back_every_time() {
    alone(
        "memory_of_sleeping_threads_goes_back_every_time",
        &[NEVER],
        || {
            without_huge_pages();
            let stages: [fn(&mut Sleeper); 4] = [
                |sleeper| sleeper.alloc(CACHED),
                Sleeper::free,
                // These come from magazines and go back there: no slab hears of them.
                |sleeper| sleeper.alloc(FEW),
                Sleeper::free,
            ];
            with_sleepers(&stages, |stage, sleepers| {
                Flagstone::purge();
                if stage.is_multiple_of(2) {
                    expect_few_pinned(sleepers, cached_sizes());
                }
                verify();
            });
        },
    );
}

/// Whether threads are held off, slabs that were purged meanwhile, most of them at a time, and times.
static HELD: AtomicUsize = AtomicUsize::new(0);
static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
static HOLDS: AtomicUsize = AtomicUsize::new(0);

static COUNT: Callback = |point| match point {
    Point::Hold => {
        HELD.store(1, Ordering::Relaxed);
        NOW.store(0, Ordering::Relaxed);
    }
    Point::LetGo => HELD.store(0, Ordering::Relaxed),
    Point::Holes if HELD.load(Ordering::Relaxed) != 0 => {
        let now = NOW.fetch_add(1, Ordering::Relaxed) + 1;
        MOST.fetch_max(now, Ordering::Relaxed);
        HOLDS.fetch_add(usize::from(now == 1), Ordering::Relaxed);
    }
    _ => {}
};

/// A purge; at how many times threads were held off meanwhile, and the most slabs that were purged at one of them.
fn purge_and_count() -> (usize, usize) {
    for count in [&HELD, &NOW, &MOST, &HOLDS] {
        count.store(0, Ordering::Relaxed);
    }
    failpoints::at_points(Some(&COUNT));
    Flagstone::purge();
    failpoints::at_points(None);
    (HOLDS.load(Ordering::Relaxed), MOST.load(Ordering::Relaxed))
}

/// Nobody waits for the whole of a big heap, nor because of threads that have done nothing since the last purge.
#[test]
fn threads_are_held_off_in_parts() {
    const SLICE: usize = 64;
    /// Some of several classes, together more slabs than a slice has.
    const MANY: Sizes = &[
        (448, 1_000),
        (512, 900),
        (640, 700),
        (768, 600),
        (896, 500),
        (1_024, 450),
    ];
    // Those of a hardened process are elsewhere.
    if is_again() {
        return;
    }
    let much = ("FLAGSTONE_THREAD_CACHE", "32M");
    alone("threads_are_held_off_in_parts", &[NEVER, much], || {
        let stages: [fn(&mut Sleeper); 2] = [
            |sleeper| {
                // Until magazines have grown.
                for _ in 0..12 {
                    sleeper.alloc(MANY);
                    sleeper.free();
                }
            },
            |sleeper| {
                sleeper.alloc(FEW);
                sleeper.free();
            },
        ];
        with_sleepers(&stages, |stage, _| {
            let (holds, most) = purge_and_count();
            assert!(most <= SLICE, "{most} slabs at a time");
            let least = if stage == 1 { 2 } else { 1 };
            assert!(holds >= least, "{holds} times");
            // Nobody has done anything since.
            let (holds, most) = purge_and_count();
            assert_eq!((holds, most), (0, 0));
            verify();
        });
    });
}

/// What [`Flagstone::purge`] promises for threads that used every size class.
#[test]
fn memory_of_sleeping_threads_goes_back_in_all_sizes() {
    alone(
        "memory_of_sleeping_threads_goes_back_in_all_sizes",
        &[NEVER],
        || {
            without_huge_pages();
            let use_all: fn(&mut Sleeper) = |sleeper| {
                for size in all_sizes() {
                    sleeper.alloc(&[(size, 6)]);
                    sleeper.free();
                }
            };
            with_sleepers(&[use_all], |_, sleepers| {
                Flagstone::purge();
                let pinned = pinned(sleepers);
                assert!(
                    pinned <= SLEEPERS * MIB,
                    "{SLEEPERS} threads pin {pinned} bytes"
                );
                verify();
            });
        },
    );
}

/// The other threads keep popping and pushing while a purge takes the pages under their free blocks:
/// this is the test of holding threads off.
#[test]
fn blocks_in_use_survive_purges() {
    alone("blocks_in_use_survive_purges", &[NEVER], || {
        while_hammering(10, 1, verify);
        let live_before = live();
        let (mut purges, mut bytes) = (0_usize, 0);
        while_hammering(6_000, 200, || {
            bytes += Flagstone::purge();
            purges += 1;
            if purges.is_multiple_of(16) {
                verify();
            }
        });
        assert!(bytes > 0, "{purges} purges gave nothing back");
        assert_eq!(live(), live_before);
        verify();
    });
}

/// A thread that is held off may end the one operation that it was in: here it is stopped at any place,
/// and ends it while the purge is under way.
#[test]
fn an_operation_in_flight_survives_a_purge() {
    alone("an_operation_in_flight_survives_a_purge", &[NEVER], || {
        let bytes = purge_while_stopped(1_000);
        assert!(bytes > 0, "nothing was given back");
        verify();
    });
}

/// The same while every thread sweeps on its own, as nothing may stay free for long.
#[test]
fn blocks_in_use_survive_sweeps() {
    alone("blocks_in_use_survive_sweeps", &[AT_ONCE], || {
        while_hammering(10, 1, verify);
        let live_before = live();
        let mut rng = SmallRng::seed_from_u64(3);
        let mut survivors = Blocks::with_room(300_000);
        survivors.fill(&mut rng, 16..513, 16 * MIB);
        survivors.retain(|| rng.random_ratio(1, 20));
        while_hammering(6_000, 200, || {
            survivors.check();
            verify();
        });
        survivors.free_all();
        drop(survivors);
        assert_eq!(live(), live_before);
        verify();
    });
}

/// A thread that uses nothing but spans was held off: it finds its stock again.
#[test]
fn a_thread_of_spans_comes_back() {
    static STOCKED: AtomicUsize = AtomicUsize::new(0);
    static COUNT: Callback = |point| {
        if point == Point::Stock {
            STOCKED.fetch_add(1, Ordering::Relaxed);
        }
    };
    // With safeguards there are no stocks.
    if std::env::var_os("FLAGSTONE_HARDENED").is_some() {
        return;
    }
    alone("a_thread_of_spans_comes_back", &[NEVER], || {
        let pair = || Block::filled(&ALLOC, 130_000, 8, 1).free(&ALLOC);
        (0..3).for_each(|_| pair());
        // Without a call to the allocator here.
        on_raw_thread(&mut (), |()| {
            Flagstone::purge();
        });
        failpoints::at_points(Some(&COUNT));
        (0..10).for_each(|_| pair());
        failpoints::at_points(None);
        let stocked = STOCKED.load(Ordering::Relaxed);
        assert!(stocked > 10, "{stocked} of 20");
        verify();
    });
}
