//! How often the background thread looks, and how long a program is idle before all that it does not use goes back: more
//! seldom and longer where that gains little.
#![forbid(unsafe_code)]

/// Purge delays between two looks, and idle ones before a purge, at most.
const MOST: u32 = 16;

/// Bytes that are little: to give them back takes some hundred microseconds, what wakes a thread and walks a heap takes,
/// too.
const LITTLE: usize = 1 << 20;

/// A number of purge delays that follows what is gained.
#[derive(Debug)]
pub(super) struct Pace(u32);

impl Pace {
    pub(super) const fn new() -> Self {
        Self(1)
    }

    /// Purge delays until the next time.
    pub(super) fn delays(&self) -> u32 {
        self.0
    }

    /// Whether so few bytes are not worth the time.
    pub(super) fn is_little(bytes: usize) -> bool {
        bytes < LITTLE
    }

    /// Notes what a time has gained, in bytes: twice as long until the next after little.
    pub(super) fn gained(&mut self, bytes: usize) {
        self.0 = if Self::is_little(bytes) {
            (2 * self.0).min(MOST)
        } else {
            1
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gains_little_is_done_ever_more_seldom() {
        let mut pace = Pace::new();
        let mut delays = |bytes| {
            let delays = pace.delays();
            pace.gained(bytes);
            delays
        };
        let waits = [0, LITTLE - 1, 0, 0, 0, LITTLE, 0, 0].map(&mut delays);
        assert_eq!(waits, [1, 2, 4, 8, 16, 16, 1, 2]);
    }
}
