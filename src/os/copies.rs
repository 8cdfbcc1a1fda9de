//! Copies of files: in blocks that both share, by the kernel, or by a buffer.

use core::ops::Range;

use super::failpoints;
use super::shared::{File, Refusal, again};
use super::syscall::{call, word};

/// The request by which a file has another's blocks.
#[expect(clippy::cast_possible_truncation, reason = "requests have 32 bits")]
const CLONE: usize = libc::FICLONE as usize;

impl File {
    /// Has this empty file be a copy of another, in blocks that both share until somebody stores in one. Few filesystems can,
    /// and none from one to another.
    pub(crate) fn share_blocks_of(self, from: Self) -> Result<(), Refusal> {
        if failpoints::refuses() {
            return Err(libc::EOPNOTSUPP);
        }
        let arguments = [self.word(), word(CLONE), from.word()];
        // SAFETY: 1. changes no memory.
        again(|| unsafe { call(libc::SYS_ioctl, arguments) }).map(|_| ())
    }

    /// The first bytes of a range that are no hole; `None` if all are. Where the filesystem knows no holes, there are none.
    pub(crate) fn stored_in(self, range: Range<usize>) -> Option<Range<usize>> {
        if range.is_empty() {
            return None;
        }
        let start = match self.seek(libc::SEEK_DATA, range.start) {
            // Holes up to the end of the file.
            Err(libc::ENXIO) => return None,
            Err(_) => return Some(range),
            Ok(start) => start,
        };
        let end = self.seek(libc::SEEK_HOLE, start).unwrap_or(range.end);
        let stored = start.max(range.start)..end.min(range.end);
        (!stored.is_empty()).then_some(stored)
    }

    fn seek(self, what: i32, from: usize) -> Result<usize, Refusal> {
        if failpoints::refuses() {
            return Err(libc::EINVAL);
        }
        let arguments = [self.word(), word(from), word(what as usize)];
        // SAFETY: 1. changes no memory.
        unsafe { call(libc::SYS_lseek, arguments) }.map(<*mut _>::addr)
    }

    /// Has the kernel copy these bytes to the same place of another file; how many it did.
    pub(crate) fn copy_to(self, to: Self, bytes: Range<usize>) -> Result<usize, Refusal> {
        if failpoints::refuses() {
            return Err(libc::EXDEV);
        }
        let mut places = [bytes.start as u64; 2];
        let [read, written] = places.each_mut().map(|place| (&raw mut *place).cast());
        let (length, none) = (word(bytes.len()), word(0));
        let arguments = [self.word(), read, to.word(), written, length, none];
        // SAFETY: 1. changes the two places, which are ours.
        again(|| unsafe { call(libc::SYS_copy_file_range, arguments) }).map(<*mut _>::addr)
    }
}
