//! What a look found a cache in, and whether that has changed since: [`ThreadCache::was_seen`].
//!
//! | bits | of | set | cleared |
//! |---|---|---|---|
//! | `SEEN` | a parked cache | by the first look that finds it parked | when a thread has it |
//! | `RESTS` | a thread's | by a purge that meets the thread: it was diverted | by its next call, and by all that changes its magazines; by the purge as it ends |
//! | `RESTED` | a thread's | by a whole purge as it ends, if the thread rests | by its next call, as above |
//! | the number of a purge | a thread's | by a purge that meets the thread | by the next |
//!
//! A thread that rests has done nothing since it was met but end the operation that it was in. One that rests and has
//! rested has done nothing since a whole purge. Purges take turns; their numbers repeat.
//!
//! Written under the gate; for a parked cache under the registry's lock, and for one on its way to a thread by that.
#![forbid(unsafe_code)]

use super::ThreadCache;
use super::locked::LockedCache;

const SEEN: u8 = 1;
const RESTS: u8 = 2;
const RESTED: u8 = 4;
/// Where the number begins, and the highest.
const NUMBER: u32 = 3;
const MOST: u8 = u8::MAX >> NUMBER;

/// The number of a purge; 0 is none's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Purge(u8);

impl Purge {
    pub(crate) const fn of(number: u8) -> Self {
        Self(number)
    }

    pub(crate) const fn number(self) -> u8 {
        self.0
    }

    /// That of the purge after this one.
    pub(crate) const fn next(self) -> Self {
        Self(self.0 % MOST + 1)
    }
}

impl ThreadCache {
    /// Whether this purge met the thread.
    pub(crate) fn was_met_by(&self, purge: Purge) -> bool {
        self.was_seen.get() >> NUMBER == purge.0
    }

    /// Forgets that it was met by one of this number, before another begins.
    pub(crate) fn forget(&self, purge: Purge) {
        if self.was_met_by(purge) {
            let kept = (1 << NUMBER) - 1;
            self.was_seen.set(self.was_seen.get() & kept);
        }
    }

    /// Notes a look at a parked cache; whether there was one before.
    pub(crate) fn see(&self) -> bool {
        let before = self.was_seen.get();
        self.was_seen.set(before | SEEN);
        before & SEEN != 0
    }

    /// What was seen is about to change.
    #[inline]
    pub(crate) fn stir(&self) {
        self.was_seen
            .set(self.was_seen.get() & !(SEEN | RESTS | RESTED));
    }
}

impl LockedCache<'_> {
    /// Notes that this purge met the thread, which was diverted; whether it may have done something since the last whole
    /// one.
    ///
    /// It rests from here on, unless it is at something that may still change its magazines.
    pub(crate) fn meet(self, purge: Purge, rests: bool) -> bool {
        let rested = self.was_seen.get() & RESTED;
        let rests = if rests { RESTS | rested } else { 0 };
        self.was_seen.set(purge.0 << NUMBER | rests);
        rested == 0
    }

    /// Whether the thread has done nothing since it was met.
    pub(crate) fn rests(self) -> bool {
        self.was_seen.get() & RESTS != 0
    }

    /// Ends what [`meet`](Self::meet) began. All that can go of what the thread holds went, if the purge was `whole`.
    pub(crate) fn take_leave(self, whole: bool) {
        let seen = self.was_seen.get();
        if seen & RESTS != 0 {
            let rested = if whole { RESTED } else { 0 };
            self.was_seen.set(seen & !(RESTS | RESTED) | rested);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_repeat_late_and_are_never_none() {
        let mut purge = Purge::default();
        for number in (1..=31).chain(1..=31) {
            purge = purge.next();
            assert_eq!(purge, Purge::of(number));
        }
    }
}
