//! How many threads there are in each heap, and how many of them are at work.

use core::hint;

use crate::heap;
use crate::sync::{AtomicU32, GuardedUsize, Ordering, OwnLines};

/// Written under the registry's lock.
static THREADS: [GuardedUsize; heap::HEAPS] = [const { GuardedUsize::new(0) }; heap::HEAPS];

/// Looks that the heap's threads took, each after as many slow paths of its own.
static LOOKS: [OwnLines<AtomicU32>; heap::HEAPS] =
    [const { OwnLines(AtomicU32::new(0)) }; heap::HEAPS];

/// Notes a look of a thread in `heap`; how many there were.
pub(super) fn note_look(heap: usize) -> u32 {
    // ORDERING: an estimate, nothing is published through it. OVERFLOW: modulo 2^32, for differences.
    LOOKS[heap].fetch_add(1, Ordering::Relaxed).wrapping_add(1)
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
