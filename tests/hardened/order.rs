//! Which block comes next, and when a freed one comes back.

use super::common::child::{run_child_with, scenario};
use super::{ALLOC, Address, HARDENED, block};

const COUNT: usize = 64;

/// Distances between blocks allocated one after the other.
fn distances(size: usize) -> String {
    let blocks: Vec<_> = (0..COUNT).map(|_| block(size)).collect();
    let first = blocks[0].addr();
    let all: Vec<_> = blocks
        .iter()
        .map(|block| block.addr().wrapping_sub(first).cast_signed())
        .collect();
    blocks.into_iter().for_each(|block| block.free(&ALLOC));
    format!("{all:?}")
}

fn run(name: &str, safeguards: &str) -> String {
    let exit = run_child_with(name, "", &[(HARDENED, safeguards)]);
    let line = exit.stdout.lines().find(|line| line.contains("found: "));
    line.unwrap_or_else(|| panic!("{exit:?}")).to_owned()
}

/// The same program twice hands out the same order, unless that is to be random.
#[test]
fn the_order_differs_from_run_to_run() {
    const NAME: &str = "order::the_order_differs_from_run_to_run";
    if scenario().is_some() {
        println!("found: {} {}", distances(48), distances(2_000));
        return;
    }
    assert_ne!(run(NAME, "random"), run(NAME, "random"));
    assert_ne!(run(NAME, "1"), run(NAME, "1"));
}

/// How many blocks are allocated and freed before the address of a freed one comes back.
fn until_reuse(size: usize) -> usize {
    // So that the class has blocks to choose from, and blocks in quarantine.
    (0..100).for_each(|_| block(size).free(&ALLOC));
    let first = block(size);
    let address = first.addr();
    first.free(&ALLOC);
    let is_back = |_: &usize| {
        let next = Address::of(&block(size));
        next.free();
        next.0.addr() == address
    };
    (0..1_000).find(is_back).unwrap_or(1_000)
}

#[test]
fn freed_blocks_wait() {
    const NAME: &str = "order::freed_blocks_wait";
    if scenario().is_some() {
        let waits: Vec<_> = [16, 48, 1_000, 4_096, 40_000, 250_000, 300_000, 2 << 20]
            .map(|size| until_reuse(size).to_string())
            .into();
        println!("found: {}", waits.join(" "));
        return;
    }
    let waits = |safeguards| -> Vec<usize> {
        let line = run(NAME, safeguards);
        let (_, numbers) = line.split_once("found: ").expect("numbers");
        let numbers = numbers
            .split(' ')
            .map(|text| text.parse().expect("a number"));
        numbers.collect()
    };
    // The fast paths hand out what was freed last.
    assert!(waits("0")[..4].iter().all(|wait| *wait == 0));
    for safeguards in ["quarantine", "1"] {
        let waits = waits(safeguards);
        assert!(waits[..3].iter().all(|wait| *wait >= 15), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait >= 1), "{waits:?}");
    }
}
