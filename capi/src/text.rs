//! Text of bounded length on the stack, for what must not allocate.

use core::ffi::c_int;
use core::fmt::{self, Write};

use engine::raw;

/// At most `N` bytes; what does not fit is cut off.
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
        }
    }

    pub(crate) fn add(&mut self, message: fmt::Arguments<'_>) {
        // Writing never fails.
        let _ = self.write_fmt(message);
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Writes the text to a file descriptor, as far as it takes it.
    pub(crate) fn write_to(&self, file: c_int) {
        raw::write(file, self.as_bytes());
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.length..];
        let count = text.len().min(room.len());
        room[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        Ok(())
    }
}
