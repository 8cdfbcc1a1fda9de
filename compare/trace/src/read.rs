//! `Trace`: a packed file, decoded and checked.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use crate::column::{Column, Tag};
use crate::format::Header;
use crate::mapped::MappedVec;
use crate::op::{Kind, Op};

/// Why a file cannot be replayed.
#[derive(Debug)]
pub enum TraceError {
    /// It cannot be read, or there is no memory for it.
    Io(io::Error),
    /// It does not begin like a packed trace.
    NotATrace,
    /// It is of this version, which this crate does not read.
    Version(u32),
    /// It ends too early.
    CutOff,
    /// A byte of it was changed.
    Checksum,
    /// The header contradicts the file.
    Header(&'static str),
    /// The operation of this number, counted from 0, is wrong.
    Bad {
        /// Its number.
        op: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::NotATrace => f.write_str("not a packed trace"),
            Self::Version(version) => write!(f, "a packed trace of version {version}"),
            Self::CutOff => f.write_str("the file is cut off"),
            Self::Checksum => f.write_str("the checksum is wrong: the file is damaged"),
            Self::Header(what) => f.write_str(what),
            Self::Bad { op, what } => write!(f, "operation {op}: {what}"),
        }
    }
}

impl Error for TraceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for TraceError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The operations of a program. Holding one proves:
///
/// 1. An allocation is of a slot that is empty, any other operation of one that holds a block. At
///    the beginning all slots are empty.
/// 2. Slots are below [`slots`](Self::slots), the peak of live blocks, threads below
///    [`threads`](Self::threads).
/// 3. A free has the block's size and alignment, a reallocation its alignment, and no size is 0.
///
/// So an array of `slots` blocks is all that a replay needs, and it may index that array unchecked.
/// Slots that hold a block at the end were never freed by the program (or after the prefix that was
/// packed): a replay frees them itself or leaves them.
///
/// Opening a trace does not use the global allocator, if the path is short (std puts paths of up to
/// 383 bytes on the stack): a replay can begin with an allocator that was never called.
#[derive(Debug)]
pub struct Trace {
    ops: MappedVec<Op>,
    header: Header,
}

impl Trace {
    /// Reads a packed trace.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TraceError> {
        let mut file = File::open(path)?;
        let length = usize::try_from(file.metadata()?.len())
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let mut bytes = MappedVec::zeroed(length)?;
        file.read_exact(&mut bytes)?;
        Self::from_bytes(&bytes)
    }

    /// Reads a packed trace that is in memory.
    pub fn from_bytes(file: &[u8]) -> Result<Self, TraceError> {
        let (header, packed) = Header::of(file)?;
        let length = header
            .columns_length()
            .and_then(|it| usize::try_from(it).ok());
        let length = length.ok_or(TraceError::Header("the columns are too long"))?;
        let mut columns = MappedVec::zeroed(length)?;
        unpack(packed, &mut columns)?;
        Ok(Self {
            ops: decode(&header, &columns)?,
            header,
        })
    }

    /// All operations, in the order in which the recorder saw them.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Blocks that are live at once, at most: what an array for the replay needs.
    pub fn slots(&self) -> usize {
        self.header.slots as usize
    }

    /// Threads, numbered by their first operation.
    pub fn threads(&self) -> usize {
        self.header.threads as usize
    }

    /// The most bytes that were live at once. A block that is being reallocated counts once.
    pub fn peak_live_bytes(&self) -> u64 {
        self.header.peak_live_bytes
    }

    /// The bytes of blocks that are still there after the last operation.
    pub fn end_live_bytes(&self) -> u64 {
        self.header.end_live_bytes
    }

    /// What the decoded operations add to the resident size: whole pages, each of which was written.
    pub fn mapped_bytes(&self) -> usize {
        self.ops.mapped_bytes()
    }
}

/// Fills `columns` with what `packed` holds, which must be exactly that much.
fn unpack(packed: &[u8], columns: &mut [u8]) -> Result<(), TraceError> {
    let mut state = DecompressorOxide::new();
    let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, read, written) = decompress(&mut state, packed, columns, 0, flags);
    if status != TINFLStatus::Done || read != packed.len() || written != columns.len() {
        return Err(TraceError::Header("the columns cannot be unpacked"));
    }
    Ok(())
}

fn decode(header: &Header, columns: &[u8]) -> Result<MappedVec<Op>, TraceError> {
    let mut decoder = Decoder::new(header, columns)?;
    // The sum of the columns is in memory, so each length is a `usize`.
    let (tags, _) = columns.split_at(header.ops as usize);
    let mut ops = MappedVec::with_capacity(tags.len())?;
    for (number, &tag) in tags.iter().enumerate() {
        let next = decoder.next(Tag(tag));
        ops.push(next.map_err(|what| TraceError::Bad { op: number, what })?);
    }
    decoder.check_end(header).map_err(TraceError::Header)?;
    Ok(ops)
}

#[derive(Clone, Copy)]
struct Block {
    size: u64,
    align_log2: u8,
}

/// In place of the slot of a block that is not live any more.
const GONE: u32 = u32::MAX;

struct Decoder<'a> {
    threads: Column<'a>,
    blocks: Column<'a>,
    sizes: Column<'a>,
    thread: u16,
    threads_seen: u32,
    /// The birth that was named last.
    named: i64,
    /// By birth: the block's slot, or `GONE`.
    births: MappedVec<u32>,
    /// By slot: the block that is or was there.
    slots: MappedVec<Block>,
    max_slots: usize,
    empty: MappedVec<u32>,
    live_bytes: u64,
    peak_live_bytes: u64,
}

impl<'a> Decoder<'a> {
    fn new(header: &Header, columns: &'a [u8]) -> io::Result<Self> {
        let (_, rest) = columns.split_at(header.ops as usize);
        let (threads, rest) = rest.split_at(header.threads_length as usize);
        let (blocks, sizes) = rest.split_at(header.blocks_length as usize);
        let max_slots = header.slots as usize;
        Ok(Self {
            threads: Column(threads),
            blocks: Column(blocks),
            sizes: Column(sizes),
            thread: 0,
            threads_seen: 0,
            named: 0,
            births: MappedVec::with_capacity(header.ops as usize)?,
            slots: MappedVec::with_capacity(max_slots)?,
            max_slots,
            empty: MappedVec::with_capacity(max_slots)?,
            live_bytes: 0,
            peak_live_bytes: 0,
        })
    }

    fn next(&mut self, tag: Tag) -> Result<Op, &'static str> {
        if tag.is_switch() {
            let next = self.threads.next().ok_or("a thread is missing")?;
            let next = u16::try_from(next).map_err(|_| "the thread is too high")?;
            if next == self.thread {
                return Err("a switch to the same thread");
            }
            self.thread = next;
        }
        let thread = u32::from(self.thread);
        if thread > self.threads_seen {
            return Err("a thread is left out");
        }
        self.threads_seen = self.threads_seen.max(thread + 1);
        match tag.kind() {
            0 => self.alloc(Kind::Alloc, tag.align_log2()),
            1 => self.alloc(Kind::AllocZeroed, tag.align_log2()),
            _ if tag.align_log2() != 0 => Err("an alignment for a block that has one"),
            2 => self.realloc(),
            _ => self.free(),
        }
    }

    fn op(&mut self, kind: Kind, slot: u32, block: Block) -> Result<Op, &'static str> {
        Op::new(kind, self.thread, slot, block.size, block.align_log2)
            .ok_or("no allocator is asked for this size and alignment")
    }

    fn size(&mut self) -> Result<u64, &'static str> {
        let size = self.sizes.next().ok_or("a size is missing")?;
        let total = self.live_bytes.checked_add(size);
        self.live_bytes = total.ok_or("more live bytes than there can be")?;
        Ok(size)
    }

    fn alloc(&mut self, kind: Kind, align_log2: u8) -> Result<Op, &'static str> {
        let size = self.size()?;
        self.peak_live_bytes = self.peak_live_bytes.max(self.live_bytes);
        let block = Block { size, align_log2 };
        let slot = match self.empty.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.max_slots => {
                self.slots.push(block);
                // Below the header's number of slots, a `u32`.
                (self.slots.len() - 1) as u32
            }
            None => return Err("more live blocks than slots"),
        };
        self.slots[slot as usize] = block;
        self.births.push(slot);
        self.op(kind, slot, block)
    }

    /// The next block that is named, by its birth, and its slot.
    fn block(&mut self) -> Result<(usize, u32), &'static str> {
        let difference = self.blocks.next_signed().ok_or("a block is missing")?;
        let birth = self.named.checked_add(difference);
        self.named = birth.ok_or("no block was born then")?;
        let birth = usize::try_from(self.named).map_err(|_| "no block was born then")?;
        match self.births.get(birth) {
            None => Err("the block is not born yet"),
            Some(&GONE) => Err("the block is freed already"),
            Some(&slot) => Ok((birth, slot)),
        }
    }

    fn realloc(&mut self) -> Result<Op, &'static str> {
        let (_, slot) = self.block()?;
        let old = self.slots[slot as usize];
        self.live_bytes -= old.size;
        let block = Block {
            size: self.size()?,
            ..old
        };
        self.peak_live_bytes = self.peak_live_bytes.max(self.live_bytes);
        self.slots[slot as usize] = block;
        self.op(Kind::Realloc, slot, block)
    }

    fn free(&mut self) -> Result<Op, &'static str> {
        let (birth, slot) = self.block()?;
        let block = self.slots[slot as usize];
        self.live_bytes -= block.size;
        self.births[birth] = GONE;
        self.empty.push(slot);
        self.op(Kind::Free, slot, block)
    }

    /// Everything was used and the header told the truth.
    fn check_end(&self, header: &Header) -> Result<(), &'static str> {
        if !(self.threads.is_empty() && self.blocks.is_empty() && self.sizes.is_empty()) {
            return Err("a column is longer than its operations need");
        }
        let found = (self.slots.len(), self.threads_seen);
        if found != (self.max_slots, header.threads) {
            return Err("the header has other numbers of slots and threads");
        }
        if (self.peak_live_bytes, self.live_bytes)
            != (header.peak_live_bytes, header.end_live_bytes)
        {
            return Err("the header has other numbers of live bytes");
        }
        Ok(())
    }
}
