//! The process forks while another thread stands inside a critical section.

use core::sync::atomic::{AtomicUsize, Ordering};

use flagstone::Flagstone;
use flagstone::failpoints::Point;

use super::actor::{Props, Scene, perform};
use super::child::{alone, expect_panics, fork};
use super::estate::{Estate, LEFT, MAGAZINES, SLAB, leave_one_of_each, take_two_of_each};
use crate::ALLOC;
use crate::common::block::Block;
use crate::common::process::{begin, verify};
use crate::common::raw_thread::on_raw_thread;

/// Together they pass every point, on every way there is.
const SCENES: [Scene; 8] = [
    small, medium, spans, large, many_large, purge, ticks, leaving,
];

/// Refills, and flushes by a full magazine.
fn small(props: &Props) {
    (0..600).for_each(|_| props.alloc(48));
    props.free_all();
}

/// New slabs, and slabs that go back.
fn medium(props: &Props) {
    (0..100).for_each(|_| props.alloc(20_000));
    props.free_all();
}

fn spans(props: &Props) {
    (0..30).for_each(|_| props.alloc(400_000));
    props.free_all();
}

fn large(props: &Props) {
    for size in [2 << 20, 5 << 20, 20 << 20] {
        props.alloc(size);
        props.realloc(0, size + (1 << 20));
        props.realloc(0, size / 2);
    }
    props.free_all();
}

/// More mappings at a time than ever before: tables for them have to be made.
fn many_large(props: &Props) {
    static MOST: AtomicUsize = AtomicUsize::new(500);
    let count = MOST.fetch_add(50, Ordering::Relaxed);
    (0..count).for_each(|_| props.alloc((1 << 20) + 1));
    props.free_all();
}

/// Something of everything to purge.
fn purge(props: &Props) {
    (0..300).for_each(|_| props.alloc(1_000));
    (0..10).for_each(|_| props.alloc(500_000));
    (0..4).for_each(|_| props.alloc(2 << 20));
    (0..150).for_each(|place| props.free(place));
    (0..7).for_each(|_| props.free(157));
    // A thread that ends leaves its blocks to the next.
    on_raw_thread(&mut (), |()| {
        let blocks = [(); 100].map(|()| Block::filled(&ALLOC, 3_000, 8, 0));
        blocks.into_iter().for_each(|block| block.free(&ALLOC));
    });
    Flagstone::purge();
    props.free_all();
    Flagstone::purge();
}

/// Enough slow paths that magazines are looked at which nothing uses any more.
fn ticks(props: &Props) {
    (0..100).for_each(|_| props.alloc(3_000));
    props.free_all();
    // More than a magazine holds.
    for _ in 0..100 {
        (0..20).for_each(|_| props.alloc(60_000));
        props.free_all();
    }
}

/// Full magazines at the thread's end.
fn leaving(props: &Props) {
    for size in [16, 100, 1_000, 4_000, 6_000, 8_000, 12_000, 14_000, 20_000] {
        (0..100).for_each(|_| props.alloc(size));
        props.free_all();
    }
}

/// In a process without the threads of other tests: what a child loses of them is not counted here.
fn expect_recovery(point: Point) {
    expect_recovery_in(&SCENES, point);
}

fn expect_recovery_in(scenes: &[Scene], point: Point) {
    let _turn = begin();
    expect_panics();
    alone(|| {
        let mut estate = Estate::new();
        let mut stops = 0;
        for scene in scenes {
            let props = Props::new();
            stops += perform(*scene, &props, Some(point), || {
                fork(|| {
                    let (blocks, in_hand) = props.inherit();
                    estate.examine(blocks, MAGAZINES + SLAB + in_hand);
                })
            });
            props.free_all();
        }
        assert!(stops > 0, "no thread came to {point:?}");
        estate.settle();
    });
}

#[test]
fn a_thread_at_its_gate() {
    expect_recovery(Point::Gate);
}

/// A thread that the child has started asks for all gates before the one that forked came by.
#[test]
fn a_thread_at_its_gate_beside_a_new_one() {
    let _turn = begin();
    expect_panics();
    alone(|| {
        let mut estate = Estate::new();
        let props = Props::new();
        let stops = perform(small, &props, Some(Point::Gate), || {
            fork(|| {
                on_raw_thread(&mut (), |()| verify());
                let (blocks, in_hand) = props.inherit();
                estate.examine(blocks, MAGAZINES + SLAB + in_hand);
            })
        });
        assert!(stops > 0, "no thread came to its gate");
        props.free_all();
        estate.settle();
    });
}

#[test]
fn a_thread_that_refills() {
    expect_recovery(Point::Refill);
}

#[test]
fn a_thread_that_flushes() {
    expect_recovery(Point::Flush);
}

#[test]
fn a_thread_that_claims_units() {
    expect_recovery(Point::Claim);
}

#[test]
fn a_thread_that_releases_units() {
    expect_recovery(Point::Release);
}

/// Its child purges, too, and meets nobody who was met.
#[test]
fn a_thread_that_holds_others_off() {
    expect_recovery(Point::Hold);
    expect_recovery(Point::LetGo);
}

#[test]
fn a_thread_that_purges_holes() {
    expect_recovery(Point::Holes);
}

#[test]
fn a_thread_that_purges_units() {
    expect_recovery(Point::Purge);
}

/// More than there is, whatever other tests left.
fn grows(props: &Props) {
    Flagstone::purge();
    (0..1_200).for_each(|_| props.alloc(60_000));
    props.free_all();
}

#[test]
fn a_thread_that_reserves_addresses() {
    expect_recovery_in(&[grows], Point::Reserve);
}

#[test]
fn a_thread_at_its_stock_of_spans() {
    // With safeguards there are none.
    if std::env::var_os("FLAGSTONE_HARDENED").is_some() {
        return;
    }
    expect_recovery(Point::Stock);
}

#[test]
fn a_thread_in_the_table_of_mappings() {
    expect_recovery(Point::Large);
}

#[test]
fn a_thread_that_registers() {
    expect_recovery(Point::Registry);
}

#[test]
fn a_thread_that_makes_tables() {
    expect_recovery(Point::Meta);
}

fn empties_what_another_left(_: &Props) {
    leave_one_of_each();
    Flagstone::purge();
}

#[test]
fn a_thread_that_empties_what_another_left() {
    // With safeguards nothing is left.
    if std::env::var_os("FLAGSTONE_HARDENED").is_some() {
        return;
    }
    let _turn = begin();
    expect_panics();
    alone(|| {
        let mut estate = Estate::new();
        let props = Props::new();
        let stops = perform(
            empties_what_another_left,
            &props,
            Some(Point::Flush),
            || {
                fork(|| {
                    take_two_of_each();
                    let (blocks, in_hand) = props.inherit();
                    estate.examine(blocks, MAGAZINES + SLAB + in_hand);
                })
            },
        );
        assert!(stops >= LEFT.len(), "nothing was left");
        estate.settle();
    });
}
