//! Reads a request into its heap.

use flagstone::Heap;
use flagstone::allocator_api2::vec::Vec as HeapVec;

use crate::wire::{Problem, Wire};

/// Longest request line and headers.
const LONGEST_HEAD: usize = 8 << 10;

/// Longest body. Far above any heap's limit, so that it is the limit that refuses.
const LONGEST_BODY: usize = 1 << 30;

/// What has arrived of a request: its head, and perhaps the begin of its body.
pub(crate) struct Received<'h> {
    bytes: HeapVec<u8, &'h Heap>,
    /// Where the head ends, with its empty line.
    body: usize,
}

/// A request line and headers, which lie in what was received.
pub(crate) struct Request<'r, 'h> {
    pub(crate) method: &'r str,
    pub(crate) path: &'r str,
    query: &'r str,
    headers: HeapVec<(&'r str, &'r str), &'h Heap>,
    /// Of the body, what came with the head.
    rest: &'r [u8],
}

/// Reads until the empty line.
pub(crate) fn receive<'h>(wire: &mut Wire, heap: &'h Heap) -> Result<Received<'h>, Problem> {
    let mut bytes = HeapVec::new_in(heap);
    let mut chunk = [0; 1024];
    loop {
        let count = match wire.read(&mut chunk) {
            Ok(0) if bytes.is_empty() => return Err(Problem::Gone),
            Ok(0) => return Err(Problem::Status(400, "the request ends in its head")),
            // A browser opens connections ahead, and uses some of them never.
            Err(Problem::Status(..)) if bytes.is_empty() => return Err(Problem::Gone),
            other => other?,
        };
        // The end may have arrived in two parts.
        let from = bytes.len().saturating_sub(3);
        bytes.extend_from_slice(&chunk[..count]);
        let end = bytes[from..]
            .windows(4)
            .position(|four| four == b"\r\n\r\n");
        let head = end.map_or(bytes.len(), |end| from + end + 4);
        if head > LONGEST_HEAD {
            return Err(Problem::Status(431, "the head is too long"));
        }
        if end.is_some() {
            return Ok(Received { bytes, body: head });
        }
    }
}

impl<'h> Received<'h> {
    pub(crate) fn parse(&self, heap: &'h Heap) -> Result<Request<'_, 'h>, Problem> {
        let bad = |reason| Problem::Status(400, reason);
        let (head, rest) = self.bytes.split_at(self.body);
        let head = str::from_utf8(head).map_err(|_| bad("the head is not UTF-8"))?;
        let mut lines = head.trim_end_matches("\r\n").split("\r\n");
        let mut line = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (line.next(), line.next(), line.next(), line.next())
        else {
            return Err(bad("the request line has not three words"));
        };
        if !matches!(version, "HTTP/1.0" | "HTTP/1.1") {
            return Err(Problem::Status(505, "HTTP/1.1 is spoken here"));
        }
        if method.is_empty() || !target.starts_with('/') {
            return Err(bad("the request line names no method or no path"));
        }
        let mut headers = HeapVec::new_in(heap);
        for line in lines {
            let (name, value) = line.split_once(':').ok_or(bad("a header has no colon"))?;
            if name.is_empty() || name.contains([' ', '\t']) {
                return Err(bad("a header has no good name"));
            }
            headers.push((name, value.trim()));
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Ok(Request {
            method,
            path,
            query,
            headers,
            rest,
        })
    }
}

impl<'h> Request<'_, 'h> {
    fn header(&self, name: &str) -> Option<&str> {
        let found = |header: &&(&str, &str)| header.0.eq_ignore_ascii_case(name);
        self.headers.iter().find(found).map(|header| header.1)
    }

    /// The number `n` of the query.
    pub(crate) fn number(&self) -> Result<u64, Problem> {
        let pairs = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|pair| pair.0 == "n").map(|pair| pair.1);
        match (values.next().map(str::parse), values.next()) {
            (Some(Ok(number)), None) => Ok(number),
            _ => Err(Problem::Status(400, "?n= and one whole number are needed")),
        }
    }

    /// Reads the body. Its whole length is reserved first: if the heap has no room for it, nothing
    /// of it need be read, and a client that waits to be told to go on sends nothing.
    pub(crate) fn body(
        &self,
        wire: &mut Wire,
        heap: &'h Heap,
    ) -> Result<HeapVec<u8, &'h Heap>, Problem> {
        if self.header("transfer-encoding").is_some() {
            return Err(Problem::Status(501, "a body must come in one piece"));
        }
        let length = self.header("content-length");
        let length = length.ok_or(Problem::Status(411, "a body needs its length"))?;
        let length: usize = match length.parse() {
            Ok(length) if length <= LONGEST_BODY => length,
            Ok(_) => return Err(Problem::Status(413, "the body is too long")),
            Err(_) => return Err(Problem::Status(400, "the body's length is no number")),
        };
        let mut body = HeapVec::with_capacity_in(length, heap);
        body.extend_from_slice(&self.rest[..length.min(self.rest.len())]);
        let waits = self.header("expect").unwrap_or_default();
        if body.len() < length && waits.eq_ignore_ascii_case("100-continue") {
            wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut chunk = [0; 4096];
        while body.len() < length {
            let most = chunk.len().min(length - body.len());
            match wire.read(&mut chunk[..most])? {
                0 => return Err(Problem::Status(400, "the request ends in its body")),
                count => body.extend_from_slice(&chunk[..count]),
            }
        }
        Ok(body)
    }
}
