//! Stress test: threads allocate, resize, hand over and free blocks at random, and every block
//! carries a pattern that is checked before it goes. Any byte out of place ends the program at
//! once.
//!
//! ```text
//! cargo run --release --example stress -- --threads 8 --seconds 60 --max-size 64M --verify
//! ```
//!
//! Exit code: 0, 1 if the allocator misbehaved (one line on stderr says how), 2 for a bad command
//! line. Ctrl-C ends the run early but in order: all blocks are checked and freed and the summary
//! is printed. A seed repeats each worker's random numbers; with one thread it repeats the run, with
//! several not how they interleave.

use core::fmt::Arguments;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::process::{self, ExitCode};
use std::thread;

use flagstone::Flagstone;

mod args;
mod block;
#[path = "../common/mod.rs"]
mod common;
mod crew;
mod mix;
mod pattern;
mod report;
mod shared;
mod worker;

use args::Args;
use common::{interrupt, rss, say};
use report::{Outcome, Resident};
use shared::Shared;

#[global_allocator]
static GLOBAL: Flagstone = Flagstone::new();

/// The name before every message on stderr.
const PROGRAM: &str = "stress";

fn main() -> ExitCode {
    let args = args::parse();
    if let Err(error) = interrupt::install() {
        say::line(PROGRAM, format_args!("Ctrl-C will not be handled: {error}"));
    }
    report::header(&args);
    let shared = Shared::new(&args);
    let outcome = measure(&args, &shared);
    report::summary(&args, &outcome);
    if outcome.live_now == 0 {
        return ExitCode::SUCCESS;
    }
    let leftover = outcome.live_now;
    say::line(
        PROGRAM,
        format_args!("{leftover} live bytes remain although every block was freed"),
    );
    ExitCode::FAILURE
}

/// Everything between the two readings of the live bytes. What the harness itself needs is in
/// `shared` (allocated before, dropped after) or gone by the second reading.
fn measure(args: &Args, shared: &Shared) -> Outcome {
    let before = rss::now();
    let baseline = settled_live();
    let run = crew::run(args, shared);
    let live_now = signed(live()) - signed(baseline);
    verify(args.verify);
    let purged = Flagstone::purge();
    let peak = rss::field("/proc/self/status", "VmHWM:");
    Outcome {
        run,
        live_now,
        purged,
        resident: Resident {
            before,
            peak,
            after: rss::now(),
        },
    }
}

/// The live bytes once nothing else changes them: the Ctrl-C thread may still be starting, and the
/// first thread of a process sets up a few things that stay.
fn settled_live() -> usize {
    thread::spawn(|| ())
        .join()
        .expect("an empty thread cannot panic");
    let mut before = live();
    let mut equal = 0;
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(10));
        let again = live();
        equal = if again == before { equal + 1 } else { 0 };
        before = again;
        if equal == 5 {
            break;
        }
    }
    before
}

/// 0 where the system's allocator serves, which does not say.
fn live() -> usize {
    Flagstone::stats().map_or(0, |stats| stats.live)
}

/// Byte counts never exceed `isize::MAX`.
fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

/// Lets the allocator check itself, if `wanted`.
fn verify(wanted: bool) {
    if wanted && let Err(violation) = Flagstone::verify() {
        fail(format_args!("verify found {violation:?}"));
    }
}

/// Reports the first fault on one line and ends the process. Allocates nothing.
fn fail(fault: Arguments<'_>) -> ! {
    static REPORTED: AtomicBool = AtomicBool::new(false);
    // ORDERING: Relaxed, it only elects the thread that reports.
    while REPORTED.swap(true, Ordering::Relaxed) {
        thread::sleep(Duration::from_secs(1));
    }
    say::line(PROGRAM, fault);
    process::exit(1)
}
