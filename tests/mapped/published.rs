//! Processes that are killed at random under load: what they had published stays as it was, and each kill loses the one
//! block at most that its process had in hand.

use core::alloc::Layout;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use std::{env, thread};

use flagstone::Handle;
use flagstone::allocator_api2::alloc::Allocator;
use flagstone::allocator_api2::boxed::Box;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::children::{end_of, start};
use crate::common::process::begin;
use crate::kinds::{Kind, of_each};

const WORKERS: usize = 4;
/// Blocks that can be published at once.
const PLACES: usize = 2_000;

const SIZES: [usize; 10] = [
    16, 40, 64, 130, 500, 1_200, 5_000, 30_000, 100_000, 1_200_000,
];

/// What lies in the heap for all.
struct Board {
    /// Published blocks: the address, and above it which size; 0 is none. Who takes one has it to himself.
    places: [AtomicU64; PLACES],
    workers: [Worker; WORKERS],
}

#[derive(Default)]
struct Worker {
    steps: AtomicUsize,
    /// One more than which size the block has that is in hand: allocated and not yet published, or taken and not yet
    /// freed.
    in_hand: AtomicUsize,
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

/// The words of a block that tell which one it is: those of its ends, and all of a short one's.
fn marks(block: NonNull<u8>, which: usize) -> impl Iterator<Item = NonNull<u64>> {
    let words = SIZES[which] / 8;
    let step = if words > 200 { words - 1 } else { 1 };
    // SAFETY: inside the block.
    (0..words)
        .step_by(step)
        .map(move |word| unsafe { block.cast::<u64>().add(word) })
}

fn mark(block: NonNull<u8>, which: usize) -> u64 {
    block.addr().get() as u64 ^ ((which as u64) << 56)
}

fn published(block: NonNull<u8>, which: usize) -> u64 {
    block.expose_provenance().get() as u64 | ((which as u64) << 48)
}

/// The block of a place, which is as it was when it was published.
fn block_of(word: u64) -> (NonNull<u8>, usize) {
    let which = usize::try_from(word >> 48).expect("few");
    let address = usize::try_from(word & ((1 << 48) - 1)).expect("64 bits");
    let block = NonNull::new(ptr::with_exposed_provenance_mut(address)).expect("a block");
    for word in marks(block, which) {
        // SAFETY: the block is the caller's, or nobody changes it.
        let found = unsafe { word.read() };
        assert_eq!(found, mark(block, which), "a block changed");
    }
    (block, which)
}

fn free(handle: Handle, (block, which): (NonNull<u8>, usize)) {
    // SAFETY: taken from the board, and not used any more.
    unsafe { handle.deallocate(block, layout(SIZES[which])) };
}

/// Publishes blocks, takes them back and frees them, its own and others', until it is killed.
fn work(handle: Handle, board: &Board, own: &Worker, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    loop {
        own.steps.fetch_add(1, Ordering::Relaxed);
        let place = &board.places[random.random_range(0..PLACES)];
        let word = place.load(Ordering::Acquire);
        if word == 0 {
            // Long ones are seldom.
            let which = random
                .random_range(0..SIZES.len())
                .min(random.random_range(0..SIZES.len()));
            own.in_hand.store(which + 1, Ordering::Relaxed);
            if let Ok(block) = handle.allocate(layout(SIZES[which])) {
                let block = block.cast::<u8>();
                for word in marks(block, which) {
                    // SAFETY: the block is ours.
                    unsafe { word.write(mark(block, which)) };
                }
                let (new, fail) = (published(block, which), Ordering::Relaxed);
                if place
                    .compare_exchange(0, new, Ordering::Release, fail)
                    .is_err()
                {
                    free(handle, (block, which));
                }
            }
        } else {
            let which = usize::try_from(word >> 48).expect("few");
            own.in_hand.store(which + 1, Ordering::Relaxed);
            let taken = place.compare_exchange(word, 0, Ordering::Acquire, Ordering::Relaxed);
            if taken.is_ok() {
                free(handle, block_of(word));
            }
        }
        own.in_hand.store(0, Ordering::Relaxed);
    }
}

fn length(handle: Handle, size: usize) -> usize {
    let found = handle.allocate(layout(size)).expect("room");
    // SAFETY: just allocated.
    unsafe { handle.deallocate(found.cast(), layout(size)) };
    found.len()
}

fn kill_workers(kind: &Kind, kills: usize) {
    let heap = (kind.create)(1 << 30).expect("a heap");
    let handle = heap.handle();
    let board: &Board = Box::leak(Box::new_in(
        Board {
            places: [const { AtomicU64::new(0) }; PLACES],
            workers: Default::default(),
        },
        handle,
    ));
    let own = heap.stats().live;
    let lengths = SIZES.map(|size| length(handle, size));
    let worker = |place: usize, seed: usize| {
        start(|| work(handle, board, &board.workers[place], seed as u64))
    };
    let mut workers: [_; WORKERS] = core::array::from_fn(|place| worker(place, place));
    let mut random = SmallRng::seed_from_u64(11);
    let (mut most, mut in_hand) = (0, 0);
    let mut kill = |workers: &[libc::pid_t], place: usize| {
        // SAFETY: our own child, not yet waited for.
        assert_eq!(unsafe { libc::kill(workers[place], libc::SIGKILL) }, 0);
        assert_eq!(end_of(workers[place]) & 0x7f, libc::SIGKILL);
        if let Some(which) = board.workers[place]
            .in_hand
            .swap(0, Ordering::Relaxed)
            .checked_sub(1)
        {
            in_hand += 1;
            most += lengths[which];
        }
    };
    for number in 0..kills {
        thread::sleep(Duration::from_micros(random.random_range(50..3_000)));
        let place = random.random_range(0..WORKERS);
        kill(&workers, place);
        workers[place] = worker(place, WORKERS + number);
        if number % 20 == 0 {
            // SAFETY: `alarm` has no preconditions.
            unsafe { libc::alarm(600) };
            // All are at work.
            for worker in &board.workers {
                let before = worker.steps.load(Ordering::Relaxed);
                while worker.steps.load(Ordering::Relaxed) < before + 100 {
                    thread::yield_now();
                }
            }
            heap.verify().expect("a sound heap");
        }
    }
    (0..WORKERS).for_each(|place| kill(&workers, place));
    heap.verify().expect("a sound heap");
    // What is published is as it was, and all else is free, but for what was in hand.
    let words: Vec<_> = board
        .places
        .iter()
        .map(|place| place.swap(0, Ordering::Acquire))
        .collect();
    let blocks: Vec<_> = words
        .iter()
        .filter(|word| **word != 0)
        .map(|word| block_of(*word))
        .collect();
    let left: usize = blocks.iter().map(|(_, which)| lengths[*which]).sum();
    let live = heap.stats().live - own;
    assert!(
        (left..=left + most).contains(&live),
        "{live} bytes, {left} of them published, {most} in hand"
    );
    let count = blocks.len();
    blocks.into_iter().for_each(|block| free(handle, block));
    heap.verify().expect("a sound heap");
    let stats = heap.stats();
    assert_eq!((stats.live - own, stats.refused), (live - left, 0));
    println!(
        "{}: {kills} kills, {in_hand} with a block in hand, {most} bytes; {} bytes lost; {count} blocks published",
        kind.name,
        live - left
    );
    // All that nobody has can be had.
    let units = (stats.capacity - stats.tables - stats.held) >> 16;
    let rest: Vec<_> = (0..units)
        .map_while(|_| handle.allocate(layout(1 << 16)).ok())
        .collect();
    assert_eq!(rest.len(), units);
    // SAFETY: all others are gone.
    unsafe { heap.close() }.expect("not closed yet");
}

#[test]
fn nothing_published_is_lost() {
    let _turn = begin();
    let kills = if env::var_os("TEST_LONG").is_some() {
        500
    } else {
        50
    };
    of_each(|kind| kill_workers(kind, kind.share(kills)));
}
