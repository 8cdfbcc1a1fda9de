//! The raw file: a header and one record per event, as the recorder writes them.
//!
//! A record is written while the block is certainly the caller's: after it was allocated, before it
//! is freed. A reallocation is two records, for in between the old address may go to another thread.

use std::io::{self, Read};

pub(crate) const HEADER: [u8; 16] = *b"ALLOCRAW\x01\0\0\0\x18\0\0\0";
const MAGIC: usize = 8;

pub(crate) const RECORD: usize = 24;

// The header's last word.
const _: () = assert!(HEADER[12] as usize == RECORD);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    Alloc = 1,
    AllocZeroed = 2,
    /// The block that is about to be reallocated, as it is.
    ReallocFrom = 3,
    /// The same block as it is now, on the same thread. Address 0: it could not be had.
    ReallocTo = 4,
    Free = 5,
    /// Nothing was lost: the size is the number of events before.
    End = 6,
}

impl Step {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Alloc,
            2 => Self::AllocZeroed,
            3 => Self::ReallocFrom,
            4 => Self::ReallocTo,
            5 => Self::Free,
            6 => Self::End,
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) step: Step,
    pub(crate) align_log2: u8,
    /// Counted from 1 in the order of first events.
    pub(crate) thread: u32,
    pub(crate) size: u64,
    pub(crate) address: u64,
}

impl Event {
    pub(crate) fn to_bytes(self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[0] = self.step as u8;
        bytes[1] = self.align_log2;
        bytes[4..8].copy_from_slice(&self.thread.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.size.to_le_bytes());
        bytes[16..].copy_from_slice(&self.address.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; RECORD]) -> Option<Self> {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        if bytes[2..4] != [0, 0] {
            return None;
        }
        Some(Self {
            step: Step::from_byte(bytes[0])?,
            align_log2: bytes[1],
            thread: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            size: word(8),
            address: word(16),
        })
    }
}

/// What comes next in a raw file.
#[derive(Debug)]
pub(crate) enum Next {
    Event(Event),
    /// No record of this form is ever written.
    Bad,
    /// The file stops, perhaps within a record.
    Nothing,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Foreign,
    Version,
    Short,
}

pub(crate) struct Reader<R> {
    input: R,
}

impl<R: Read> Reader<R> {
    /// Reads past the header.
    pub(crate) fn new(mut input: R) -> io::Result<Result<Self, HeaderError>> {
        let mut header = [0; HEADER.len()];
        let length = fill(&mut input, &mut header)?;
        let magic = length.min(MAGIC);
        Ok(if header[..magic] != HEADER[..magic] {
            Err(HeaderError::Foreign)
        } else if length < header.len() {
            Err(HeaderError::Short)
        } else if header != HEADER {
            Err(HeaderError::Version)
        } else {
            Ok(Self { input })
        })
    }

    pub(crate) fn next(&mut self) -> io::Result<Next> {
        let mut record = [0; RECORD];
        Ok(if fill(&mut self.input, &mut record)? < RECORD {
            Next::Nothing
        } else {
            Event::from_bytes(&record).map_or(Next::Bad, Next::Event)
        })
    }

    /// Whether nothing follows.
    pub(crate) fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(fill(&mut self.input, &mut [0])? == 0)
    }
}

/// Reads until the buffer is full or the input ends; how many bytes.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match input.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
