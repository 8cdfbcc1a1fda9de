//! How much free memory is worth keeping: as much as the program lately needed at its peak.
//!
//! What is given back and then faulted in again was given back in vain. Such *regret* costs two
//! system calls' worth of kernel time for each page, which is most of what a big heap pays when it
//! empties and fills in waves. A fixed bound on what is kept cannot help: it is too much for one
//! program and too little for another. So the bound follows the program.
//!
//! Time is cut into windows of half a purge delay. Each has a peak: the most bytes that spans and
//! mappings had in use at once. Free memory is kept up to the highest peak of the windows that are
//! remembered, so that everything held is never more than what was in use of late. (tcmalloc skips
//! releases by the same reasoning: "subrelease", from Hunter et al., "Beyond malloc efficiency to
//! fleet efficiency", OSDI 2021.)
//!
//! [`LEAST`] windows are remembered, which covers waves of up to a purge delay. Slower ones are
//! regretted. Regret may take [`SHARE`] of the time that passes. A window whose regret takes more
//! doubles the number of windows that are remembered, up to [`WINDOWS`]. As many windows without
//! regret halve it again, once twice the time was saved that it takes to regret all that is kept.
//! (Go's scavenger paces itself by a share of the processor's time, too.) A heap that was emptied for
//! good is forgotten with its last window, and goes back.
//!
//! That needs somebody who looks. A program that frees most of its heap and then goes idle takes no
//! slow path any more. So free memory beyond a *budget* goes back at once. The budget begins at
//! [`FLOOR`] and grows by what is regretted: the first wave of a bigger heap pays, later ones do not.
//! It is halved together with the windows, but not below what was made use of.
#![forbid(unsafe_code)]

use crate::sync::{AtomicU64, AtomicUsize, Ordering, OwnLines};

/// Most windows that are remembered: 32 delays.
const WINDOWS: usize = 64;
/// Windows that are remembered at least, the present one among them: so a peak is, for a delay to
/// one and a half.
const LEAST: usize = 3;
/// The budget of a program that has regretted nothing: so little may stay for good with one that went
/// idle.
const FLOOR: usize = 64 << 20;
/// One part in so many of the time may go into regret.
const SHARE: u64 = 64;
/// Bytes whose return and faults cost about a microsecond, where they were measured: `s_waves` of
/// 1 GiB spends 0.69 s of system time on 392 000 faults and what was given back before.
const BYTES_PER_MICROSECOND: u64 = 2 << 10;
/// Bytes of either kind that one call gives back of what is due for its age: `madvise` takes 0.2 ms
/// for 4 MiB of touched pages.
pub(crate) const AT_ONCE: usize = 8 << 20;

/// Free memory is worth a thread if it is one part in so many of what is used, and so many bytes.
const WORTH: usize = 16;
const LEAST_WORTH: usize = 8 << 20;

/// Below a limit, less than one part in so many of it is not given back in haste.
const LEAST_RELIEF: usize = 64;

/// What a process needed of late. All zero is that of one that needed nothing.
#[derive(Debug)]
pub(crate) struct Demand {
    /// Bytes of spans, and of mappings, in use. Each is written under the lock of its own table.
    spans: AtomicUsize,
    mappings: AtomicUsize,
    /// Free bytes that are kept, of either kind, written in the same way.
    free_units: AtomicUsize,
    free_mappings: AtomicUsize,
    /// The number of the present window, and its peak.
    window: AtomicU64,
    peak: AtomicUsize,
    /// Peaks of the windows before, by number.
    peaks: [AtomicUsize; WINDOWS],
    /// The highest of those that are remembered.
    remembered: AtomicUsize,
    /// How many are, the present one among them; 0 stands for [`LEAST`].
    memory: AtomicUsize,
    /// Free bytes that may be kept; 0 stands for [`FLOOR`].
    budget: AtomicUsize,
    /// Most that were, since `memory` or `budget` changed.
    most_free: AtomicUsize,
    /// Windows without regret since `memory` changed.
    quiet: AtomicUsize,
    /// Bytes given back of late that nobody has asked for again: for their age, and at once.
    returned: AtomicUsize,
    returned_at_once: AtomicUsize,
    /// Bytes asked for again in the present window, of either.
    regretted: AtomicUsize,
    regretted_at_once: AtomicUsize,
    /// Microseconds of regret beyond the share, as an `i64`: below 0, what was saved.
    debt: AtomicU64,
    /// Most bytes that may be held, kept ones among them; 0 stands for any number.
    most: AtomicUsize,
    /// 1 once more is held, until a look finds it otherwise.
    tight: AtomicUsize,
}

/// Why memory goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It is not needed any more.
    Age,
    /// More is free than may be kept.
    Budget,
}

/// What this process needed of late.
pub(crate) static DEMAND: OwnLines<Demand> = OwnLines(Demand::new());

impl Demand {
    pub(crate) const fn new() -> Self {
        Self {
            spans: AtomicUsize::new(0),
            mappings: AtomicUsize::new(0),
            free_units: AtomicUsize::new(0),
            free_mappings: AtomicUsize::new(0),
            window: AtomicU64::new(0),
            peak: AtomicUsize::new(0),
            peaks: [const { AtomicUsize::new(0) }; WINDOWS],
            remembered: AtomicUsize::new(0),
            memory: AtomicUsize::new(0),
            budget: AtomicUsize::new(0),
            most_free: AtomicUsize::new(0),
            quiet: AtomicUsize::new(0),
            returned: AtomicUsize::new(0),
            returned_at_once: AtomicUsize::new(0),
            regretted: AtomicUsize::new(0),
            regretted_at_once: AtomicUsize::new(0),
            debt: AtomicU64::new(0),
            most: AtomicUsize::new(0),
            tight: AtomicUsize::new(0),
        }
    }

    // ORDERING: all are estimates that publish nothing, here and below.

    /// Notes the bytes of spans in use, of which there are more than before. The arena's lock is held.
    #[inline]
    pub(crate) fn note_more_spans(&self, used: usize) {
        self.spans.store(used, Ordering::Relaxed);
        self.note_used(used + self.mappings.load(Ordering::Relaxed));
        self.note_tight();
    }

    /// Notes the bytes of spans in use, of which there are fewer. The arena's lock is held.
    #[inline]
    pub(crate) fn note_fewer_spans(&self, used: usize) {
        self.spans.store(used, Ordering::Relaxed);
    }

    /// Notes the bytes of dirty units, of which there are more. The arena's lock is held.
    #[inline]
    pub(crate) fn note_more_dirty(&self, free: usize) {
        self.free_units.store(free, Ordering::Relaxed);
        self.note_free(free + self.free_mappings.load(Ordering::Relaxed));
    }

    /// Notes the bytes of dirty units, of which there are fewer. The arena's lock is held.
    #[inline]
    pub(crate) fn note_fewer_dirty(&self, free: usize) {
        self.free_units.store(free, Ordering::Relaxed);
    }

    /// Notes the bytes of mappings in use, and those of cached ones. The lock of long blocks is held.
    #[inline(never)]
    pub(crate) fn note_mappings(&self, used: usize, free: usize) {
        self.mappings.store(used, Ordering::Relaxed);
        self.free_mappings.store(free, Ordering::Relaxed);
        self.note_used(self.used());
        self.note_free(self.free());
    }

    #[inline]
    fn note_used(&self, used: usize) {
        if used > self.peak.load(Ordering::Relaxed) {
            self.peak.store(used, Ordering::Relaxed);
        }
    }

    #[inline]
    fn note_free(&self, free: usize) {
        if free > self.most_free.load(Ordering::Relaxed) {
            self.most_free.store(free, Ordering::Relaxed);
        }
        self.note_tight();
    }

    /// More is used or free than before.
    #[inline]
    fn note_tight(&self) {
        let most = self.most.load(Ordering::Relaxed);
        if most != 0 {
            let free = self.free();
            // Not for each unit that is free for a moment, where most of it is in use.
            if self.used() + free > most && free > most / LEAST_RELIEF {
                self.tight.store(1, Ordering::Relaxed);
            }
        }
    }

    /// Sets the bytes that a control group allows. What is kept stays below seven eighths of it, as
    /// the program, its threads' caches and the kernel need some, too.
    pub(crate) fn limit_to(&self, bytes: usize) {
        self.most.store(bytes - bytes / 8, Ordering::Relaxed);
    }

    /// Whether so much is held that what is free is to go back before anything is taken.
    #[inline]
    pub(crate) fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed) != 0
    }

    /// What was free went back, as far as the kernel took it.
    pub(crate) fn relieved(&self) {
        self.tight.store(0, Ordering::Relaxed);
    }

    /// One of so many parts of what is in use, at least `least`, within a control group's limit.
    pub(crate) fn part(&self, parts: usize, least: usize) -> usize {
        let part = least.max(self.used() / parts);
        match self.most.load(Ordering::Relaxed) {
            0 => part,
            most => part.min(most / parts),
        }
    }

    fn used(&self) -> usize {
        self.spans.load(Ordering::Relaxed) + self.mappings.load(Ordering::Relaxed)
    }

    /// Why what is due now goes back.
    pub(crate) fn cause(&self) -> Cause {
        if self.beyond_budget() > 0 {
            Cause::Budget
        } else {
            Cause::Age
        }
    }

    /// Notes memory that was given back.
    pub(crate) fn note_return(&self, bytes: usize, cause: Cause) {
        let returned = match cause {
            Cause::Budget => &self.returned_at_once,
            Cause::Age => &self.returned,
        };
        returned.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes memory taken from the kernel: regret, as far as so much was given back of late.
    pub(crate) fn note_fresh(&self, bytes: usize) {
        let again = take(&self.returned_at_once, bytes);
        if again != 0 {
            self.regretted_at_once.fetch_add(again, Ordering::Relaxed);
            // Twice as much: what was given back longer ago is forgotten in part.
            let budget = self.budget().saturating_add(2 * again);
            self.budget.store(budget, Ordering::Relaxed);
        }
        let again = take(&self.returned, bytes - again);
        if again != 0 {
            self.regretted.fetch_add(again, Ordering::Relaxed);
        }
    }

    /// Free bytes, of either kind, beyond those that are worth keeping; without a delay none are.
    pub(crate) fn excess(&self, delay_ms: u64) -> usize {
        if delay_ms == 0 {
            return self.free();
        }
        let peak = self.peak.load(Ordering::Relaxed);
        let most = peak.max(self.remembered.load(Ordering::Relaxed));
        let kept = most.saturating_sub(self.used()).min(self.budget());
        self.free().saturating_sub(kept)
    }

    /// Free bytes, of either kind, that go back at once.
    pub(crate) fn beyond_budget(&self) -> usize {
        self.free().saturating_sub(self.budget())
    }

    /// Whether so much is free, of either kind and `besides`, that a thread to give it back is worth what it costs.
    pub(crate) fn is_worth_a_thread(&self, besides: usize) -> bool {
        self.free() + besides >= (self.used() / WORTH).max(LEAST_WORTH)
    }

    /// Free bytes that may be kept.
    pub(crate) fn budget(&self) -> usize {
        self.budget.load(Ordering::Relaxed).max(FLOOR)
    }

    /// Free bytes that are kept, of either kind.
    pub(crate) fn free(&self) -> usize {
        let units = self.free_units.load(Ordering::Relaxed);
        units + self.free_mappings.load(Ordering::Relaxed)
    }

    /// Begins a new window if it is time. Of threads that find so at once, one does.
    pub(crate) fn look(&self, now_ms: u64, delay_ms: u64) {
        let length = delay_ms.div_ceil(2).max(1);
        let (now, before) = (now_ms / length, self.window.load(Ordering::Relaxed));
        let begins = now != before
            && self
                .window
                .compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if begins {
            let windows = usize::try_from(now.saturating_sub(before)).unwrap_or(usize::MAX);
            self.adapt(windows, length * 1000);
            self.begin(now, windows);
        }
    }

    fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed).max(LEAST)
    }

    /// Remembers longer after too much regret, and less long after none.
    fn adapt(&self, windows: usize, length_us: u64) {
        let by_age = self.regretted.swap(0, Ordering::Relaxed);
        let regretted = by_age + self.regretted_at_once.swap(0, Ordering::Relaxed);
        let allowed = (windows as u64).saturating_mul(length_us) / SHARE;
        let allowed = i64::try_from(allowed).unwrap_or(i64::MAX);
        // To regret all that is kept costs half of this, if the estimate holds; no more need be saved.
        let worst = 2 * cost(self.most_free.load(Ordering::Relaxed));
        let debt = self.debt.load(Ordering::Relaxed).cast_signed() + cost(regretted);
        let debt = debt.saturating_sub(allowed).max(-worst);
        self.debt.store(debt.cast_unsigned(), Ordering::Relaxed);
        let (memory, quiet) = (self.memory(), self.quiet.load(Ordering::Relaxed));
        let (memory, quiet) = if by_age != 0 && cost(regretted) > allowed {
            ((2 * memory).min(WINDOWS), 0)
        } else if regretted == 0 && debt == -worst && quiet >= memory {
            // What was made use of stays.
            let least = self.most_free.swap(self.free(), Ordering::Relaxed);
            let budget = (self.budget() / 2).max(least);
            self.budget
                .store(budget.min(self.budget()), Ordering::Relaxed);
            ((memory / 2).max(LEAST), 0)
        } else if regretted == 0 {
            (memory, quiet.saturating_add(windows))
        } else {
            (memory, 0)
        };
        self.memory.store(memory, Ordering::Relaxed);
        self.quiet.store(quiet, Ordering::Relaxed);
        // What was given back long ago is nobody's regret.
        for returned in [&self.returned, &self.returned_at_once] {
            let part = returned.load(Ordering::Relaxed) / WINDOWS;
            take(returned, part.saturating_mul(windows));
        }
    }

    /// Begins window `now`, `windows` after the last. Between them nothing was noted, so that as much
    /// was in use as is.
    fn begin(&self, now: u64, windows: usize) {
        let used = self.used();
        #[expect(clippy::cast_possible_truncation, reason = "modulo WINDOWS")]
        let slot =
            |back: usize| &self.peaks[(now.wrapping_sub(back as u64) % WINDOWS as u64) as usize];
        let peak = self.peak.swap(used, Ordering::Relaxed);
        for back in 1..windows.min(WINDOWS) {
            slot(back).store(used, Ordering::Relaxed);
        }
        if windows < WINDOWS {
            slot(windows).store(peak, Ordering::Relaxed);
        }
        let remembered = (1..self.memory()).map(|back| slot(back).load(Ordering::Relaxed));
        self.remembered
            .store(remembered.max().unwrap_or(0), Ordering::Relaxed);
    }
}

/// Microseconds that the return of so many bytes and their faults take.
fn cost(bytes: usize) -> i64 {
    i64::try_from(bytes as u64 / BYTES_PER_MICROSECOND).unwrap_or(i64::MAX)
}

/// Takes up to so many from a count; how many.
fn take(count: &AtomicUsize, most: usize) -> usize {
    let before = count.load(Ordering::Relaxed);
    let taken = most.min(before);
    if taken != 0 {
        count.store(before - taken, Ordering::Relaxed);
    }
    taken
}

#[cfg(test)]
mod tests;
