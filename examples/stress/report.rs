//! What the user sees: header, progress and summary.

use core::fmt::Display;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::io::{self, IsTerminal, Write};

use crate::args::Args;
use crate::common::human;
use crate::crew::Run;
use crate::shared::Shared;

/// Resident bytes, where the system tells them.
pub(crate) struct Resident {
    pub(crate) before: Option<usize>,
    pub(crate) peak: Option<usize>,
    pub(crate) after: Option<usize>,
}

/// All that the summary shows.
pub(crate) struct Outcome {
    pub(crate) run: Run,
    /// Live bytes of the allocator, less those before the first thread started.
    pub(crate) live_now: isize,
    pub(crate) purged: usize,
    pub(crate) resident: Resident,
}

/// The seed first: a run that fails must be repeatable.
pub(crate) fn header(args: &Args) {
    let Args {
        threads,
        seconds,
        seed,
        verify,
        ..
    } = args;
    let (size, live) = (human::bytes(args.max_size), human::bytes(args.max_live()));
    let verify = if *verify { "on" } else { "off" };
    print(format_args!(
        "seed {seed}: {threads} threads, {seconds} s, blocks to {size}, \
         {live} live at most, verify {verify}"
    ));
}

pub(crate) fn summary(args: &Args, outcome: &Outcome) {
    let Outcome {
        run,
        live_now,
        purged,
        resident,
    } = outcome;
    let tally = &run.tally;
    let operations = tally.operations();
    let seconds = run.elapsed.as_secs_f64();
    let rate = operations as f64 / seconds / 1e6;
    print(format_args!(
        "operations      {operations} in {seconds:.1} s, {rate:.2} million/s"
    ));
    print(format_args!(
        "                {} alloc, {} alloc_zeroed, {} realloc, {} dealloc",
        tally.allocs, tally.zeroed, tally.reallocs, tally.frees
    ));
    print(format_args!("handed over     {} blocks", tally.received));
    print(format_args!("checked in use  {} blocks", tally.checks));
    print(format_args!("nulls           {}", tally.nulls));
    print(format_args!(
        "threads         {} started on {} lanes, {} refused",
        run.threads, args.threads, run.refused
    ));
    print(format_args!(
        "peak live bytes {}",
        human::bytes(run.peak_live)
    ));
    print(format_args!("live bytes now  {live_now}"));
    print(format_args!(
        "resident        {} before, {} peak, {} after purge (which returned {})",
        optional(resident.before),
        optional(resident.peak),
        optional(resident.after),
        human::bytes(*purged)
    ));
}

/// A line that rewrites itself each second, for people only.
pub(crate) struct Progress {
    visible: bool,
    shown: u64,
    steps: u64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            visible: io::stderr().is_terminal(),
            shown: 0,
            steps: 0,
        }
    }

    pub(crate) fn show(&mut self, shared: &Shared, elapsed: Duration) {
        let second = elapsed.as_secs();
        if !self.visible || second == self.shown {
            return;
        }
        let steps = shared.steps.load(Ordering::Relaxed);
        let rate = (steps - self.steps) as f64 / (second - self.shown) as f64 / 1e6;
        (self.shown, self.steps) = (second, steps);
        let live = shared.budget.used() >> 20;
        // A progress line that cannot be written is not worth a word.
        let _ = write!(
            io::stderr(),
            "\r\x1b[K{second} s, {rate:.2} million steps/s, {live} MiB live"
        );
    }

    pub(crate) fn clear(&self) {
        if self.visible && self.shown > 0 {
            // As above.
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn optional(bytes: Option<usize>) -> String {
    bytes.map_or_else(|| "?".into(), human::bytes)
}

/// A line on stdout; a reader that has gone away does not stop the test.
fn print(line: impl Display) {
    // The exit code says what matters.
    let _ = writeln!(io::stdout().lock(), "{line}");
}
