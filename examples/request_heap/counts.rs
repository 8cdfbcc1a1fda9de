//! What the server has done so far.

use std::sync::{Mutex, PoisonError};

/// Counts that belong together, at one moment.
#[derive(Clone, Copy, Default)]
pub(crate) struct Now {
    /// Numbers that were given to requests. Some are of clients that left without a word.
    begun: u64,
    /// With 200.
    pub(crate) answered: u64,
    /// With 503, as the request's heap was full.
    pub(crate) refused: u64,
    /// With any other status.
    pub(crate) bad: u64,
    /// Of all requests, the sum of what their heaps held at most.
    pub(crate) held: u64,
    /// The most that a request's heap has held.
    pub(crate) most: usize,
}

impl Now {
    pub(crate) fn requests(&self) -> u64 {
        self.answered + self.refused + self.bad
    }

    /// What a request's heap held at most, on average.
    pub(crate) fn mean(&self) -> usize {
        usize::try_from(self.held / self.requests().max(1)).unwrap_or(usize::MAX)
    }
}

/// All threads add to it.
#[derive(Default)]
pub(crate) struct Counts(Mutex<Now>);

impl Counts {
    /// The number of a new request, from 1 on.
    pub(crate) fn begin(&self) -> u64 {
        self.with(|now| {
            now.begun += 1;
            now.begun
        })
    }

    pub(crate) fn end(&self, status: u16, peak: usize) {
        self.with(|now| {
            *match status {
                200 => &mut now.answered,
                503 => &mut now.refused,
                _ => &mut now.bad,
            } += 1;
            now.held += peak as u64;
            now.most = now.most.max(peak);
        });
    }

    pub(crate) fn now(&self) -> Now {
        self.with(|now| *now)
    }

    fn with<R>(&self, work: impl FnOnce(&mut Now) -> R) -> R {
        // Numbers are as good after a panic as before.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
