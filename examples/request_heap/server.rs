//! Threads that accept, and for each request a heap.

use core::any::Any;
use core::fmt::Display;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::panic::catch_unwind;
use std::thread::{self, ScopedJoinHandle};

use flagstone::Heap;

use crate::PROGRAM;
use crate::common::say;
use crate::counts::Counts;
use crate::handlers;
use crate::quiet;
use crate::wire::{Problem, Wire};

/// How long to wait when the system has no descriptor for one more connection.
const BREATH: Duration = Duration::from_millis(10);

pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    limit: usize,
    counts: Counts,
    stops: AtomicBool,
}

impl Server {
    pub(crate) fn bind(address: SocketAddr, limit: usize) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            limit,
            counts: Counts::default(),
            stops: AtomicBool::new(false),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Serves with so many threads for as long as `meanwhile` runs.
    pub(crate) fn run<R>(&self, threads: u16, meanwhile: impl FnOnce() -> R) -> Result<R, String> {
        thread::scope(|scope| {
            // Dropped in any case: a scope waits for its threads, and these only end when told.
            let mut crew = Crew {
                server: self,
                threads: Vec::new(),
            };
            for _ in 0..threads {
                let started = thread::Builder::new().spawn_scoped(scope, || self.work());
                let thread = started.map_err(|error| format!("cannot start a thread: {error}"))?;
                crew.threads.push(thread);
            }
            Ok(meanwhile())
        })
    }

    /// Each thread accepts for itself, so the system's queue of connections is the only one.
    fn work(&self) {
        loop {
            let accepted = self.listener.accept();
            // ORDERING: Relaxed, the flag publishes nothing but itself.
            if self.stops.load(Ordering::Relaxed) {
                return;
            }
            match accepted {
                Ok((stream, _)) => self.serve(stream),
                Err(_) => thread::sleep(BREATH),
            }
        }
    }

    /// One request of one connection. Its heap ends with it.
    fn serve(&self, stream: TcpStream) {
        let mut wire = Wire::new(stream);
        let name = format!("request {}", self.counts.begin());
        let options = Heap::options().name(&name).limit(self.limit).panics(true);
        let heap = match options.create() {
            Ok(heap) => heap,
            Err(error) => {
                self.counts.end(503, 0);
                reply(wire, 503, line(&error).as_bytes());
                return;
            }
        };
        // What a handler that panics leaves behind is in its heap, which nobody else sees, and in
        // `wire`, which is only a connection.
        let work = AssertUnwindSafe(|| handlers::answer(&mut wire, &heap));
        let done = catch_unwind(work);
        let peak = heap.stats().peak;
        // Before the client knows, so that what it counts is never more than what is counted here.
        match &done {
            Ok(Ok(body)) => {
                self.counts.end(200, peak);
                reply(wire, 200, body);
            }
            Ok(Err(Problem::Status(status, reason))) => {
                self.counts.end(*status, peak);
                reply(wire, *status, line(reason).as_bytes());
            }
            Ok(Err(Problem::Gone)) => {}
            Err(panic) => {
                let (status, words) = explain(&**panic);
                self.counts.end(status, peak);
                reply(wire, status, words.as_bytes());
            }
        }
    }
}

/// What a client is told of a panic: which heap was full, or nothing, as other panics are mistakes
/// of this program and nobody else's business.
fn explain(panic: &(dyn Any + Send)) -> (u16, String) {
    match quiet::refusal(panic) {
        Some(words) => (503, line(&words)),
        None => (500, line(&"the server made a mistake")),
    }
}

fn line(words: &impl Display) -> String {
    format!("{words}\n")
}

/// Sends an answer and ends the connection. A client that does not want it is no trouble.
fn reply(mut wire: Wire, status: u16, body: &[u8]) {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    wire.turn();
    if wire
        .write(head.as_bytes())
        .and_then(|()| wire.write(body))
        .is_ok()
    {
        wire.close();
    }
}

/// The threads that serve. Drop ends them.
struct Crew<'server, 'scope> {
    server: &'server Server,
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
}

impl Drop for Crew<'_, '_> {
    /// Threads that wait in `accept` wake by connections, of which each needs one.
    fn drop(&mut self) {
        // ORDERING: Relaxed, the threads look at it after each connection.
        self.server.stops.store(true, Ordering::Relaxed);
        let mut to = self.server.address;
        if to.ip().is_unspecified() {
            to.set_ip(match to.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        while !self.threads.iter().all(ScopedJoinHandle::is_finished) {
            // If it fails, the queue is full, which wakes them as well.
            drop(TcpStream::connect_timeout(&to, BREATH));
            thread::sleep(BREATH / 10);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                say::line(PROGRAM, format_args!("a thread that served panicked"));
            }
        }
    }
}
