//! The packed file: a header, and columns compressed together.
//!
//! | column | holds |
//! |---|---|
//! | tags | a byte per operation: kind, thread switch, alignment of a new block |
//! | threads | at each switch, the thread that goes on |
//! | blocks | for each reallocation and free, which block: the difference between its birth and that of the last one named |
//! | sizes | for each allocation and reallocation, the bytes |
//!
//! A block's birth is the number of allocations before it. Programs free in the order of birth more
//! often than in the order of anything else. Slots are not stored: a new block takes the slot that was
//! emptied last, or else the next one. Nor are sizes and alignments that follow from earlier ones.

use crate::read::TraceError;

pub(crate) const MAGIC: [u8; 8] = *b"alloctrc";
pub(crate) const VERSION: u32 = 1;
pub(crate) const HEADER: usize = 80;

/// Where the checksum stands: CRC-32 of all other bytes of the file.
const CHECKSUM: usize = 20;

/// Deflate makes at most this many bytes from one, so the file's size bounds what is mapped for it.
const MAX_RATIO: u64 = 1032;

/// Operations that a trace may have: 4 GiB of `Op`.
pub(crate) const MAX_OPS: u64 = 1 << 28;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) slots: u32,
    pub(crate) threads: u32,
    /// Also the length of the column of tags.
    pub(crate) ops: u64,
    pub(crate) peak_live_bytes: u64,
    pub(crate) end_live_bytes: u64,
    pub(crate) threads_length: u64,
    pub(crate) blocks_length: u64,
    pub(crate) sizes_length: u64,
    pub(crate) packed_length: u64,
}

/// Reads numbers one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (bytes, rest) = self
            .0
            .split_first_chunk()
            .expect("the header is long enough");
        self.0 = rest;
        *bytes
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn half(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
}

fn checksum(file: &[u8]) -> u32 {
    let mut state = crc32fast::Hasher::new();
    state.update(&file[..CHECKSUM]);
    state.update(&file[CHECKSUM + 4..]);
    state.finalize()
}

/// Puts the checksum of a whole file into its place.
pub(crate) fn seal(file: &mut [u8]) {
    let sum = checksum(file).to_le_bytes();
    file[CHECKSUM..CHECKSUM + 4].copy_from_slice(&sum);
}

impl Header {
    /// The file: this header and the packed columns, sealed.
    pub(crate) fn file(&self, packed: &[u8]) -> Vec<u8> {
        let mut file = Vec::with_capacity(HEADER + packed.len());
        file.extend(MAGIC);
        for half in [VERSION, self.slots, self.threads, 0] {
            file.extend(half.to_le_bytes());
        }
        for word in [
            self.ops,
            self.peak_live_bytes,
            self.end_live_bytes,
            self.threads_length,
            self.blocks_length,
            self.sizes_length,
            self.packed_length,
        ] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packed);
        seal(&mut file);
        file
    }

    /// The header, with all limits checked, and the packed columns.
    pub(crate) fn of(file: &[u8]) -> Result<(Self, &[u8]), TraceError> {
        let magic = file.len().min(MAGIC.len());
        if file[..magic] != MAGIC[..magic] {
            return Err(TraceError::NotATrace);
        }
        let (bytes, packed) = file.split_at_checked(HEADER).ok_or(TraceError::CutOff)?;
        let mut fields = Fields(&bytes[MAGIC.len()..]);
        let version = fields.half();
        if version != VERSION {
            return Err(TraceError::Version(version));
        }
        let (slots, threads, sum) = (fields.half(), fields.half(), fields.half());
        let header = Self {
            slots,
            threads,
            ops: fields.word(),
            peak_live_bytes: fields.word(),
            end_live_bytes: fields.word(),
            threads_length: fields.word(),
            blocks_length: fields.word(),
            sizes_length: fields.word(),
            packed_length: fields.word(),
        };
        if header.packed_length > packed.len() as u64 {
            return Err(TraceError::CutOff);
        }
        if header.packed_length < packed.len() as u64 {
            return Err(TraceError::Header("bytes after the end"));
        }
        if sum != checksum(file) {
            return Err(TraceError::Checksum);
        }
        header.check()?;
        Ok((header, packed))
    }

    fn check(&self) -> Result<(), TraceError> {
        let limit = self.packed_length.saturating_mul(MAX_RATIO);
        if self.columns_length().is_none_or(|length| length > limit) {
            return Err(TraceError::Header("the columns are too long for the file"));
        }
        if self.ops > MAX_OPS {
            return Err(TraceError::Header("too many operations"));
        }
        if u64::from(self.slots) > self.ops {
            return Err(TraceError::Header("more slots than operations"));
        }
        if u64::from(self.threads) > self.ops || self.threads > u32::from(u16::MAX) + 1 {
            return Err(TraceError::Header("too many threads"));
        }
        Ok(())
    }

    /// Bytes of all columns.
    pub(crate) fn columns_length(&self) -> Option<u64> {
        self.ops
            .checked_add(self.threads_length)?
            .checked_add(self.blocks_length)?
            .checked_add(self.sizes_length)
    }
}
