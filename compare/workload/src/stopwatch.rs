//! Durations of single operations, counted in a histogram that never grows.

use hdrhistogram::Histogram;

use super::clock;

/// Longer ones count as this long: 2^36 ticks, ten seconds or more.
const LONGEST: u64 = 1 << 36;
/// Neighbouring durations are told apart to a percent; with more digits the histogram would take a
/// good part of the processor's first cache.
const DIGITS: u8 = 2;

pub(crate) struct Stopwatch(Histogram<u32>);

impl Stopwatch {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_max(LONGEST, DIGITS);
        Self(histogram.expect("the bounds are in order"))
    }

    /// Times one operation.
    #[inline(always)]
    pub(crate) fn time<T>(&mut self, operation: impl FnOnce() -> T) -> T {
        let start = clock::ticks();
        let result = operation();
        let end = clock::ticks();
        // counters of two processors may differ by a little
        self.0.saturating_record(end.saturating_sub(start));
        result
    }

    /// Forgets a warm-up.
    pub(crate) fn reset(&mut self) {
        self.0.reset();
    }

    /// This one's operations and the other's.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let mut both = self.0.clone();
        both.add(&other.0).expect("the bounds are the same");
        Self(both)
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// In ticks: half, 99 %, 99.9 % and all of the operations took this long at most.
    pub(crate) fn quantiles(&self) -> [u64; 4] {
        [0.5, 0.99, 0.999, 1.0].map(|quantile| self.0.value_at_quantile(quantile))
    }
}
