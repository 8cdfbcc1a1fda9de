//! The process forks while its threads are busy, wherever they are.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::child::{expect_panics, fork};
use super::estate::{Estate, MAGAZINES, SLAB};
use crate::ALLOC;
use crate::common::child::one_in;
use crate::common::process::begin;
use crate::common::raw_thread::on_raw_thread;

const THREADS: usize = 4;
/// Operations of a thread before another takes its place.
const LIFE: usize = 300;

/// What the threads exchange.
static PARCELS: [AtomicPtr<Head>; 256] = [const { AtomicPtr::new(ptr::null_mut()) }; 256];
/// Bytes of blocks that are neither there nor free.
static IN_HAND: AtomicUsize = AtomicUsize::new(0);
static STOPS: AtomicBool = AtomicBool::new(false);

/// The first words of a parcel.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Head {
    size: usize,
    address: usize,
}

/// A block that tells its size and whether it is whole, from one word to the next thread.
struct Parcel(NonNull<Head>);

impl Parcel {
    fn new(size: usize) -> Self {
        // SAFETY: the size is not zero.
        let block = unsafe { ALLOC.alloc(layout(size)) };
        Self::label(block, size)
    }

    /// Labels a block of this size.
    fn label(block: *mut u8, size: usize) -> Self {
        let head = NonNull::new(block.cast::<Head>()).expect("memory");
        let address = block.addr();
        // SAFETY: a block holds a head, and is aligned for it.
        unsafe { head.write(Head { size, address }) };
        // SAFETY: inside the block.
        let last = unsafe { block.add(size - 1) };
        // The head may be as long as the block, which then has no byte to spare for an end.
        if size > size_of::<Head>() {
            // SAFETY: the last byte, behind the head.
            unsafe { last.write(7) };
        }
        Self(head)
    }

    /// The size, once the block was found to be whole.
    fn size(&self) -> usize {
        // SAFETY: the block is live and was labelled.
        let Head { size, address } = unsafe { self.0.read() };
        assert_eq!(address, self.0.addr().get(), "a parcel lost its label");
        let end = self.0.cast::<u8>();
        // SAFETY: inside the block.
        let last = unsafe { end.add(size - 1) };
        // SAFETY: inside the block.
        let last = unsafe { last.read() };
        assert!(
            last == 7 || size == size_of::<Head>(),
            "a parcel lost its end"
        );
        size
    }

    fn resize(self, new: usize) -> Self {
        let size = self.size();
        // SAFETY: the block is live, this is its layout, and the size is valid.
        let block = unsafe { ALLOC.realloc(self.0.as_ptr().cast(), layout(size), new) };
        let head = block.cast::<Head>();
        assert!(!head.is_null(), "memory");
        // SAFETY: the head came along.
        let moved = unsafe { head.read() };
        assert_eq!(moved.size, size, "the contents did not come along");
        Self::label(block, new)
    }

    fn free(self) {
        let size = self.size();
        // SAFETY: the block is live, this is its layout, and `self` ends here.
        unsafe { ALLOC.dealloc(self.0.as_ptr().cast(), layout(size)) };
    }

    /// Puts the parcel in a place and takes what was there.
    fn exchange(place: usize, new: Option<Self>) -> Option<Self> {
        let new = new.map_or(ptr::null_mut(), |parcel| parcel.0.as_ptr());
        NonNull::new(PARCELS[place].swap(new, Ordering::AcqRel)).map(Self)
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, align_of::<Head>()).expect("a valid layout")
}

fn some_size(rng: &mut SmallRng) -> usize {
    match rng.random_range(0..200) {
        0 => rng.random_range(1 << 20..3 << 20),
        1..4 => rng.random_range(200_000..600_000),
        _ => {
            let low = 1 << rng.random_range(4..13);
            rng.random_range(low..low * 2)
        }
    }
}

/// The life of a thread.
fn live_a_while(rng: &mut SmallRng) {
    for _ in 0..LIFE {
        let size = some_size(rng);
        IN_HAND.fetch_add(size, Ordering::Relaxed);
        let new = Parcel::new(size);
        let old = Parcel::exchange(rng.random_range(0..PARCELS.len()), Some(new));
        let mut in_hand = size;
        if let Some(old) = old {
            let size = old.size();
            IN_HAND.fetch_add(size, Ordering::Relaxed);
            in_hand += size;
            old.free();
        }
        IN_HAND.fetch_sub(in_hand, Ordering::Relaxed);
    }
}

/// Threads that allocate, free, exchange blocks, end and begin.
pub(crate) struct Busy(Vec<JoinHandle<()>>);

impl Busy {
    pub(crate) fn start() -> Self {
        STOPS.store(false, Ordering::Relaxed);
        let line = |seed| {
            let mut rng = SmallRng::seed_from_u64(seed);
            while !STOPS.load(Ordering::Relaxed) {
                on_raw_thread(&mut rng, live_a_while);
            }
        };
        let lines = (0..THREADS as u64).map(|seed| thread::spawn(move || line(seed)));
        Self(lines.collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        STOPS.store(true, Ordering::Relaxed);
        for line in self.0.drain(..) {
            line.join().expect("no panic");
        }
        for place in 0..PARCELS.len() {
            Parcel::exchange(place, None)
                .into_iter()
                .for_each(Parcel::free);
        }
    }
}

/// The child of a process with busy threads: frees a part of what they had and changes the rest, uses
/// the allocator, and then finds the rest whole.
fn inherit(estate: &mut Estate) {
    let in_hand = IN_HAND.load(Ordering::Relaxed);
    let mut rng = SmallRng::seed_from_u64(9);
    let mut kept = 0;
    for place in 0..PARCELS.len() {
        let Some(parcel) = Parcel::exchange(place, None) else {
            continue;
        };
        if rng.random_bool(0.5) {
            parcel.free();
            continue;
        }
        let size = some_size(&mut rng);
        kept += size;
        Parcel::exchange(place, Some(parcel.resize(size)));
    }
    // A block is at most a quarter longer than asked for, and a little.
    let lost = THREADS * (MAGAZINES + SLAB) + in_hand * 5 / 4;
    estate.examine(Vec::new(), lost + kept * 5 / 4 + PARCELS.len() * 64);
    for place in 0..PARCELS.len() {
        Parcel::exchange(place, None)
            .into_iter()
            .for_each(Parcel::free);
    }
    estate.expect_all_but(lost);
}

#[test]
fn threads_may_be_anywhere() {
    let rounds = 150 / one_in(3, 6);
    let _turn = begin();
    expect_panics();
    let mut estate = Estate::new();
    let busy = Busy::start();
    for _ in 0..rounds {
        fork(|| inherit(&mut estate)).expect_fine();
    }
    drop(busy);
    estate.settle();
}
