//! How many threads there are in each heap, and how many of them are at work.

use core::hint;

use crate::heap;
use crate::sync::{AtomicU32, AtomicUsize, GuardedUsize, Ordering, OwnLines};

/// Written under the registry's lock.
static THREADS: [GuardedUsize; heap::HEAPS] = [const { GuardedUsize::new(0) }; heap::HEAPS];

/// The looks that a heap's threads took, each after as many slow paths of its own.
struct Looks {
    /// Turns: several in a row by one thread are one.
    turns: AtomicU32,
    /// The thread that took the last.
    last: AtomicUsize,
}

static LOOKS: [OwnLines<Looks>; heap::HEAPS] = [const {
    OwnLines(Looks {
        turns: AtomicU32::new(0),
        last: AtomicUsize::new(0),
    })
}; heap::HEAPS];

/// Notes a look of a thread in `heap`, 0 being none; how many turns there were.
pub(super) fn note_look(heap: usize, thread: usize) -> u32 {
    let looks = &LOOKS[heap];
    // ORDERING: an estimate, nothing is published through it, here and below.
    if looks.last.swap(thread, Ordering::Relaxed) == thread {
        return looks.turns.load(Ordering::Relaxed);
    }
    // OVERFLOW: modulo 2^32, for differences.
    looks.turns.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
}

/// One thread more in `heap`.
pub(crate) fn join(heap: usize) {
    THREADS[heap].set(THREADS[heap].get() + 1);
}

/// One less.
pub(crate) fn leave(heap: usize) {
    THREADS[heap].set(THREADS[heap].get() - 1);
}

/// Threads in `heap`, as of some moment not long ago.
pub(crate) fn of(heap: usize) -> usize {
    THREADS[heap].get()
}

/// Threads of all heaps.
pub(crate) fn all() -> usize {
    THREADS.iter().map(GuardedUsize::get).sum()
}

/// The heap with the fewest.
pub(crate) fn least_used() -> usize {
    let mut least = 0;
    for heap in 1..heap::count() {
        // Hidden from the compiler, which would unroll the loop.
        let heap = hint::black_box(heap);
        if of(heap) < of(least) {
            least = heap;
        }
    }
    least
}

/// In a forked child: none, until they are counted anew.
pub(crate) fn forget() {
    THREADS.iter().for_each(|threads| threads.set(0));
}
