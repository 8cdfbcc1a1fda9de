//! What stands in the log of a heap: read as whatever it is, and its sums.

use core::hash::Hasher;
use core::ptr::NonNull;

use siphasher::sip::SipHasher13;

use super::error::MappedError;
use super::source::refused;
use crate::os::shared::{File, Sharing};
use crate::os::{self, PageLen};

pub(super) const WORD: usize = size_of::<u64>();
/// Words that are read and summed at once.
const PART: usize = 64;

/// What the sum of a record, or of a head, begins with.
pub(super) fn sum_of(id: u64, sequence: u64) -> SipHasher13 {
    SipHasher13::new_with_keys(id, sequence)
}

/// Its end: whatever follows the same words has another.
pub(super) fn end_of(mut sum: SipHasher13, what: u64) -> u64 {
    sum.write(&what.to_le_bytes());
    sum.finish()
}

/// Adds words as they stand in the file.
pub(super) fn add(sum: &mut SipHasher13, words: &[u64]) {
    for words in words.chunks(PART) {
        let mut part = [[0_u8; WORD]; PART];
        for (bytes, word) in part.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        sum.write(&part.as_flattened()[..words.len() * WORD]);
    }
}

/// The file as it is, to be read: what stands there may be anything.
pub(super) struct Reader {
    base: NonNull<u8>,
    pub(super) bytes: usize,
    length: PageLen,
}

impl Reader {
    pub(super) fn new(file: File) -> Result<Self, MappedError> {
        let (_, bytes) = file.identify().map_err(refused)?;
        let length = PageLen::holding(bytes).ok_or(MappedError::Length)?;
        let base = file.map(length, None, Sharing::Reader).map_err(refused)?;
        Ok(Self {
            base,
            bytes,
            length,
        })
    }

    pub(super) fn at(&self, place: usize) -> NonNull<u8> {
        debug_assert!(place < self.bytes);
        // SAFETY: 1. inside the mapping.
        unsafe { crate::ptr::advance(self.base, place) }
    }

    /// A word of the file; `None` behind its end.
    pub(super) fn word(&self, place: usize) -> Option<u64> {
        if place.checked_add(WORD)? > self.bytes || !place.is_multiple_of(WORD) {
            return None;
        }
        // SAFETY: 1. inside the mapping, aligned. Any bytes are a number, whoever writes them.
        Some(unsafe { self.at(place).cast::<u64>().read_volatile() })
    }

    /// Adds so many bytes, whole words inside the file, to a sum.
    pub(super) fn add(&self, sum: &mut SipHasher13, place: usize, length: usize) -> Option<()> {
        let mut part = [0; PART];
        for done in (0..length).step_by(PART * WORD) {
            let part = &mut part[..((length - done) / WORD).min(PART)];
            for (index, word) in part.iter_mut().enumerate() {
                *word = self.word(place + done + index * WORD)?;
            }
            add(sum, part);
        }
        Some(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // SAFETY: 1. our own, and nobody uses it any more.
        let _ = unsafe { os::unmap(self.base, self.length) };
    }
}
