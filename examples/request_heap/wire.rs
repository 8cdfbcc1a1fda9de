//! A connection that ends in time: a client that sends or reads a byte each second holds no thread
//! for long.

use core::time::Duration;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

/// How long a whole request may take to arrive, and its answer to leave.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of what nobody wants is read, and for how long, so that the client reads the answer.
const LEFTOVERS: usize = 4 << 20;
const FAREWELL: Duration = Duration::from_millis(500);

/// Why a request has no answer of its handler.
pub(crate) enum Problem {
    /// It is answered with this status and reason.
    Status(u16, &'static str),
    /// The client has left, or came without a word.
    Gone,
}

pub(crate) struct Wire {
    stream: TcpStream,
    deadline: Instant,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        // Answers are written whole, so waiting for more to send gains nothing; without it they are
        // only later.
        let _ = stream.set_nodelay(true);
        let deadline = Instant::now() + PATIENCE;
        Self { stream, deadline }
    }

    /// Some bytes; 0 at the end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Problem> {
        loop {
            let left = self.left().ok_or(Problem::Status(408, "too slow"))?;
            let got = self.stream.set_read_timeout(Some(left));
            match got.and_then(|()| self.stream.read(buffer)) {
                Ok(count) => return Ok(count),
                // The deadline tells which of them it was.
                Err(error) if is_temporary(&error) => {}
                Err(_) => return Err(Problem::Gone),
            }
        }
    }

    /// Writes all of it, or as much as the client takes in time.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Problem> {
        while !bytes.is_empty() {
            let left = self.left().ok_or(Problem::Gone)?;
            let put = self.stream.set_write_timeout(Some(left));
            match put.and_then(|()| self.stream.write(bytes)) {
                Ok(0) => return Err(Problem::Gone),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_temporary(&error) => {}
                Err(_) => return Err(Problem::Gone),
            }
        }
        Ok(())
    }

    /// An answer has as long as its request had.
    pub(crate) fn turn(&mut self) {
        self.deadline = Instant::now() + PATIENCE;
    }

    /// Ends the connection. If it were closed while something is unread, the system would reset it,
    /// and the client would never see the answer.
    pub(crate) fn close(mut self) {
        if self.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        self.deadline = Instant::now() + FAREWELL;
        let (mut buffer, mut left) = ([0; 4096], LEFTOVERS);
        while let Ok(count @ 1..) = self.read(&mut buffer)
            && count < left
        {
            left -= count;
        }
    }

    /// Time to the deadline; a timeout of zero is none, so that is never asked for.
    fn left(&self) -> Option<Duration> {
        let left = self.deadline.checked_duration_since(Instant::now())?;
        (!left.is_zero()).then_some(left)
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut
    )
}
