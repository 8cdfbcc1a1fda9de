//! How many slow paths it takes until the pages between survivors are back, without a clock.

use core::sync::atomic::{AtomicUsize, Ordering};

use flagstone::failpoints::{self, Callback, Point};
use flagstone::{Flagstone, raw};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::blocks::Blocks;
use crate::common::block;
use crate::common::child::alone;
use crate::common::process::{expect_grown, resident, verify, without_huge_pages};
use crate::{ALLOC, MIB, NEVER};

/// Slow paths; slabs purged since the last one; and the most of those.
static SLOW: AtomicUsize = AtomicUsize::new(0);
static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

static COUNT: Callback = |point| match point {
    Point::Gate => {
        SLOW.fetch_add(1, Ordering::Relaxed);
        NOW.store(0, Ordering::Relaxed);
    }
    Point::Holes => {
        MOST.fetch_max(NOW.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
    _ => {}
};

/// Takes `count` slow paths while everything is due at once.
fn take_slow_paths(count: usize) {
    let delay = |ms| raw::set_option("FLAGSTONE_PURGE_DELAY_MS", ms).expect("an option");
    SLOW.store(0, Ordering::Relaxed);
    MOST.store(0, Ordering::Relaxed);
    failpoints::at_points(Some(&COUNT));
    delay(b"0");
    while SLOW.load(Ordering::Relaxed) < count {
        block::take_slow_paths(&ALLOC);
    }
    delay(NEVER.1.as_bytes());
    failpoints::at_points(None);
}

/// Without this, a big heap of which little is used stays in memory for minutes, or one call of the
/// program pays for all of it.
#[test]
fn holes_go_back_in_proportion() {
    /// Slow paths of a thread until it looks, and what each that goes on looks at or purges.
    const TICK: usize = 256;
    const STEPS: usize = 64;
    alone("pace::holes_go_back_in_proportion", &[NEVER], || {
        without_huge_pages();
        let mut blocks = Blocks::with_room(1_200_000);
        let mut rng = SmallRng::seed_from_u64(11);
        for total in [32 * MIB, 256 * MIB] {
            let before = resident();
            blocks.fill(&mut rng, 16..513, total);
            expect_grown(before, total);
            blocks.retain(|| rng.random_ratio(1, 64));
            // Each unit is looked at twice and purged; and some slow paths for empty classes.
            take_slow_paths(TICK + 3 * (total >> 16) / STEPS + 50);
            let at_once = MOST.load(Ordering::Relaxed);
            assert!((1..=STEPS).contains(&at_once), "{at_once} slabs at once");
            let (after, pages) = (resident(), blocks.page_bytes());
            let bound = pages + pages / 10 + 8 * MIB;
            let grown = after.saturating_sub(before);
            assert!(grown <= bound, "{grown} bytes for {pages} bytes of pages");
            blocks.check();
            verify();
            blocks.free_all();
            Flagstone::purge();
        }
    });
}
