//! Without this, threads that sleep would keep as much as those at work, or have those at work keep next to nothing.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
mod common;

use std::sync::{Barrier, Condvar, Mutex};
use std::thread;

use common::block::Block;
use common::child::alone;
use common::process::{begin, stats};
use flagstone::Flagstone;

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

/// With safeguards blocks wait in quarantine, too.
fn is_hardened() -> bool {
    std::env::var_os("FLAGSTONE_HARDENED").is_some()
}

/// One thread may keep 4 MiB, but four that are at work in turn on each processor no more than 1 MiB each, and a block of
/// each size.
#[test]
fn many_threads_share_what_one_may_keep() {
    const EACH: usize = 1 << 20;
    const TURNS: usize = 24;
    fn churn(turn: usize) {
        for size in (1..32).map(|kib| kib << 10) {
            let blocks: Vec<_> = (0..1 + (512 << 10) / size)
                .map(|tag| Block::filled(&ALLOC, size, 8, tag + turn))
                .collect();
            blocks.into_iter().for_each(|block| block.free(&ALLOC));
        }
    }
    let _turn = begin();
    if is_hardened() {
        return;
    }
    let threads = 4 * thread::available_parallelism().map_or(1, usize::from);
    let done = Barrier::new(threads + 1);
    let (turn, next) = (Mutex::new(0), Condvar::new());
    let in_turn = |number: usize| {
        for round in 0..TURNS {
            let turn = turn.lock().expect("no panic");
            let is_not_mine = |turn: &mut usize| *turn != round * threads + number;
            let mut turn = next.wait_while(turn, is_not_mine).expect("no panic");
            churn(round);
            *turn += 1;
            next.notify_all();
        }
        done.wait();
        done.wait();
    };
    let before = stats().cached;
    let kept = thread::scope(|scope| {
        let in_turn = &in_turn;
        (0..threads).for_each(|number| drop(scope.spawn(move || in_turn(number))));
        done.wait();
        let kept = stats().cached.saturating_sub(before);
        done.wait();
        kept
    });
    let least = threads * EACH / 4;
    assert!(
        (least..threads * EACH * 3 / 2).contains(&kept),
        "{kept} bytes"
    );
}

/// Threads that sleep keep what the process may, not each what one may.
#[test]
fn sleeping_threads_share_what_the_process_may_keep() {
    const NAME: &str = "sleeping_threads_share_what_the_process_may_keep";
    const THREADS: usize = 200;
    /// As the option says; and what a thread keeps in any case.
    const ONE: usize = 1 << 20;
    const FLOOR: usize = 16 << 10;
    /// Sizes of classes, of each of which a thread keeps a block in any case.
    const SIZES: [usize; 6] = [64, 512, 1024, 2048, 4096, 8192];
    const EACH: usize = 64 << 10;
    if is_hardened() {
        return;
    }
    fn fill() {
        for _ in 0..3 {
            for size in SIZES {
                let blocks: Vec<_> = (0..EACH / size)
                    .map(|tag| Block::filled(&ALLOC, size, 8, tag))
                    .collect();
                blocks.into_iter().for_each(|block| block.free(&ALLOC));
            }
        }
    }
    alone(NAME, &[("FLAGSTONE_THREAD_CACHE", "1M")], || {
        let (turn, done) = (Mutex::new(()), Barrier::new(THREADS + 1));
        let sleeps = || {
            {
                // One after the other, so that each finds what those before it hold.
                let _turn = turn.lock().expect("no panic");
                fill();
            }
            done.wait();
            done.wait();
        };
        let goes_on = || {
            {
                let _turn = turn.lock().expect("no panic");
                fill();
            }
            done.wait();
            let before = stats();
            // What is at hand differs from tick to tick: nothing goes because it is not used.
            for turn in 0..560 {
                let taken: Vec<_> = SIZES
                    .into_iter()
                    .flat_map(|size| core::iter::repeat_n(size, 1 + turn % 7))
                    .map(|size| Block::filled(&ALLOC, size, 8, 0))
                    .collect();
                common::block::take_slow_paths(&ALLOC);
                taken.into_iter().for_each(|block| block.free(&ALLOC));
            }
            let after = stats();
            done.wait();
            (before, after)
        };
        let (before, after) = thread::scope(|scope| {
            let first = scope.spawn(goes_on);
            // It has its turn before the others.
            while stats().cached < SIZES.len() * EACH / 2 {
                thread::yield_now();
            }
            (0..THREADS).for_each(|_| drop(scope.spawn(sleeps)));
            first.join().expect("no panic")
        });
        let (kept, used) = (before.cached, before.committed);
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let newest = SIZES.iter().sum::<usize>() * 2;
        let most = 2 * (ONE * processors).max(used / 8) + (THREADS + 2) * (FLOOR + newest);
        assert!(kept <= most, "{kept} bytes, at most {most} expected");
        // Not for want of what to keep.
        assert!(kept >= ONE, "{kept} bytes");
        let less = kept.saturating_sub(after.cached);
        assert!(less >= EACH, "{less} bytes less");
    });
}

/// A thread at work beside threads that did little and sleep keeps a good part of what one may: it shares that with
/// nobody, and what they hold is too much for others like them only.
#[test]
fn a_thread_at_work_shares_with_none_that_sleeps() {
    const NAME: &str = "a_thread_at_work_shares_with_none_that_sleeps";
    const ONE: usize = 1 << 20;
    const SIZE: usize = 512;
    if is_hardened() {
        return;
    }
    alone(NAME, &[("FLAGSTONE_THREAD_CACHE", "1M")], || {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let threads = 50 * processors.min(16);
        let done = Barrier::new(threads + 1);
        let sleeps = || {
            // More magazines than all threads may have, and less than those at work may have besides.
            for size in (1..=16).map(|step| step * 64) {
                let blocks: Vec<_> = (0..8)
                    .map(|tag| Block::filled(&ALLOC, size, 8, tag))
                    .collect();
                blocks.into_iter().for_each(|block| block.free(&ALLOC));
            }
            done.wait();
            done.wait();
        };
        let kept = thread::scope(|scope| {
            (0..threads).for_each(|_| drop(scope.spawn(sleeps)));
            done.wait();
            let before = stats().cached;
            for _ in 0..200 {
                let blocks: Vec<_> = (0..ONE / SIZE)
                    .map(|tag| Block::filled(&ALLOC, SIZE, 8, tag))
                    .collect();
                blocks.into_iter().for_each(|block| block.free(&ALLOC));
            }
            let kept = stats().cached.saturating_sub(before);
            done.wait();
            kept
        });
        assert!(kept >= ONE / 4, "{kept} bytes");
    });
}

#[test]
fn again_hardened() {
    common::child::again_hardened("again_hardened");
}
