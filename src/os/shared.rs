//! Memory that processes share: files of memory, mapped by several, and locks on their bytes that tell who lives.
//!
//! A descriptor is a number here, as the library has no standard library to keep it.

use core::ffi::{CStr, c_int, c_short};
use core::ptr::{self, NonNull};

use super::syscall::{Word, call, word};
use super::{PageLen, failpoints};
use crate::sync::AtomicU32;

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct File(pub(crate) c_int);

/// Which file it is, whatever its descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    number: u64,
}

/// How a mapping has its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// What is stored in it, all see.
    All,
    /// It sees what others store.
    Reader,
    /// What is stored in it, nobody else sees.
    Copy,
    /// Nobody stores in the file any more.
    Frozen,
}

/// Why the kernel refused, by its number.
pub(crate) type Refusal = c_int;

/// There is no memory, or there are no addresses.
pub(crate) const NO_MEMORY: Refusal = libc::ENOMEM;
/// Something lies there.
pub(crate) const TAKEN: Refusal = libc::EEXIST;
/// The file's seals forbid it.
pub(crate) const SEALED: Refusal = libc::EPERM;
/// Somebody has it mapped.
pub(crate) const IN_USE: Refusal = libc::EBUSY;

pub(super) fn descriptor(answer: Word) -> File {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "descriptors are that short"
    )]
    File(answer.addr() as c_int)
}

impl File {
    pub(super) fn word(self) -> Word {
        word(self.0.cast_unsigned() as usize)
    }

    /// A file of memory with this name for people, and so many bytes, which nobody can make shorter.
    pub(crate) fn of_memory(name: &CStr, length: PageLen) -> Result<Self, Refusal> {
        if failpoints::refuses() {
            return Err(libc::ENOMEM);
        }
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        let arguments = [name.as_ptr().cast_mut().cast(), word(flags as usize)];
        // SAFETY: 1. the name is a C string.
        let file = descriptor(unsafe { call(libc::SYS_memfd_create, arguments) }?);
        let sealed = file
            .set_length(length)
            .and_then(|()| file.seal(libc::F_SEAL_SHRINK | libc::F_SEAL_GROW));
        sealed.inspect_err(|_| file.close())?;
        Ok(file)
    }

    /// Nobody stores in it from now on; refused while somebody has it mapped for that.
    pub(crate) fn freeze(self) -> Result<(), Refusal> {
        self.seal(libc::F_SEAL_WRITE)
    }

    fn seal(self, seals: c_int) -> Result<(), Refusal> {
        if failpoints::refuses() {
            return Err(libc::EPERM);
        }
        self.control(libc::F_ADD_SEALS, word(seals as usize))
            .map(|_| ())
    }

    fn control(self, operation: c_int, argument: Word) -> Result<Word, Refusal> {
        let arguments = [self.word(), word(operation as usize), argument];
        // SAFETY: 1. the operations of this file change no memory of the program's but what the argument leads to.
        unsafe { call(libc::SYS_fcntl, arguments) }
    }

    /// Another descriptor of the same open file, which a new program does not get.
    pub(crate) fn duplicate(self) -> Result<Self, Refusal> {
        if failpoints::refuses() {
            return Err(libc::EMFILE);
        }
        self.control(libc::F_DUPFD_CLOEXEC, word(0)).map(descriptor)
    }

    /// The same file, opened anew: locks by the one are not the other's.
    pub(crate) fn reopen(self) -> Result<Self, Refusal> {
        if failpoints::refuses() {
            return Err(libc::EMFILE);
        }
        let mut path = self.path();
        let flags = libc::O_RDWR | libc::O_CLOEXEC;
        let at = word(libc::AT_FDCWD as isize as usize);
        let arguments = [at, path.as_mut_ptr().cast(), word(flags as usize), word(0)];
        // SAFETY: 1. the path is a C string.
        unsafe { call(libc::SYS_openat, arguments) }.map(descriptor)
    }

    /// A path that leads to it, for this process.
    pub(super) fn path(self) -> [u8; 32] {
        let mut path = [0_u8; 32];
        write_path(&mut path, self.0.cast_unsigned());
        path
    }

    pub(crate) fn close(self) {
        // SAFETY: 1. our own, and not used any more.
        let _ = unsafe { call(libc::SYS_close, [self.word()]) };
    }

    /// Which file it is, and how long.
    pub(crate) fn identify(self) -> Result<(FileId, usize), Refusal> {
        if failpoints::refuses() {
            return Err(libc::EBADF);
        }
        let found = self.status()?;
        let id = FileId {
            device: found.st_dev,
            number: found.st_ino,
        };
        Ok((id, usize::try_from(found.st_size).unwrap_or(0)))
    }

    pub(super) fn status(self) -> Result<libc::stat, Refusal> {
        // SAFETY: 1. all zero is one.
        let mut found: libc::stat = unsafe { core::mem::zeroed() };
        let arguments = [self.word(), (&raw mut found).cast()];
        // SAFETY: 1. writes such a structure there.
        unsafe { call(libc::SYS_fstat, arguments) }?;
        Ok(found)
    }

    /// Locks the byte at this place, for this open file, or says that another has it.
    pub(crate) fn try_lock_byte(self, place: u64) -> Result<bool, Refusal> {
        if failpoints::refuses() {
            return Err(libc::ENOLCK);
        }
        match self.lock(libc::F_OFD_SETLK, libc::F_WRLCK, place, 1) {
            Ok(_) => Ok(true),
            Err(libc::EAGAIN | libc::EACCES) => Ok(false),
            Err(refusal) => Err(refusal),
        }
    }

    /// The same, and waits for it.
    pub(crate) fn lock_byte(self, place: u64) -> Result<(), Refusal> {
        if failpoints::refuses() {
            return Err(libc::ENOLCK);
        }
        loop {
            match self.lock(libc::F_OFD_SETLKW, libc::F_WRLCK, place, 1) {
                Err(libc::EINTR) => {}
                done => return done.map(|_| ()),
            }
        }
    }

    /// Unlocks it, for all descriptors of this open file: also those that a child got meanwhile.
    pub(crate) fn unlock_byte(self, place: u64) {
        // What the kernel refuses, the end of the open file does.
        let _ = self.lock(libc::F_OFD_SETLK, libc::F_UNLCK, place, 1);
    }

    /// Whether another open file has locked one of so many bytes.
    pub(crate) fn is_locked_by_others(self, place: u64, count: u64) -> Result<bool, Refusal> {
        if failpoints::refuses() {
            return Err(libc::ENOLCK);
        }
        let found = self.lock(libc::F_OFD_GETLK, libc::F_WRLCK, place, count)?;
        Ok(i32::from(found) != libc::F_UNLCK)
    }

    /// Does something with the lock of some bytes; the kind of lock that the kernel answers.
    fn lock(
        self,
        operation: c_int,
        kind: c_int,
        place: u64,
        count: u64,
    ) -> Result<c_short, Refusal> {
        // SAFETY: 1. all zero is one.
        let mut lock: libc::flock = unsafe { core::mem::zeroed() };
        #[expect(clippy::cast_possible_truncation, reason = "small numbers")]
        {
            lock.l_type = kind as c_short;
            lock.l_whence = libc::SEEK_SET as c_short;
        }
        lock.l_start = place.cast_signed();
        lock.l_len = count.cast_signed();
        self.control(operation, (&raw mut lock).cast())?;
        Ok(lock.l_type)
    }

    /// Maps the file's first bytes: at `place`, where nothing is yet, or anywhere.
    pub(crate) fn map(
        self,
        length: PageLen,
        place: Option<NonNull<u8>>,
        sharing: Sharing,
    ) -> Result<NonNull<u8>, Refusal> {
        if failpoints::refuses() {
            return Err(libc::ENOMEM);
        }
        let flags = place.map_or(0, |_| libc::MAP_FIXED_NOREPLACE);
        let at = place.map_or(ptr::null_mut(), NonNull::as_ptr);
        // SAFETY: 1. a mapping that replaces nothing.
        let base = unsafe { self.map_shared(at, length, sharing, flags) }?;
        if place.is_some_and(|place| place != base) {
            // An old kernel takes the place for a wish.
            // SAFETY: 1. just mapped, and nobody's.
            let _ = unsafe { super::unmap(base, length) };
            return Err(libc::EEXIST);
        }
        Ok(base)
    }

    /// Maps the file in the place of another mapping.
    ///
    /// # Safety
    /// 1. The range is the caller's own mapping of this file, in which nothing is stored that the new one does not allow.
    pub(crate) unsafe fn map_over(
        self,
        base: NonNull<u8>,
        length: PageLen,
        sharing: Sharing,
    ) -> Result<(), Refusal> {
        if failpoints::refuses() {
            return Err(libc::ENOMEM);
        }
        // SAFETY: 1. our own: the same bytes stand there afterwards.
        unsafe { self.map_shared(base.as_ptr(), length, sharing, libc::MAP_FIXED) }.map(|_| ())
    }

    /// # Safety
    /// 1. What the flags have the mapping replace, the caller may replace.
    unsafe fn map_shared(
        self,
        place: *mut u8,
        length: PageLen,
        sharing: Sharing,
        flags: c_int,
    ) -> Result<NonNull<u8>, Refusal> {
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let (access, kind) = match sharing {
            Sharing::All => (both, libc::MAP_SHARED),
            Sharing::Reader => (libc::PROT_READ, libc::MAP_SHARED),
            Sharing::Copy => (both, libc::MAP_PRIVATE),
            Sharing::Frozen => (libc::PROT_READ, libc::MAP_PRIVATE),
        };
        let flags = flags | kind | libc::MAP_NORESERVE;
        // SAFETY: 1. our own.
        unsafe { self.map_with(place, length, access, flags) }
    }

    /// Maps a page of the file that nobody can reach, and that forked children do not get: the open file is there as
    /// long as this process's memory.
    pub(crate) fn keep_open(self) -> Result<NonNull<u8>, Refusal> {
        if failpoints::refuses() {
            return Err(libc::ENOMEM);
        }
        let page = PageLen::pages(1);
        // SAFETY: 1. a mapping that replaces nothing.
        let base =
            unsafe { self.map_with(ptr::null_mut(), page, libc::PROT_NONE, libc::MAP_SHARED) }?;
        let arguments = [
            base.as_ptr().cast(),
            word(page.bytes()),
            word(libc::MADV_DONTFORK as usize),
        ];
        // SAFETY: 1. changes no byte of this process.
        let kept = unsafe { call(libc::SYS_madvise, arguments) };
        if let Err(refusal) = kept {
            // SAFETY: 1. just mapped, and nobody's.
            let _ = unsafe { super::unmap(base, page) };
            return Err(refusal);
        }
        Ok(base)
    }

    /// # Safety
    /// 1. What the flags have the mapping replace, the caller may replace.
    unsafe fn map_with(
        self,
        place: *mut u8,
        length: PageLen,
        access: c_int,
        flags: c_int,
    ) -> Result<NonNull<u8>, Refusal> {
        let arguments = [
            place.cast(),
            word(length.bytes()),
            word(access as usize),
            word(flags as usize),
            self.word(),
            word(0),
        ];
        // SAFETY: 1. our own.
        let base = unsafe { call(libc::SYS_mmap, arguments) }?;
        NonNull::new(base.cast()).ok_or(libc::ENOMEM)
    }
}

/// Makes a call until no signal cuts it short.
pub(super) fn again(mut attempt: impl FnMut() -> Result<Word, Refusal>) -> Result<Word, Refusal> {
    loop {
        match attempt() {
            Err(libc::EINTR) => {}
            done => return done,
        }
    }
}

/// Writes `/proc/self/fd/N` and a zero.
fn write_path(path: &mut [u8; 32], number: u32) {
    const BEFORE: &[u8] = b"/proc/self/fd/";
    path[..BEFORE.len()].copy_from_slice(BEFORE);
    let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
    let mut left = number;
    for place in (0..digits).rev() {
        path[BEFORE.len() + place] = b'0' + (left % 10) as u8;
        left /= 10;
    }
}

/// Gives the memory of a range of a shared mapping back, for all who map it; zero afterwards.
///
/// # Safety
/// 1. Nobody uses anything there.
pub(crate) unsafe fn remove(base: NonNull<u8>, length: PageLen) -> bool {
    if failpoints::refuses() {
        return false;
    }
    let arguments = [
        base.as_ptr().cast(),
        word(length.bytes()),
        word(libc::MADV_REMOVE as usize),
    ];
    // SAFETY: 1. drops contents that nobody uses.
    unsafe { call(libc::SYS_madvise, arguments) }.is_ok()
}

/// Pages that are zero in forked children; `None` without memory, or where the kernel does not do so.
pub(crate) fn map_wiped(length: PageLen) -> Option<NonNull<u8>> {
    let base = super::map(length, length.bytes(), super::Access::Committed)?;
    if super::imp::wipe_on_fork(base, length) {
        return Some(base);
    }
    // SAFETY: 1. just mapped, and nobody's.
    let _ = unsafe { super::unmap(base, length) };
    None
}

/// Sleeps while a word that processes share is `value`, for so many nanoseconds at most, below a second's.
pub(crate) fn wait_shared(word_: &AtomicU32, value: u32, nanoseconds: u32) {
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: nanoseconds.into(),
    };
    let arguments = [
        word_.as_ptr().cast(),
        word(libc::FUTEX_WAIT as usize),
        word(value as usize),
        (&raw const time).cast_mut().cast(),
    ];
    // SAFETY: 1. the word and the time are readable for as long as the call.
    let answer = unsafe { call(libc::SYS_futex, arguments) };
    if !matches!(
        answer,
        Ok(_) | Err(libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT)
    ) {
        // Forbidden, as by a filter.
        super::pause();
    }
}

/// Wakes one who waits for such a word; whether there was one.
pub(crate) fn wake_shared(word_: &AtomicU32) -> bool {
    wake_some(word_, 1)
}

/// Wakes all who wait for such a word.
pub(crate) fn wake_all_shared(word_: &AtomicU32) {
    wake_some(word_, i32::MAX.cast_unsigned());
}

fn wake_some(word_: &AtomicU32, most: u32) -> bool {
    let arguments = [
        word_.as_ptr().cast(),
        word(libc::FUTEX_WAKE as usize),
        word(most as usize),
    ];
    // SAFETY: 1. no thread's memory is touched.
    let woken = unsafe { call(libc::SYS_futex, arguments) };
    woken.is_ok_and(|count| count.addr() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_descriptors() {
        for (number, text) in [
            (0, &b"/proc/self/fd/0\0"[..]),
            (1_234_567, b"/proc/self/fd/1234567\0"),
        ] {
            let mut path = [0; 32];
            write_path(&mut path, number);
            assert_eq!(&path[..text.len()], text);
        }
    }

    /// The lock is there as long as the open file, which a mapping keeps, not the descriptor.
    #[test]
    fn a_mapping_keeps_the_lock() {
        let file = File::of_memory(c"test", PageLen::pages(1)).expect("a file of memory");
        let (own, other) = (file.reopen().expect("/proc"), file.reopen().expect("/proc"));
        assert_eq!(own.try_lock_byte(7), Ok(true));
        assert_eq!(other.try_lock_byte(7), Ok(false));
        assert_eq!(other.try_lock_byte(8), Ok(true));
        let kept = own.keep_open().expect("a page");
        own.close();
        assert_eq!(other.try_lock_byte(7), Ok(false));
        // SAFETY: 1. mapped above, and nobody's.
        assert!(unsafe { super::super::unmap(kept, PageLen::pages(1)) });
        assert_eq!(other.try_lock_byte(7), Ok(true));
        other.close();
        file.close();
    }
}
