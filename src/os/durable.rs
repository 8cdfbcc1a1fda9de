//! Bytes of files: read, and written so that one knows when they outlive the machine.

use core::ptr::NonNull;

use super::PageLen;
use super::failpoints::{self, Written};
use super::files::may_be_so_long;
use super::shared::{File, Refusal, again};
use super::syscall::{Word, call, word};

/// What one call writes.
#[repr(C)]
struct Piece {
    from: Word,
    length: usize,
}

impl File {
    /// Reads words of the file; how many bytes there were.
    pub(crate) fn read_words(self, place: usize, into: &mut [u64]) -> Result<usize, Refusal> {
        let length = size_of_val(into);
        // SAFETY: 1. a slice, of which any bytes are numbers.
        unsafe { self.read_at(place, NonNull::from(into).cast(), length) }
    }

    /// The same of bytes.
    pub(crate) fn read_bytes(self, place: usize, into: &mut [u8]) -> Result<usize, Refusal> {
        let length = into.len();
        // SAFETY: 1. a slice.
        unsafe { self.read_at(place, NonNull::from(into).cast(), length) }
    }

    /// # Safety
    /// 1. So many bytes can be written there, whatever they are.
    unsafe fn read_at(
        self,
        place: usize,
        into: NonNull<u8>,
        length: usize,
    ) -> Result<usize, Refusal> {
        if failpoints::refuses() {
            return Err(libc::EIO);
        }
        let arguments = [self.word(), into.as_ptr().cast(), word(length), word(place)];
        // SAFETY: 1. as the caller says.
        again(|| unsafe { call(libc::SYS_pread64, arguments) }).map(<*mut _>::addr)
    }

    /// Writes bytes into the file, which the kernel has from then on. They may be on the disk at any time.
    ///
    /// # Safety
    /// 1. So many bytes can be read there, and nobody changes them.
    pub(crate) unsafe fn write_at(
        self,
        place: usize,
        from: NonNull<u8>,
        length: usize,
    ) -> Result<(), Refusal> {
        if failpoints::refuses() {
            return Err(libc::ENOSPC);
        }
        if !may_be_so_long(place + length) {
            return Err(libc::EFBIG);
        }
        let mut done = 0;
        while done < length {
            let arguments = [
                self.word(),
                // SAFETY: 1. inside these bytes.
                unsafe { crate::ptr::advance::<u8>(from, done) }
                    .as_ptr()
                    .cast(),
                word(length - done),
                word(place + done),
            ];
            // SAFETY: 1. reads so many bytes.
            match again(|| unsafe { call(libc::SYS_pwrite64, arguments) })?.addr() {
                0 => return Err(libc::EIO),
                written => done += written,
            }
        }
        failpoints::tell(self.0, || {
            // SAFETY: 1. our own.
            let bytes = unsafe { core::slice::from_raw_parts(from.as_ptr(), length) };
            Written::Bytes { place, bytes }
        });
        Ok(())
    }

    /// Writes these bytes, as [`write_at`](Self::write_at).
    pub(crate) fn write_bytes(self, place: usize, bytes: &[u8]) -> Result<(), Refusal> {
        // SAFETY: 1. a slice.
        unsafe { self.write_at(place, NonNull::from(bytes).cast(), bytes.len()) }
    }

    /// Writes words into the file, as [`write_at`](Self::write_at).
    pub(crate) fn write_words(self, place: usize, words: &[u64]) -> Result<(), Refusal> {
        // SAFETY: 1. a slice.
        unsafe { self.write_at(place, NonNull::from(words).cast(), size_of_val(words)) }
    }

    /// Writes words into the file that it has already, and waits until these outlive the machine: not others of the file
    /// that the kernel has not written yet.
    pub(crate) fn write_durably(self, place: usize, words: &[u64]) -> Result<(), Refusal> {
        if failpoints::refuses() {
            return Err(libc::EIO);
        }
        let length = size_of_val(words);
        let piece = Piece {
            from: words.as_ptr().cast_mut().cast(),
            length,
        };
        let arguments = [
            self.word(),
            (&raw const piece).cast_mut().cast(),
            word(1),
            word(place),
            word(0),
            word(libc::RWF_DSYNC as usize),
        ];
        // SAFETY: 1. reads so many bytes.
        let written = again(|| unsafe { call(libc::SYS_pwritev2, arguments) });
        match written {
            Ok(count) if count == word(length) => {}
            // Cut short, or by a kernel that does not know the call: all of the file then.
            Ok(_) | Err(libc::ENOSYS | libc::EOPNOTSUPP) => {
                self.write_words(place, words)?;
                return self.sync();
            }
            Err(refusal) => return Err(refusal),
        }
        failpoints::tell(self.0, || Written::SyncedRange { place, length });
        Ok(())
    }

    /// Has the kernel write these bytes to the disk, and waits for that, not for what leads to them.
    pub(crate) fn write_out(self, place: usize, length: usize) -> Result<(), Refusal> {
        if failpoints::refuses() {
            return Err(libc::EIO);
        }
        let flags = libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        let arguments = [self.word(), word(place), word(length), word(flags as usize)];
        // SAFETY: 1. changes no memory.
        again(|| unsafe { call(libc::SYS_sync_file_range, arguments) }).map(|_| ())
    }

    /// Gives the space of these bytes back, which are zero afterwards.
    pub(crate) fn punch(self, place: usize, length: PageLen) -> Result<(), Refusal> {
        if failpoints::refuses() {
            return Err(libc::EOPNOTSUPP);
        }
        let arguments = [
            self.word(),
            word((libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE) as usize),
            word(place),
            word(length.bytes()),
        ];
        // SAFETY: 1. changes no memory but what maps these bytes, of which the caller knows that nobody uses them.
        again(|| unsafe { call(libc::SYS_fallocate, arguments) })?;
        let length = length.bytes();
        failpoints::tell(self.0, || Written::Hole { place, length });
        Ok(())
    }
}

/// Drops the copies that a private mapping has of a file's pages: these are the file's again.
///
/// # Safety
/// 1. Our own mapping, and nobody uses what was stored there.
pub(crate) unsafe fn drop_copies(base: NonNull<u8>, length: PageLen) -> Result<(), Refusal> {
    if failpoints::refuses() {
        return Err(libc::ENOMEM);
    }
    let arguments = [
        base.as_ptr().cast(),
        word(length.bytes()),
        word(libc::MADV_DONTNEED as usize),
    ];
    // SAFETY: 1. as the caller says.
    again(|| unsafe { call(libc::SYS_madvise, arguments) }).map(|_| ())
}
