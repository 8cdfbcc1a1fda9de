//! Threads that allocate, free, hand blocks over, begin and end, while one purges, counts and verifies:
//! for the thread sanitizer, which tells what no lock or atomic orders.
//!
//! The sanitizer sees only code that was compiled for it. The standard library was not, so what it
//! orders would be reported: there is no `main`, threads are made by `pthread_create`, and blocks
//! change threads through atomics of this file.
#![no_main]

mod block;
mod heaps;

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use block::Block;
use flagstone::{Flagstone, Heap};

static ALLOCATOR: Flagstone = Flagstone::new();

/// Blocks between threads.
static MAIL: [AtomicPtr<u8>; 64] = [const { AtomicPtr::new(ptr::null_mut()) }; 64];
/// The heap that all threads share.
static HEAP: AtomicPtr<Heap> = AtomicPtr::new(ptr::null_mut());
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// Threads that are there from the beginning to the end, and the operations of each.
const LASTING: usize = 3;
const LASTING_STEPS: usize = 60_000;
/// Threads that come and go meanwhile, two at a time, and the operations of each.
const PASSING: usize = 120;
const PASSING_STEPS: usize = 200;
/// Blocks that a thread holds.
const HELD: usize = 48;

/// Numbers that look random (xorshift).
struct Random(u64);

impl Random {
    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }
}

/// Allocates, changes sizes, frees, and exchanges blocks with other threads; frees all it has.
fn work(seed: usize, steps: usize) {
    let mut random = Random((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut held: [Option<Block>; HELD] = [const { None }; HELD];
    for _ in 0..steps {
        let place = &mut held[random.below(HELD)];
        *place = match (place.take(), random.below(8)) {
            (None, 0) => Some(Block::alloc_zeroed(&ALLOCATOR, &mut random)),
            (None, _) => Some(Block::alloc(&ALLOCATOR, &mut random)),
            (Some(block), 0) => Some(block.realloc(&ALLOCATOR, &mut random)),
            (Some(block), 1..=4) => exchange(block, &mut random),
            (Some(block), _) => {
                block.free(&ALLOCATOR);
                None
            }
        };
    }
    held.into_iter()
        .flatten()
        .for_each(|block| block.free(&ALLOCATOR));
}

/// Puts a block where other threads find it, and takes what lay there.
fn exchange(block: Block, random: &mut Random) -> Option<Block> {
    let place = &MAIL[random.below(MAIL.len())];
    // ORDERING: publishes the block's contents to who takes it, and shows those of the one taken.
    let other = place.swap(block.into_raw(), Ordering::AcqRel);
    Block::from_raw(other)
}

/// [`work`], and the same in the heap.
fn work_everywhere(seed: usize, steps: usize) {
    work(seed, steps);
    // ORDERING: set before any thread was made.
    let heap = HEAP.load(Ordering::Relaxed);
    // SAFETY: 1. it outlives the threads.
    heaps::work(unsafe { &*heap }, &mut Random(seed as u64 + 77), steps);
}

extern "C" fn lasting(seed: *mut c_void) -> *mut c_void {
    work_everywhere(seed.addr(), LASTING_STEPS);
    ptr::null_mut()
}

extern "C" fn passing(seed: *mut c_void) -> *mut c_void {
    work_everywhere(seed.addr(), PASSING_STEPS);
    ptr::null_mut()
}

/// What concerns all threads at once, over and over.
extern "C" fn overseer(_: *mut c_void) -> *mut c_void {
    // ORDERING: a flag, nothing is published through it.
    while !IS_OVER.load(Ordering::Relaxed) {
        Flagstone::purge();
        let _ = Flagstone::stats();
        expect(Flagstone::verify().is_ok(), c"verify found a violation");
        // SAFETY: 1. no precondition.
        unsafe { libc::usleep(2_000) };
    }
    ptr::null_mut()
}

fn start(run: extern "C" fn(*mut c_void) -> *mut c_void, seed: usize) -> libc::pthread_t {
    let mut thread = MaybeUninit::uninit();
    let seed = ptr::without_provenance_mut(seed);
    // SAFETY: 1. `thread` is writable. 2. the functions of this file take a number for a pointer.
    let result = unsafe { libc::pthread_create(thread.as_mut_ptr(), ptr::null(), run, seed) };
    expect(result == 0, c"no thread");
    // SAFETY: 1. `pthread_create` wrote it.
    unsafe { thread.assume_init() }
}

fn join(thread: libc::pthread_t) {
    // SAFETY: 1. joinable, and joined once.
    let result = unsafe { libc::pthread_join(thread, ptr::null_mut()) };
    expect(result == 0, c"no end of a thread");
}

/// Ends the process with a message; no formatting, which is the standard library's.
fn expect(holds: bool, message: &core::ffi::CStr) {
    if !holds {
        // SAFETY: 1. a string.
        unsafe { libc::puts(message.as_ptr()) };
        // SAFETY: 1. no precondition.
        unsafe { libc::_exit(1) };
    }
}

// SAFETY: 1. the program has no other `main`.
#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const u8) -> c_int {
    let Ok(mut heap) = Heap::new() else {
        return 1;
    };
    // ORDERING: before any thread is made.
    HEAP.store(&raw mut heap, Ordering::Relaxed);
    let overseer = start(overseer, 0);
    let lasting: [_; LASTING] = core::array::from_fn(|seed| start(lasting, seed));
    for seed in (0..PASSING).step_by(2) {
        let pair = [0, 1].map(|next| start(passing, LASTING + seed + next));
        pair.into_iter().for_each(join);
    }
    lasting.into_iter().for_each(join);
    // ORDERING: as in `overseer`.
    IS_OVER.store(true, Ordering::Relaxed);
    join(overseer);
    for place in &MAIL {
        // ORDERING: as in `exchange`.
        if let Some(block) = Block::from_raw(place.swap(ptr::null_mut(), Ordering::AcqRel)) {
            block.free(&ALLOCATOR);
        }
    }
    heaps::end(&mut heap);
    drop(heap);
    expect(Flagstone::verify().is_ok(), c"verify found a violation");
    expect(
        Flagstone::stats().is_some_and(|stats| stats.live == 0),
        c"blocks are lost",
    );
    // SAFETY: 1. a string.
    unsafe { libc::puts(c"all blocks came back".as_ptr()) };
    0
}
