//! Without this, memcheck could find nothing in programs that use the allocator: the arguments name a
//! mistake and the size of the block in which it is made. `.ci/valgrind` runs it.

use core::hint::black_box;
use std::env;
use std::process;
use std::thread;

use flagstone::Flagstone;

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

fn main() {
    let mut arguments = env::args().skip(1);
    let mistake = arguments.next().unwrap_or_default();
    let size = arguments.next().unwrap_or_default();
    let size: usize = size.parse().expect("the size of a block");
    let block = vec![1_u8; size];
    match mistake.as_str() {
        "none" => no_mistake(block),
        "after-free" => read_after_free(block),
        "after-growth" => read_after_growth(block),
        "overflow" => write_past_the_end(block),
        "uninitialised" => decide_by_an_unwritten_byte(size),
        "leak" => leak(block),
        _ => process::exit(2),
    }
}

/// Everything that programs do, also between threads and in reused memory.
fn no_mistake(block: Vec<u8>) {
    let size = block.len();
    let other = thread::spawn(move || {
        let zeroed = vec![0_u8; size];
        assert!(zeroed.iter().all(|byte| *byte == 0) && block.iter().all(|byte| *byte == 1));
        (block, zeroed)
    });
    let (mut block, zeroed) = other.join().expect("the thread did not panic");
    block.extend_from_slice(&zeroed);
    block.shrink_to(size / 2);
    assert_eq!(block.iter().filter(|byte| **byte == 1).count(), size);
    drop((block, zeroed));
    let many: Vec<Vec<u8>> = (0..100).map(|number| vec![number; size]).collect();
    Flagstone::purge();
    assert!(Flagstone::stats().is_some_and(|stats| stats.live >= 100 * size));
    assert!(Flagstone::verify().is_ok());
    assert!(
        many.iter()
            .zip(0..)
            .all(|(block, number)| block[size - 1] == number)
    );
}

fn read_after_free(block: Vec<u8>) {
    let place = block.as_ptr();
    drop(block);
    // SAFETY: none, this is the mistake.
    black_box(unsafe { place.read_volatile() });
}

fn read_after_growth(mut block: Vec<u8>) {
    let place = block.as_ptr();
    block.reserve_exact(1);
    // SAFETY: none, this is the mistake.
    black_box(unsafe { place.read_volatile() });
}

fn write_past_the_end(mut block: Vec<u8>) {
    let length = block.len();
    // SAFETY: none, this is the mistake.
    unsafe { block.as_mut_ptr().wrapping_add(length).write_volatile(1) };
}

fn decide_by_an_unwritten_byte(size: usize) {
    let block = Vec::<u8>::with_capacity(size);
    // SAFETY: none, this is the mistake.
    if unsafe { block.as_ptr().wrapping_add(size - 1).read_volatile() } == 7 {
        black_box(());
    }
}

fn leak(block: Vec<u8>) {
    black_box(block.leak().len());
}
