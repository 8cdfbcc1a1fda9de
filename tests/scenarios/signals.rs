//! Signal handlers that interrupt the allocator. They do not allocate or free.

use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use core::{mem, ptr};
use std::thread;

use flagstone::Flagstone;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::ALLOC;
use crate::common::block::{Block, SIZES};
use crate::common::child::alone;
use crate::common::process::{live, verify};
use crate::common::raw_thread::on_raw_thread;
use crate::timer::{Timer, handle};

/// Blocks at a time.
const HELD: usize = 300;

/// A size of any kind, mostly of the smaller ones.
fn some_size(rng: &mut SmallRng) -> usize {
    let kinds = rng
        .random_range(1..=SIZES.len())
        .min(rng.random_range(1..=SIZES.len()));
    let size = SIZES[rng.random_range(0..kinds)];
    rng.random_range(size / 2..=size)
}

/// Blocks by place, replaced at random.
struct Shelf {
    rng: SmallRng,
    blocks: Vec<Option<(Block, usize)>>,
}

impl Shelf {
    fn new(seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            blocks: (0..HELD).map(|_| None).collect(),
        }
    }

    /// Bytes of a block that are written and checked.
    fn written(block: &Block) -> usize {
        block.size().min(3_000)
    }

    /// Frees the block of some place, after a look at its contents, and puts another there.
    fn replace(&mut self, tag: usize) {
        let place = self.rng.random_range(0..HELD);
        let size = some_size(&mut self.rng);
        // Few of the long ones at a time.
        let place = if size > 100_000 { place % 20 } else { place };
        self.clear(place);
        let layout = crate::program::layout(size, 8);
        let block = Block::alloc(&ALLOC, layout).expect("memory");
        block.fill_first(tag, Self::written(&block));
        self.blocks[place] = Some((block, tag));
    }

    fn clear(&mut self, place: usize) {
        if let Some((block, tag)) = self.blocks[place].take() {
            assert!(block.holds(tag, Self::written(&block)), "contents lost");
            block.free(&ALLOC);
        }
    }

    fn clear_all(&mut self) {
        (0..HELD).for_each(|place| self.clear(place));
    }
}

/// Signals that were handled.
static HANDLED: AtomicUsize = AtomicUsize::new(0);

/// Threads allocate and free under ten thousand signals a second each, whose handler does something
/// else: it may come between any two instructions.
#[test]
fn handlers_interrupt_the_allocator() {
    const NAME: &str = "signals::handlers_interrupt_the_allocator";
    const THREADS: u64 = 3;
    const EVERY: i64 = 100_000;
    const SIGNALS: usize = 20_000;
    extern "C" fn count(_: c_int) {
        // Some of the stack below the interrupted function.
        let mut bytes = [0_u8; 2_000];
        bytes.fill(0xa5);
        core::hint::black_box(&mut bytes);
        HANDLED.fetch_add(1, Ordering::Relaxed);
    }
    fn work(seed: u64) {
        let mut shelf = Shelf::new(seed);
        let timer = Timer::new(libc::SIGPROF);
        timer.set(EVERY, EVERY);
        let mut tag = 0;
        while HANDLED.load(Ordering::Relaxed) < SIGNALS {
            shelf.replace(tag);
            tag += 1;
            if tag.is_multiple_of(2_000) {
                Flagstone::purge();
                on_raw_thread(&mut (), |()| Block::filled(&ALLOC, 90, 8, 1).free(&ALLOC));
            }
        }
        drop(timer);
        shelf.clear_all();
    }
    alone(NAME, &[], || {
        handle(libc::SIGPROF, count);
        let before = live();
        thread::scope(|scope| {
            for seed in 0..THREADS {
                scope.spawn(move || work(seed));
            }
        });
        verify();
        // std keeps a little of its own.
        let left = live().abs_diff(before);
        assert!(left < 64 << 10, "{left} bytes more or less are live");
    });
}

const FORKS: usize = 10_000;
/// Of so many children one goes on.
const GOES_ON: usize = 8;
/// Blocks that such a child replaces.
const REPLACED: usize = 100;

static FORKED: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicBool = AtomicBool::new(false);
/// Whether this is a child that goes on.
static IS_CHILD: AtomicBool = AtomicBool::new(false);
static TIMER: AtomicPtr<Timer> = AtomicPtr::new(ptr::null_mut());

/// When the next signal comes, so that it does not come always at the same place.
fn next_signal(number: usize) -> i64 {
    i64::try_from(20_000 + number * 7_919 % 80_000).expect("nanoseconds")
}

/// Forks. The child ends at once, or returns to what was interrupted.
extern "C" fn fork_here(_: c_int) {
    let number = FORKED.fetch_add(1, Ordering::Relaxed) + 1;
    let goes_on = number.is_multiple_of(GOES_ON);
    // SAFETY: the child calls nothing but `_exit` before it is back in the interrupted thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        if !goes_on {
            // SAFETY: `_exit` has no preconditions.
            unsafe { libc::_exit(0) };
        }
        IS_CHILD.store(true, Ordering::Relaxed);
        // A child that hangs ends, too.
        // SAFETY: `alarm` has no preconditions.
        unsafe { libc::alarm(20) };
        return;
    }
    let mut status = 0;
    // SAFETY: `status` is writable.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    if child < 0 || waited != child || status != 0 {
        FAILED.store(true, Ordering::Relaxed);
    }
    if number < FORKS {
        // SAFETY: set before the first signal, and the timer outlives the last.
        let timer = unsafe { &*TIMER.load(Ordering::Relaxed) };
        timer.set(next_signal(number), 0);
    }
}

/// A process whose one thread is anywhere in the allocator, locks and all, when a signal handler forks:
/// the child finishes what was interrupted and goes on from there.
#[test]
fn a_handler_forks() {
    const NAME: &str = "signals::a_handler_forks";
    alone(NAME, &[], || {
        handle(libc::SIGPROF, fork_here);
        let mut shelf = Shelf::new(1);
        let timer = Timer::new(libc::SIGPROF);
        TIMER.store(ptr::from_ref(&timer).cast_mut(), Ordering::Relaxed);
        timer.set(next_signal(0), 0);
        let mut tag = 0;
        let mut left = REPLACED;
        while FORKED.load(Ordering::Relaxed) < FORKS && left > 0 {
            shelf.replace(tag);
            tag += 1;
            if tag.is_multiple_of(2_000) {
                Flagstone::purge();
            }
            assert!(!FAILED.load(Ordering::Relaxed), "a forked child failed");
            left -= usize::from(IS_CHILD.load(Ordering::Relaxed));
        }
        if IS_CHILD.load(Ordering::Relaxed) {
            shelf.clear_all();
            let fine = Flagstone::verify().is_ok();
            // SAFETY: `_exit` has no preconditions.
            unsafe { libc::_exit(i32::from(!fine)) };
        }
        // The timer is deleted after the last signal.
        mem::drop(timer);
        assert!(!FAILED.load(Ordering::Relaxed), "a forked child failed");
        println!("{tag} blocks replaced");
        shelf.clear_all();
        verify();
    });
}
