//! Without this, freed memory could stay with the process, or a purge could take memory that is in use.

#[expect(dead_code, reason = "each test uses a part of what the tests share")]
#[path = "../common/mod.rs"]
mod common;

mod blocks;
mod pace;

use core::alloc::Layout;
use core::time::Duration;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use blocks::Blocks;

use common::block::Block;
use common::child::alone;
use common::process::{
    expect_back, expect_grown, live, resident, stats, verify, without_huge_pages,
};
use flagstone::failpoints::{self, Callback, Point};
use flagstone::{Background, Config, Flagstone};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

#[global_allocator]
static ALLOC: Flagstone = Flagstone::with_config(Config::new().background(Background::Off));

const MIB: usize = 1 << 20;
/// The variable that has everything due at once, so that no test waits for a clock.
const AT_ONCE: (&str, &str) = ("FLAGSTONE_PURGE_DELAY_MS", "0");
/// The variable that has nothing due during a test.
const NEVER: (&str, &str) = ("FLAGSTONE_PURGE_DELAY_MS", "4000000000");

fn alloc_zeroed(size: usize) -> Block {
    let layout = Layout::from_size_align(size, 8).expect("a valid layout");
    Block::alloc_zeroed(&ALLOC, layout).expect("memory")
}

#[test]
fn small_blocks_go_back() {
    alone("small_blocks_go_back", &[], || {
        without_huge_pages();
        let mut blocks = Blocks::with_room(600_000);
        let (before, live_before) = (resident(), live());
        let mut rng = SmallRng::seed_from_u64(1);
        blocks.fill(&mut rng, 16..513, 128 * MIB);
        expect_grown(before, 128 * MIB);
        blocks.free_all();
        Flagstone::purge();
        expect_back(before, 8 * MIB);
        assert_eq!(live(), live_before);
        verify();
    });
}

/// A program that frees nearly all of its heap and goes idle takes no slow path any more: what is
/// beyond the budget goes by the frees themselves.
fn free_and_go_idle(name: &str, size: usize) {
    const BUDGET: usize = 64 * MIB;
    alone(name, &[NEVER], move || {
        without_huge_pages();
        let before = resident();
        let blocks: Vec<_> = (0..256 * MIB / size)
            .map(|tag| Block::filled(&ALLOC, size, 8, tag))
            .collect();
        expect_grown(before, 200 * MIB);
        blocks.into_iter().for_each(|block| block.free(&ALLOC));
        let kept = resident().saturating_sub(before);
        assert!(kept <= BUDGET + 16 * MIB, "{} MiB", kept / MIB);
        verify();
    });
}

#[test]
fn an_idle_program_keeps_little_of_a_mapping() {
    free_and_go_idle("an_idle_program_keeps_little_of_a_mapping", 256 * MIB);
}

#[test]
fn an_idle_program_keeps_little_of_mappings() {
    free_and_go_idle("an_idle_program_keeps_little_of_mappings", 40 * MIB);
}

#[test]
fn an_idle_program_keeps_little_of_spans() {
    free_and_go_idle("an_idle_program_keeps_little_of_spans", 700_000);
}

/// After a peak, few blocks are left and lie everywhere: whole pages between them go back.
#[test]
fn pages_between_survivors_go_back() {
    alone("pages_between_survivors_go_back", &[], || {
        without_huge_pages();
        let mut blocks = Blocks::with_room(600_000);
        let before = resident();
        let mut rng = SmallRng::seed_from_u64(2);
        blocks.fill(&mut rng, 16..513, 128 * MIB);
        expect_grown(before, 128 * MIB);
        blocks.retain(|| rng.random_ratio(1, 20));
        Flagstone::purge();
        let after = resident();
        let pages = blocks.page_bytes();
        let bound = pages + pages / 10 + MIB;
        let grown = after.saturating_sub(before);
        assert!(grown <= bound, "{grown} bytes for {pages} bytes of pages");
        blocks.check();
        verify();
        // What was purged serves again, beside the survivors.
        let mut more = Blocks::with_room(200_000);
        more.fill(&mut rng, 16..513, 32 * MIB);
        blocks.check();
        more.free_all();
        blocks.free_all();
        Flagstone::purge();
        verify();
    });
}

#[test]
fn spans_and_mappings_go_back() {
    alone("spans_and_mappings_go_back", &[NEVER], || {
        without_huge_pages();
        let mut blocks = Blocks::with_room(1_000);
        for sizes in [300 << 10..MIB + 1, 2 * MIB..16 * MIB + 1] {
            Flagstone::purge();
            let (before, stats_before) = (resident(), stats());
            let mut rng = SmallRng::seed_from_u64(4);
            blocks.fill(&mut rng, sizes.clone(), 60 * MIB);
            expect_grown(before, 60 * MIB);
            blocks.free_all();
            Flagstone::purge();
            expect_back(before, MIB);
            let stats = stats();
            assert_eq!(stats.live, stats_before.live, "{sizes:?}");
            assert!(stats.committed <= stats_before.committed, "{stats:?}");
            assert!(stats.resident <= stats_before.resident + MIB, "{stats:?}");
            verify();
        }
    });
}

/// A chunk whose last span is freed while its other units are being purged.
#[test]
fn a_chunk_emptied_during_a_purge_goes_back() {
    const SIZE: usize = 300 << 10;
    static LAST: Mutex<Option<Block>> = Mutex::new(None);
    static FREE_LAST: Callback = |point| {
        if point == Point::Purge {
            let last = LAST.lock().expect("no panic under this lock").take();
            last.into_iter().for_each(|block| block.free(&ALLOC));
        }
    };
    alone(
        "a_chunk_emptied_during_a_purge_goes_back",
        &[AT_ONCE],
        || {
            let span = |tag| Block::filled(&ALLOC, SIZE, 8, tag);
            let committed = || stats().committed;
            let mut others = Vec::with_capacity(1_000);
            Flagstone::purge();
            let before = committed();
            while committed() == before {
                others.push(span(others.len()));
            }
            // These two are alone in a chunk.
            let first = others.pop().expect("a span in a new chunk");
            *LAST.lock().expect("no panic under this lock") = Some(span(0));
            others.drain(..).for_each(|block| block.free(&ALLOC));
            Flagstone::purge();
            let full = committed();
            failpoints::at_points(Some(&FREE_LAST));
            first.free(&ALLOC);
            failpoints::at_points(None);
            assert!(LAST.lock().expect("no panic under this lock").is_none());
            Flagstone::purge();
            assert_eq!(committed(), full - 4 * MIB);
            verify();
        },
    );
}

/// What is reported follows what happens, and a second purge finds nothing.
#[test]
fn reports_agree() {
    const CHUNK: usize = 4 * MIB;
    alone("reports_agree", &[NEVER], || {
        without_huge_pages();
        let mut blocks = Blocks::with_room(200_000);
        Flagstone::purge();
        let before = (resident(), stats());
        let mut rng = SmallRng::seed_from_u64(5);
        blocks.fill(&mut rng, 16..513, 32 * MIB);
        let full = (resident(), stats());
        let grown = full.0 - before.0;
        let reported = full.1.resident + full.1.metadata - before.1.resident - before.1.metadata;
        assert!(grown.abs_diff(reported) < MIB, "{before:?} {full:?}");
        assert!(full.1.live >= before.1.live + 32 * MIB, "{full:?}");
        assert!(
            full.1.committed >= before.1.committed + 32 * MIB,
            "{full:?}"
        );
        assert!(full.1.resident <= full.1.committed, "{full:?}");

        blocks.free_all();
        let purged = Flagstone::purge();
        let after = (resident(), stats());
        assert!(purged >= 32 * MIB, "only {purged} bytes went back");
        assert!(full.0 - after.0 >= 31 * MIB, "{full:?} {after:?}");
        assert!(
            full.1.resident - after.1.resident >= 31 * MIB,
            "{full:?} {after:?}"
        );
        let fallen = full.1.committed - after.1.committed;
        assert!(fallen >= 32 * MIB - 2 * CHUNK, "{full:?} {after:?}");
        assert_eq!(fallen % CHUNK, 0, "{full:?} {after:?}");
        assert_eq!(after.1.live, before.1.live);

        // What lies in magazines of the test harness may be given back every time.
        let again = Flagstone::purge();
        assert!(again < 2 * MIB, "a second purge gave {again} bytes back");
        assert_eq!(stats().committed, after.1.committed);
        verify();
    });
}

/// What a purge finds to be due goes with the first slab that it gives up, and counts.
#[test]
fn what_became_due_is_counted() {
    const SPANS: usize = 60;
    const SPAN: usize = 512 << 10;
    let delay = ("FLAGSTONE_PURGE_DELAY_MS", "1000");
    alone("what_became_due_is_counted", &[delay], || {
        // In a magazine until the purge.
        Block::filled(&ALLOC, 20_000, 8, 0).free(&ALLOC);
        let spans: Vec<_> = (0..SPANS)
            .map(|tag| Block::filled(&ALLOC, SPAN, 8, tag))
            .collect();
        spans.into_iter().for_each(|span| span.free(&ALLOC));
        thread::sleep(Duration::from_millis(1_100));
        let bytes = Flagstone::purge();
        assert!(bytes >= SPANS * SPAN, "{bytes} bytes given back");
    });
}

/// Memory that a purge gave back is zero, memory that the kernel did not take back is not.
#[test]
fn zeroed_memory_is_zero_after_purges() {
    const SIZES: [usize; 10] = [
        16,
        500,
        4_096,
        20_000,
        100_000,
        256 << 10,
        300_000,
        MIB,
        3 * MIB,
        9 * MIB,
    ];
    /// Kernel calls of a purge that pass before one or all are refused; the last refuses none.
    const PASS: [usize; 9] = [0, 1, 2, 3, 5, 8, 13, 30, usize::MAX];
    alone("zeroed_memory_is_zero_after_purges", &[NEVER], || {
        let mut blocks: Vec<Block> = Vec::with_capacity(1_000);
        let mut refused = 0;
        for (pass, forever) in PASS.iter().flat_map(|pass| [(*pass, false), (*pass, true)]) {
            for size in SIZES {
                let count = (MIB / size).clamp(2, 60);
                blocks.extend((0..count).map(|tag| Block::filled(&ALLOC, size, 8, tag)));
                // Neighbours stay, so that not whole slabs and chunks go.
                let kept = blocks.pop().expect("just made");
                blocks.drain(..).for_each(|block| block.free(&ALLOC));
                failpoints::refuse_after(pass, forever);
                Flagstone::purge();
                refused += failpoints::refuse_none();
                verify();
                blocks.extend((0..count).map(|_| alloc_zeroed(size)));
                for block in &blocks {
                    assert!(block.is_zero(), "{size} bytes after {pass} calls");
                    block.fill(1);
                }
                kept.check(count - 1);
                kept.free(&ALLOC);
                blocks.drain(..).for_each(|block| block.free(&ALLOC));
            }
        }
        assert!(refused > 0, "nothing was refused");
    });
}

/// The same where every free purges: what is refused then waits for the next time.
#[test]
fn zeroed_memory_is_zero_after_refused_frees() {
    alone(
        "zeroed_memory_is_zero_after_refused_frees",
        &[AT_ONCE],
        || {
            let mut refused = 0;
            for size in [100_000, 256 << 10, 300_000, 700_000, MIB, 3 * MIB, 9 * MIB] {
                for (pass, forever) in (0..6).flat_map(|pass| [(pass, false), (pass, true)]) {
                    let kept = Block::filled(&ALLOC, size, 8, 1);
                    let block = Block::filled(&ALLOC, size, 8, 2);
                    failpoints::refuse_after(pass, forever);
                    block.free(&ALLOC);
                    refused += failpoints::refuse_none();
                    let block = alloc_zeroed(size);
                    assert!(block.is_zero(), "{size} bytes after {pass} calls");
                    block.free(&ALLOC);
                    kept.check(1);
                    kept.free(&ALLOC);
                    verify();
                }
            }
            assert!(refused > 0, "nothing was refused");
        },
    );
}

/// Pages between survivors that the kernel refused to take back are offered again.
#[test]
fn refused_pages_go_back_the_next_time() {
    alone("refused_pages_go_back_the_next_time", &[NEVER], || {
        let mut blocks = Blocks::with_room(150_000);
        let mut rng = SmallRng::seed_from_u64(9);
        blocks.fill(&mut rng, 16..513, 32 * MIB);
        blocks.retain(|| rng.random_ratio(1, 100));
        failpoints::refuse_after(0, true);
        Flagstone::purge();
        assert!(failpoints::refuse_none() > 0, "nothing was refused");
        let bytes = Flagstone::purge();
        assert!(bytes > 16 * MIB, "only {bytes} bytes went back");
        blocks.check();
        blocks.free_all();
    });
}

/// The kernel must not fill purged holes to make huge pages of their surroundings.
#[test]
fn huge_pages_stay_out_of_holes() {
    alone("huge_pages_stay_out_of_holes", &[], || {
        if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return;
        }
        let mut blocks = Blocks::with_room(600_000);
        let mut rng = SmallRng::seed_from_u64(8);
        blocks.fill(&mut rng, 16..513, 128 * MIB);
        assert!(
            !blocks.are_all_in_mappings_with("nh"),
            "huge pages are out from the start"
        );
        blocks.retain(|| rng.random_ratio(1, 20));
        Flagstone::purge();
        assert!(
            blocks.are_all_in_mappings_with("nh"),
            "the kernel may still make huge pages"
        );
        blocks.free_all();
    });
}

/// With no delay, freed memory goes back without a call of `purge`.
#[test]
fn memory_decays() {
    alone("memory_decays", &[AT_ONCE], || {
        without_huge_pages();
        let mut blocks = Blocks::with_room(150_000);
        let mut rng = SmallRng::seed_from_u64(6);
        for sizes in [
            16..513,
            5_000..100_000,
            300 << 10..MIB + 1,
            2 * MIB..8 * MIB,
        ] {
            let before = resident();
            blocks.fill(&mut rng, sizes.clone(), 32 * MIB);
            // Some of it may be reuse of what the round before left.
            expect_grown(before, 24 * MIB);
            blocks.free_all();
            // The thread keeps a few blocks of each class, each class a slab.
            expect_back(before, 16 * MIB);
            if sizes.start > 256 << 10 {
                expect_back(before, MIB);
            }
            verify();
        }
    });
}

/// With no delay, free pages inside slabs go back as well, once a program goes on using the allocator.
#[test]
fn pages_between_survivors_decay() {
    const SLOW: usize = 60;
    alone("pages_between_survivors_decay", &[AT_ONCE], || {
        without_huge_pages();
        let mut blocks = Blocks::with_room(300_000);
        let mut burst = Blocks::with_room(4_000);
        let before = resident();
        let mut rng = SmallRng::seed_from_u64(7);
        blocks.fill(&mut rng, 16..513, 64 * MIB);
        expect_grown(before, 64 * MIB);
        blocks.retain(|| rng.random_ratio(1, 50));
        // More blocks than a magazine holds: slow paths, which is when the allocator looks around.
        for _ in 0..SLOW {
            burst.fill(&mut rng, 900..1_000, 3 * MIB);
            burst.free_all();
        }
        let after = resident();
        let pages = blocks.page_bytes();
        let bound = pages + pages / 10 + 8 * MIB;
        let grown = after.saturating_sub(before);
        assert!(grown <= bound, "{grown} bytes for {pages} bytes of pages");
        blocks.check();
        blocks.free_all();
        verify();
    });
}
