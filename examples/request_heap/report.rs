//! What the user sees.

use core::fmt::Display;
use core::net::SocketAddr;
use core::time::Duration;
use std::io::{self, Write};
use std::thread;

use crate::common::{human, interrupt, rss};
use crate::counts::{Counts, Now};
use crate::load::Sent;

/// How late Ctrl-C may be noticed.
const TICK: Duration = Duration::from_millis(50);

pub(crate) fn serving(address: SocketAddr, limit: usize) {
    let limit = human::bytes(limit);
    print(format_args!(
        "serving on http://{address}/ until Ctrl-C, {limit} for each request"
    ));
}

/// A line for each second in which there was a request, until Ctrl-C.
pub(crate) fn each_second(counts: &Counts) {
    let mut told = Now::default();
    for tick in 1_u32.. {
        if interrupt::requested() {
            return;
        }
        thread::sleep(TICK);
        if tick % 20 == 0 {
            let now = counts.now();
            let new = now.requests() - told.requests();
            if new > 0 {
                line(&now, new);
            }
            told = now;
        }
    }
}

fn line(now: &Now, new: u64) {
    let (most, resident) = (human::bytes(now.most), optional(rss::now()));
    print(format_args!(
        "{new:>8} requests/s, {} refused and {} bad so far, {most} at most, {resident} resident",
        now.refused, now.bad
    ));
}

/// The last words of a server.
pub(crate) fn served(now: &Now) {
    print(format_args!(
        "served {} requests: {} answered, {} refused, {} bad; {} each, {} at most",
        now.requests(),
        now.answered,
        now.refused,
        now.bad,
        human::bytes(now.mean()),
        human::bytes(now.most)
    ));
}

pub(crate) fn load(sent: &Sent, now: &Now, limit: usize, resident: [Option<usize>; 2]) {
    let seconds = sent.elapsed.as_secs_f64().max(1e-9);
    let rate = sent.requests as f64 / seconds;
    let [start, end] = resident.map(optional);
    row("requests", format_args!("{} ({rate:.0}/s)", sent.requests));
    row("answered 200", sent.answered);
    row(
        "refused 503",
        format_args!("{} of {} that were too large", sent.refused, sent.too_large),
    );
    row("unexpected", sent.unexpected);
    row("memory, mean", human::bytes(now.mean()));
    row(
        "memory, most",
        format_args!("{} of {}", human::bytes(now.most), human::bytes(limit)),
    );
    row("resident", format_args!("{start} at start, {end} at end"));
}

fn row(name: &str, value: impl Display) {
    print(format_args!("{name:<16}{value}"));
}

fn optional(bytes: Option<usize>) -> String {
    bytes.map_or_else(|| "?".into(), human::bytes)
}

/// A line on stdout; a reader that has gone away does not stop the server.
fn print(line: impl Display) {
    // The exit code says what matters.
    let _ = writeln!(io::stdout().lock(), "{line}");
}
