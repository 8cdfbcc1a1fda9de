//! What a child does to repair itself follows what was under way in its parent, not what its parent held: counted in
//! steps, not in time.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use flagstone::Flagstone;
use flagstone::failpoints::{Point, take_steps};

use super::actor::{Props, perform};
use super::child::{alone, expect_panics, fork};
use super::crew::Crew;
use super::{ALLOC, fill_magazines};
use crate::common::block::Block;
use crate::common::process::{begin, stats, verify};

/// Blocks that one slow path may move, and each class once or twice.
const AT_ONCE: usize = 2048;
const FEW: usize = 1000;
/// Most bytes in a magazine.
const MAGAZINE: usize = 512 << 10;

/// A word that children write to.
fn shared() -> &'static AtomicUsize {
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_ANONYMOUS,
    );
    #[expect(clippy::disallowed_methods, reason = "memory that a child shares")]
    // SAFETY: a fresh mapping.
    let page = unsafe { libc::mmap(core::ptr::null_mut(), 4096, protection, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED, "mmap refused");
    let page = NonNull::new(page).expect("not null").cast::<AtomicUsize>();
    // SAFETY: zeroed, aligned to a page, never unmapped.
    unsafe { page.as_ref() }
}

/// Takes a slow path, for good: blocks of this length are reached by the gate alone.
fn take_slow_path() {
    // A mapping, which no thread keeps at hand.
    let _lost = Block::filled(&ALLOC, (1 << 20) + 1, 8, 0);
}

/// Blocks, spans and mappings: 4 MiB of each, so many times.
fn hold(times: usize) -> Vec<Block> {
    let sizes = [1_000, 60_000, 500_000, 4 << 20];
    let blocks = sizes.into_iter().flat_map(|size| {
        (0..times * (4 << 20) / size).map(move |_| Block::filled(&ALLOC, size, 8, size))
    });
    blocks.collect()
}

#[test]
fn the_first_slow_path_does_not_follow_the_heap() {
    let _turn = begin();
    expect_panics();
    alone(|| {
        let steps = shared();
        let first_slow_path = || {
            take_steps();
            fork(|| {
                take_slow_path();
                steps.store(take_steps(), Ordering::Relaxed);
                verify();
            })
            .expect_fine();
            steps.load(Ordering::Relaxed)
        };
        // What the harness's threads have left.
        let _ = stats();
        take_slow_path();
        let little = hold(1);
        let at_first = first_slow_path();
        assert!((1..FEW).contains(&at_first), "{at_first} steps");
        let much = hold(8);
        assert_eq!(first_slow_path(), at_first);
        little
            .into_iter()
            .chain(much)
            .for_each(|block| block.free(&ALLOC));
    });
}

#[test]
fn a_purge_under_way_is_ended_alone() {
    let _turn = begin();
    expect_panics();
    alone(|| {
        let steps = shared();
        let _ = stats();
        let mut at_first = None;
        let mut blocks = Vec::new();
        for times in [1, 8] {
            blocks.extend(hold(times));
            let props = Props::new();
            let stops = perform(free_and_purge, &props, Some(Point::Purge), || {
                fork(|| {
                    take_steps();
                    take_slow_path();
                    steps.store(take_steps(), Ordering::Relaxed);
                    verify();
                })
            });
            assert!(stops > 0, "nothing was purged");
            let steps = steps.load(Ordering::Relaxed);
            let at_first = *at_first.get_or_insert(steps);
            assert!(steps < at_first + FEW, "{steps} steps, at first {at_first}");
        }
        blocks.into_iter().for_each(|block| block.free(&ALLOC));
    });
}

fn free_and_purge(props: &Props) {
    (0..100).for_each(|_| props.alloc(60_000));
    props.free_all();
    Flagstone::purge();
}

#[test]
fn what_threads_held_comes_back_in_parts() {
    const THREADS: usize = 8;
    // With safeguards a call looks several times.
    if std::env::var_os("FLAGSTONE_HARDENED").is_some() {
        return;
    }
    let _turn = begin();
    expect_panics();
    alone(|| {
        Flagstone::purge();
        let own = stats().cached;
        let crew = Crew::<THREADS>::gather(fill_magazines);
        let all = stats().cached;
        assert!(all > own + 2 * MAGAZINE, "{all} bytes in magazines");
        let ended = fork(|| {
            let (mut parts, mut all) = (0, 0);
            // Else it never ends.
            while parts < 100 {
                take_steps();
                take_slow_path();
                let steps = take_steps();
                // The first repairs, too.
                assert!(steps < AT_ONCE + FEW, "{steps} steps");
                if steps == 0 {
                    break;
                }
                (parts, all) = (parts + 1, all + steps);
            }
            assert!(
                parts > 1 && all > 2 * AT_ONCE,
                "{all} steps in {parts} parts"
            );
            let after = stats();
            assert_eq!(take_steps(), 0);
            // The blocks of the slow paths.
            assert!(after.cached <= own + MAGAZINE, "{after:?}, own {own}");
            verify();
        });
        crew.dismiss();
        ended.expect_fine();
    });
}
