//! How many threads there are in each heap. Written under the registry's lock.

use core::hint;

use crate::heap;
use crate::sync::GuardedUsize;

static THREADS: [GuardedUsize; heap::HEAPS] = [const { GuardedUsize::new(0) }; heap::HEAPS];

/// One thread more in `heap`.
pub(crate) fn join(heap: usize) {
    THREADS[heap].set(THREADS[heap].get() + 1);
}

/// One less.
pub(crate) fn leave(heap: usize) {
    THREADS[heap].set(THREADS[heap].get() - 1);
}

/// Threads that share `heap`, as of some moment not long ago.
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
