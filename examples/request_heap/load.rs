//! Clients, who know what they ought to be answered.

use core::net::SocketAddr;
use core::ops::AddAssign;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io::{self, IsTerminal, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::PROGRAM;
use crate::common::{interrupt, say};
use crate::handlers::MOST_WORDS;

/// Longer than the server's own patience, so that it is the one that gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many unexpected answers are shown.
const MOST_TOLD: u64 = 5;

/// What became of the requests.
#[derive(Default)]
pub(crate) struct Sent {
    pub(crate) requests: u64,
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    /// Of the requests, those that were to go over their limit.
    pub(crate) too_large: u64,
    /// Answers that were not as they ought to be, or none.
    pub(crate) unexpected: u64,
    pub(crate) elapsed: Duration,
}

impl Sent {
    pub(crate) fn all_as_expected(&self, requests: u64) -> bool {
        self.requests == requests && self.unexpected == 0 && self.refused == self.too_large
    }
}

impl AddAssign for Sent {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.answered += other.answered;
        self.refused += other.refused;
        self.too_large += other.too_large;
        self.unexpected += other.unexpected;
    }
}

/// A request, and what its answer must be.
struct Task {
    bytes: String,
    status: u16,
    /// How the body begins.
    begins: &'static str,
    length: Option<usize>,
}

/// Sends so many requests by several threads. Stops early on Ctrl-C.
pub(crate) fn run(to: SocketAddr, requests: u64, clients: u16, limit: usize) -> Sent {
    let (next, bar) = (AtomicU64::new(0), bar(requests));
    let begin = Instant::now();
    let work = || {
        let mut sent = Sent::default();
        while !interrupt::requested() {
            // ORDERING: Relaxed, the counter hands out numbers and publishes nothing.
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= requests {
                break;
            }
            send(to, number, limit, &bar, &mut sent);
            bar.inc(1);
        }
        sent
    };
    let mut all = Sent::default();
    thread::scope(|scope| {
        // A thread that cannot be started leaves its work to the others, and this one works, too.
        let others: Vec<_> = (1..clients)
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        all += work();
        for other in others {
            all += other.join().expect("a client panicked");
        }
    });
    bar.finish_and_clear();
    all.elapsed = begin.elapsed();
    all
}

fn send(to: SocketAddr, number: u64, limit: usize, bar: &ProgressBar, sent: &mut Sent) {
    let task = task(number, limit);
    sent.requests += 1;
    sent.too_large += u64::from(task.status == 503);
    match ask(to, &task.bytes) {
        Ok(answer) => {
            let (status, body) = split(&answer);
            sent.answered += u64::from(status == Some(200));
            sent.refused += u64::from(status == Some(503));
            let fits = task.length.is_none_or(|length| body.len() == length);
            if status == Some(task.status) && body.starts_with(task.begins.as_bytes()) && fits {
                return;
            }
            let shown = String::from_utf8_lossy(&answer[..answer.len().min(300)]);
            complain(bar, &format!("request {number} was answered {shown:?}"));
        }
        Err(error) => complain(bar, &format!("request {number} has no answer: {error}")),
    }
    sent.unexpected += 1;
}

/// Each kind in turn: three of eight are too large.
fn task(number: u64, limit: usize) -> Task {
    let get = |path: &str, n: u64| format!("GET {path}?n={n} HTTP/1.1\r\nHost: load\r\n\r\n");
    let post = |length: usize, more: &str| {
        format!("POST /upper HTTP/1.1\r\nHost: load\r\nContent-Length: {length}\r\n{more}\r\n")
    };
    let varied = usize::try_from(number % 13).unwrap_or(0);
    let (bytes, length) = match number % 8 {
        0 | 3 => (get("/words", number % 200 + 1), None),
        1 | 4 => {
            let length = limit / 32 * (varied % 4 + 1);
            (get("/expand", length as u64), Some(length))
        }
        2 => {
            let length = 100 + varied * 300;
            (post(length, "") + &"flag".repeat(length / 4), Some(length))
        }
        5 => (get("/words", MOST_WORDS), None),
        6 => (get("/expand", (limit * 2) as u64), None),
        // Only what the server lets a client send is sent.
        _ => (post(limit * 2, "Expect: 100-continue\r\n"), None),
    };
    let (status, begins) = match number % 8 {
        0 | 3 => (200, ""),
        1 | 4 => (200, "flagstone\n"),
        2 => (200, "FLAGFLAG"),
        _ => (503, "heap \"request "),
    };
    Task {
        bytes,
        status,
        begins,
        length,
    }
}

/// A whole answer, with its head.
fn ask(to: SocketAddr, request: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// The status and the body of an answer.
fn split(answer: &[u8]) -> (Option<u16>, &[u8]) {
    let status = answer
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    let status = status.and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    (status, end.map_or(&[][..], |end| &answer[end + 4..]))
}

/// A message that does not end up in the middle of the progress bar. The first few say what there
/// is to say, and the table counts all.
fn complain(bar: &ProgressBar, message: &str) {
    static TOLD: AtomicU64 = AtomicU64::new(0);
    // ORDERING: Relaxed, it only counts.
    if TOLD.fetch_add(1, Ordering::Relaxed) >= MOST_TOLD {
        return;
    }
    bar.suspend(|| say::line(PROGRAM, format_args!("{message}")));
}

/// Visible only to people: a log file gets no bar.
fn bar(requests: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} requests, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(requests).with_style(style)
}
