//! From a raw recording to a packed trace, checking that it makes sense.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io::{self, Read};

use crate::column::Tag;
use crate::encode::{Birth, Encoder};
use crate::format::MAX_OPS;
use crate::op::{Kind, Op};
use crate::raw::{Event, HeaderError, Next, Reader, Step};

/// Why a raw file cannot be packed.
#[derive(Debug)]
pub enum PackError {
    /// It cannot be read.
    Io(io::Error),
    /// It does not begin like a recording.
    NotARecording,
    /// It is a recording of another version of this crate.
    Version,
    /// It has no end mark: the program was killed, or the disk was full. So many whole operations
    /// are there.
    CutOff(u64),
    /// The event of this number, counted from 0, cannot have happened.
    Bad {
        /// Its number.
        event: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::NotARecording => f.write_str("not a recording"),
            Self::Version => f.write_str("a recording of another version"),
            Self::CutOff(ops) => write!(
                f,
                "the recording is cut off after {ops} operations: the program did not end in the \
                 ordinary way, or the disk was full"
            ),
            Self::Bad { event, what } => write!(f, "event {event}: {what}"),
        }
    }
}

impl Error for PackError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for PackError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Packs a raw recording; with `first`, only so many operations from its beginning, and then the
/// recording may be cut off after them. The result is the whole file that
/// [`Trace::open`](crate::Trace::open) reads. `raw` is read in small pieces: hand over a `BufReader`.
pub fn pack(raw: impl Read, first: Option<u64>) -> Result<Vec<u8>, PackError> {
    let mut raw = Reader::new(raw)?.map_err(|error| match error {
        HeaderError::Foreign => PackError::NotARecording,
        HeaderError::Version => PackError::Version,
        HeaderError::Short => PackError::CutOff(0),
    })?;
    let mut program = Program::default();
    for event in 0_u64.. {
        if first == Some(program.encoder.ops()) {
            break;
        }
        let bad = |what| PackError::Bad { event, what };
        match raw.next()? {
            Next::Nothing => return Err(PackError::CutOff(program.encoder.ops())),
            Next::Bad => return Err(bad("no record of this form is written")),
            Next::Event(end) if end.step == Step::End => {
                if end.size != event || (end.align_log2, end.thread, end.address) != (0, 0, 0) {
                    return Err(bad("the end mark is wrong: events are missing"));
                }
                if !raw.is_at_end()? {
                    return Err(bad("bytes after the end mark"));
                }
                break;
            }
            Next::Event(next) => program.take(next).map_err(bad)?,
        }
    }
    Ok(program.encoder.finish())
}

#[derive(Clone, Copy)]
struct Block {
    birth: Birth,
    size: u64,
    align_log2: u8,
}

/// The recorded program so far.
#[derive(Default)]
struct Program {
    encoder: Encoder,
    /// By address.
    live: HashMap<u64, Block>,
    /// Blocks that a thread is reallocating, with their addresses.
    moving: HashMap<u32, (u64, Block)>,
    /// The trace's numbers of the recorder's threads, given at the first operation.
    threads: HashMap<u32, u16>,
}

impl Program {
    fn take(&mut self, event: Event) -> Result<(), &'static str> {
        if self.encoder.ops() == MAX_OPS {
            return Err("more operations than a trace can hold");
        }
        // Thread and slot do not matter here.
        Op::new(Kind::Alloc, 0, 0, event.size, event.align_log2)
            .filter(|_| event.align_log2 <= Tag::MAX_ALIGN_LOG2)
            .ok_or("no allocator is asked for this size and alignment")?;
        match event.step {
            Step::Alloc => self.alloc(Kind::Alloc, event),
            Step::AllocZeroed => self.alloc(Kind::AllocZeroed, event),
            Step::ReallocFrom => {
                let block = self.remove(event)?;
                match self.moving.insert(event.thread, (event.address, block)) {
                    None => Ok(()),
                    Some(_) => Err("the thread is reallocating another block"),
                }
            }
            Step::ReallocTo => self.moved(event),
            Step::Free => {
                let block = self.remove(event)?;
                let thread = self.thread(event.thread)?;
                self.encoder.free(thread, block.birth, block.size);
                Ok(())
            }
            Step::End => Err("an end mark in the middle"),
        }
    }

    fn thread(&mut self, recorded: u32) -> Result<u16, &'static str> {
        let next = self.threads.len();
        if let Some(&thread) = self.threads.get(&recorded) {
            return Ok(thread);
        }
        let thread = u16::try_from(next).map_err(|_| "more threads than a trace can hold")?;
        self.threads.insert(recorded, thread);
        Ok(thread)
    }

    fn alloc(&mut self, kind: Kind, event: Event) -> Result<(), &'static str> {
        self.check_room(event.size)?;
        let thread = self.thread(event.thread)?;
        let block = Block {
            birth: self
                .encoder
                .alloc(kind, thread, event.size, event.align_log2),
            size: event.size,
            align_log2: event.align_log2,
        };
        self.insert(event.address, block)
    }

    fn moved(&mut self, event: Event) -> Result<(), &'static str> {
        let (old_address, block) = self
            .moving
            .remove(&event.thread)
            .ok_or("the thread is not reallocating a block")?;
        if block.align_log2 != event.align_log2 {
            return Err("the block was reallocated with another alignment");
        }
        if event.address == 0 {
            return self.insert(old_address, block);
        }
        self.check_room(event.size)?;
        let thread = self.thread(event.thread)?;
        self.encoder
            .realloc(thread, block.birth, block.size, event.size);
        let size = event.size;
        self.insert(event.address, Block { size, ..block })
    }

    fn check_room(&self, size: u64) -> Result<(), &'static str> {
        let total = self.encoder.live_bytes().checked_add(size);
        total.map(|_| ()).ok_or("more live bytes than there can be")
    }

    fn insert(&mut self, address: u64, block: Block) -> Result<(), &'static str> {
        if address == 0 {
            return Err("a block at address 0");
        }
        match self.live.insert(address, block) {
            None => Ok(()),
            Some(_) => Err("the address is that of a live block"),
        }
    }

    /// Takes away the block that an event names, which must be as the event says.
    fn remove(&mut self, event: Event) -> Result<Block, &'static str> {
        let block = self.live.remove(&event.address);
        let block = block.ok_or("no live block has this address")?;
        if (block.size, block.align_log2) != (event.size, event.align_log2) {
            return Err("the block has another size or alignment");
        }
        Ok(block)
    }
}
