//! What can go wrong, said in one line without allocating.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};

/// A broken invariant that [`crate::Flagstone::verify`] met. It displays as one line.
///
/// ```
/// use flagstone::{Flagstone, Violation};
///
/// /// For a test's end, or a signal to a server that behaves strangely.
/// fn check() -> Result<(), Violation> {
///     Flagstone::verify().inspect_err(|violation| {
///         eprintln!("{} at {:#x}", violation.invariant, violation.address);
///     })
/// }
/// # assert_eq!(check(), Ok(()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// What should have held, with its number in [`algorithm::states`](crate::algorithm::states).
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

/// The system refused to start the background thread, or there is no memory for it; where calls pass through to the
/// system's allocator, there is none to start.
///
/// ```
/// # use flagstone::Flagstone;
/// # static ALLOCATOR: Flagstone = Flagstone::new();
/// // Without it, memory goes back when the program calls the allocator, or by `Flagstone::purge`.
/// if let Err(error) = ALLOCATOR.start_background() {
///     eprintln!("{error}; going on without");
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartError;

impl fmt::Display for StartError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("no thread could be started for the background thread")
    }
}

impl core::error::Error for StartError {}

/// What a program called the allocator for when it was found to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Alloc,
    Free,
    Realloc,
    UsableSize,
}

impl fmt::Display for Call {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Alloc => "allocation",
            Self::Free => "free",
            Self::Realloc => "realloc",
            Self::UsableSize => "usable size",
        })
    }
}

/// A wrong use of the allocator that ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misuse {
    /// The address is in no slab, span or mapping of ours, though one may have been there.
    Foreign,
    /// The address is in memory of ours that is free, though no block may ever have begun there.
    Vacant,
    /// The address is in a slab of another class, in a span instead of a slab, or the reverse.
    WrongClass,
    /// The block was asked for with another size.
    WrongSize,
    /// The address is not the start of a block.
    Interior,
    /// The block is free already.
    Freed,
    /// What stands behind the block is not what was written there.
    Overflow,
    /// Zeros stand there, as they do behind a block that was freed.
    Erased,
    /// A free block was written to.
    UseAfterFree,
    /// A block about to be handed out is live.
    Overlap,
    /// The block is of another first-class heap.
    #[cfg(feature = "heaps")]
    OtherHeap,
}

impl Misuse {
    /// The misuse in words that fit the call: only a free frees twice.
    pub(crate) fn by(self, call: Call) -> impl fmt::Display {
        Fault { misuse: self, call }
    }
}

struct Fault {
    misuse: Misuse,
    call: Call,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { misuse, call } = self;
        if matches!(misuse, Misuse::Freed | Misuse::Vacant | Misuse::Erased) {
            match call {
                Call::Free => out.write_str("double free")?,
                _ => write!(out, "{call} of a freed block")?,
            }
        }
        match misuse {
            Misuse::Foreign => write!(
                out,
                "{call} of a pointer that was not allocated here, or whose memory went back"
            ),
            Misuse::Vacant => write!(out, ", or {call} of a pointer that never was a block"),
            Misuse::WrongClass => write!(out, "{call} with a layout of another size class"),
            Misuse::WrongSize => write!(out, "{call} with another size"),
            Misuse::Interior => write!(out, "{call} of a pointer into the middle of a block"),
            Misuse::Freed => Ok(()),
            Misuse::Overflow => write!(
                out,
                "write past the end of a block, or {call} with another size"
            ),
            Misuse::Erased => write!(
                out,
                ", or zeros written past the end of a block, or {call} with another size"
            ),
            Misuse::UseAfterFree => out.write_str("write to a freed block"),
            Misuse::Overlap => out.write_str("a live block is among the free ones"),
            #[cfg(feature = "heaps")]
            Misuse::OtherHeap => write!(out, "{call} of a block of another heap"),
        }
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
    use std::format;

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

    #[test]
    fn only_a_free_frees_twice() {
        let words = |misuse: Misuse, call| format!("{}", misuse.by(call));
        for misuse in [Misuse::Freed, Misuse::Vacant, Misuse::Erased] {
            assert!(words(misuse, Call::Free).starts_with("double free"));
            for call in [Call::Realloc, Call::UsableSize] {
                let words = words(misuse, call);
                assert!(
                    words.starts_with(&format!("{call} of a freed block")),
                    "{words}"
                );
                assert!(
                    !words.contains("double") && !words.contains("or free"),
                    "{words}"
                );
            }
        }
        let vacant = words(Misuse::Vacant, Call::Free);
        assert_eq!(
            vacant,
            "double free, or free of a pointer that never was a block"
        );
        // With the address, the class and the thread it stays one line.
        let longest = words(Misuse::Erased, Call::UsableSize);
        assert!(longest.len() + 80 < Line::CAPACITY, "{longest}");
    }
}
