//! Whether single calls of the allocator are timed. That slows them down, so it is another run.

use super::super::clock;

/// Stands around every call of the allocator.
pub(super) trait Watch: Default + Send {
    /// Calls are timed.
    const CALLS: bool;

    fn time<T>(&mut self, call: impl FnOnce() -> T) -> T;

    /// The longest call so far, in ticks.
    fn longest(&self) -> u64;

    /// Takes over what another thread's has seen.
    fn join(&mut self, other: Self);
}

/// Adds nothing to a call.
#[derive(Default)]
pub(super) struct Unwatched;

impl Watch for Unwatched {
    const CALLS: bool = false;

    #[inline(always)]
    fn time<T>(&mut self, call: impl FnOnce() -> T) -> T {
        call()
    }

    fn longest(&self) -> u64 {
        0
    }

    fn join(&mut self, _: Self) {}
}

/// Keeps the longest call.
#[derive(Default)]
pub(super) struct Longest(u64);

impl Watch for Longest {
    const CALLS: bool = true;

    #[inline(always)]
    fn time<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let start = clock::ticks();
        let result = call();
        // counters of two processors may differ by a little
        self.0 = self.0.max(clock::ticks().saturating_sub(start));
        result
    }

    fn longest(&self) -> u64 {
        self.0
    }

    fn join(&mut self, other: Self) {
        self.0 = self.0.max(other.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_of_all_threads_is_kept() {
        let mut watch = Longest(3);
        watch.join(Longest(7));
        watch.join(Longest(5));
        assert_eq!(watch.longest(), 7);
    }
}
