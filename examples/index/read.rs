//! Reads one file if it is text.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A NUL byte this early spares reading the rest of a large binary file.
const SNIFF: u64 = 8192;

/// What a readable file turned out to be.
pub(crate) enum Content<'a> {
    Text(&'a str),
    /// It has a NUL byte.
    Binary,
    NotUtf8,
}

/// Reads `path` into `buffer`, which is reused from file to file.
pub(crate) fn read<'a>(path: &Path, buffer: &'a mut Vec<u8>) -> io::Result<Content<'a>> {
    buffer.clear();
    let mut file = File::open(path)?;
    file.by_ref().take(SNIFF).read_to_end(buffer)?;
    if buffer.contains(&0) {
        return Ok(Content::Binary);
    }
    let sniffed = buffer.len();
    file.read_to_end(buffer)?;
    if buffer[sniffed..].contains(&0) {
        return Ok(Content::Binary);
    }
    Ok(str::from_utf8(buffer).map_or(Content::NotUtf8, Content::Text))
}
