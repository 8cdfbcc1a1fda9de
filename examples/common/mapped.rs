//! What the examples of `Mapped` heaps share.

use core::num::IntErrorKind;
use std::io::{self, IsTerminal};
use std::path::Path;

use flagstone::MappedError;
use indicatif::{ProgressBar, ProgressStyle};

/// A heap's capacity is a multiple of this.
const STEP: usize = 64 << 10;

/// A path as the library wants it.
pub(crate) fn bytes_of(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

/// `4096`, `64K`, `2M`, `1G`: a count of bytes from the command line.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.as_bytes().last().map(u8::to_ascii_uppercase) {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        Some(b'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let count = digits
        .parse::<usize>()
        .map_err(|error| match error.kind() {
            IntErrorKind::PosOverflow => String::from("too much"),
            _ => String::from("not a number of bytes, such as 4096, 64K, 2M or 1G"),
        })?;
    let bytes = count.checked_mul(1 << shift);
    bytes.ok_or_else(|| String::from("too much"))
}

/// The capacity that has room for so many bytes.
pub(crate) fn capacity(text: &str) -> Result<usize, String> {
    let bytes = size(text)?.checked_next_multiple_of(STEP);
    bytes.ok_or_else(|| String::from("too much"))
}

/// The error in words, with what the kernel says.
pub(crate) fn why(error: MappedError) -> String {
    match error {
        MappedError::System { errno } => io::Error::from_raw_os_error(errno).to_string(),
        error => error.to_string(),
    }
}

/// A bar on stderr, if that is a terminal.
pub(crate) fn bar(length: u64, is_bytes: bool) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(if is_bytes {
        "{bar:40} {bytes}/{total_bytes}, {eta} left {msg}"
    } else {
        "{bar:40} {pos}/{len}, {eta} left {msg}"
    });
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}
