//! What can go wrong, said in one line without allocating.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};

/// A broken invariant that [`crate::Flagstone::verify`] met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// What should have held, with its number in ALGORITHM.md.
    pub invariant: &'static str,
    /// The address of what broke it: a block, slab, chunk or mapping.
    pub address: usize,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} does not hold at {:#x}",
            self.invariant, self.address
        )
    }
}

impl core::error::Error for Violation {}

/// The system refused to start the helper's thread, or there is no memory for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHelper;

impl fmt::Display for NoHelper {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("no thread could be started for the helper")
    }
}

impl core::error::Error for NoHelper {}

/// A wrong use of the allocator that ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misuse {
    /// The address is in no slab, span or mapping of ours, though one may have been there.
    Foreign,
    /// The address is in a slab of another class, in a span instead of a slab, or the reverse.
    WrongClass,
    /// The address is not the start of a block.
    Interior,
    /// The block is free already.
    DoubleFree,
    /// What stands behind the block is not what was written there.
    Overflow,
    /// Zeros stand there, as they do behind a block that was freed.
    Erased,
    /// A free block was written to.
    UseAfterFree,
    /// A block about to be handed out is live.
    Overlap,
}

impl fmt::Display for Misuse {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Foreign => {
                "free of a pointer that was not allocated here, or whose memory went back"
            }
            Self::WrongClass => "free with a layout of another size class",
            Self::Interior => "free of a pointer into the middle of a block",
            Self::DoubleFree => "double free",
            Self::Overflow => "write past the end of a block, or free with another size",
            Self::Erased => {
                "double free, or zeros written past the end of a block, or free with another size"
            }
            Self::UseAfterFree => "write to a freed block",
            Self::Overlap => "a live block is among the free ones",
        })
    }
}

/// A line of text on the stack; what does not fit is cut off.
pub(crate) struct Line {
    bytes: [u8; Self::CAPACITY],
    length: usize,
}

impl Line {
    const CAPACITY: usize = 200;

    /// `flagstone: `, the message, and a line feed.
    pub(crate) fn new(message: fmt::Arguments<'_>) -> Self {
        let mut line = Self {
            bytes: [b'\n'; Self::CAPACITY],
            length: 0,
        };
        // A cut line is still worth printing: `write_str` never fails.
        let _ = write!(line, "flagstone: {message}");
        line
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..=self.length]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The last byte stays a line feed.
        let room = Self::CAPACITY - 1 - self.length;
        let taken = text.len().min(room);
        let place = &mut self.bytes[self.length..self.length + taken];
        for (byte, letter) in place.iter_mut().zip(text.bytes()) {
            // Whatever a value holds, the line stays one.
            *byte = if letter.is_ascii_control() {
                b'?'
            } else {
                letter
            };
        }
        self.length += taken;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_in_a_line_feed_however_long() {
        assert_eq!(
            Line::new(format_args!("{}", 7)).as_bytes(),
            b"flagstone: 7\n"
        );
        assert_eq!(
            Line::new(format_args!("a\n\0b")).as_bytes(),
            b"flagstone: a??b\n"
        );
        let long = Line::new(format_args!("{:300}", 7));
        assert_eq!(long.as_bytes().len(), Line::CAPACITY);
        assert_eq!(long.as_bytes().last(), Some(&b'\n'));
    }
}
