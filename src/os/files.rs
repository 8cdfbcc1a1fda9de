//! Files that heaps lie in: how they are found by a path, get space, and reach the disk.

use core::ptr::NonNull;

use super::failpoints::Written;
use super::paths::Path;
use super::shared::{File, Refusal, again};
use super::syscall::{call, word};
use super::{PageLen, failpoints};

/// The path is in use, or there is nothing.
pub(crate) const EXISTS: Refusal = libc::EEXIST;
pub(crate) const MISSING: Refusal = libc::ENOENT;
/// The filesystem cannot do that.
pub(crate) const UNKNOWN: Refusal = libc::EOPNOTSUPP;

/// Whether a refusal says that there is no room.
pub(crate) fn is_no_space(refusal: Refusal) -> bool {
    matches!(refusal, libc::ENOSPC | libc::EDQUOT | libc::EFBIG)
}

/// What a refusal means, for people; empty for one that is seldom met.
pub(crate) fn words_of(refusal: Refusal) -> &'static str {
    match refusal {
        libc::EACCES | libc::EPERM => "permission denied",
        libc::EBADF => "no open file",
        libc::EEXIST | libc::ENOMEM => "no memory, or no addresses",
        libc::EINVAL => "nothing that can be meant",
        libc::EIO => "the disk failed",
        libc::EISDIR => "a folder",
        libc::ELOOP => "links that lead in a circle",
        libc::EMFILE | libc::ENFILE => "too many open files",
        libc::ENAMETOOLONG => "too long a path",
        // What a program has not is told otherwise.
        libc::ENOENT => "/proc is not there",
        libc::ENOLCK => "no locks here",
        libc::ENOTDIR => "a path through what is no folder",
        libc::EROFS => "a filesystem that can only be read",
        libc::ETXTBSY => "a program that runs",
        _ => "",
    }
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// One with a length, on a filesystem of this machine.
    Regular,
    /// The same, in memory.
    Memory,
    /// On another machine, or on a filesystem of which nobody knows where it is.
    Elsewhere,
    /// One that the filesystem knows no length of.
    Device,
    Other,
}

/// Filesystems of memory.
const IN_MEMORY: [u32; 3] = [
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x9584_58f6, // hugetlbfs
];

/// Filesystems whose files other machines have, too, and those that programs serve.
const ELSEWHERE: [u32; 12] = [
    0x0000_6969, // NFS
    0x0000_517b, // SMB
    0xfe53_4d42, // SMB 2
    0xff53_4d42, // CIFS
    0x0102_1997, // 9P
    0x00c3_6400, // Ceph
    0x5346_414f, // AFS
    0x6b41_4653, // kAFS
    0x7461_636f, // OCFS2
    0x0116_1970, // GFS2
    0x0bd0_0bd0, // Lustre
    0x6573_5546, // FUSE
];

impl File {
    pub(crate) fn kind(self) -> Result<FileKind, Refusal> {
        if failpoints::refuses() {
            return Err(libc::EBADF);
        }
        // SAFETY: 1. all zero is one.
        let mut system: libc::statfs = unsafe { core::mem::zeroed() };
        let arguments = [self.word(), (&raw mut system).cast()];
        // SAFETY: 1. writes such a structure there.
        unsafe { call(libc::SYS_fstatfs, arguments) }?;
        #[expect(clippy::cast_possible_truncation, reason = "so long are the numbers")]
        let number = system.f_type as u32;
        Ok(match self.status()?.st_mode & libc::S_IFMT {
            libc::S_IFREG if ELSEWHERE.contains(&number) => FileKind::Elsewhere,
            libc::S_IFREG if IN_MEMORY.contains(&number) => FileKind::Memory,
            libc::S_IFREG => FileKind::Regular,
            libc::S_IFBLK | libc::S_IFCHR => FileKind::Device,
            _ => FileKind::Other,
        })
    }

    /// The descriptor is one of another open file from now on.
    pub(crate) fn become_other(self, other: Self) -> Result<(), Refusal> {
        if failpoints::refuses() {
            return Err(libc::EBADF);
        }
        let arguments = [other.word(), self.word(), word(libc::O_CLOEXEC as usize)];
        // SAFETY: 1. changes no memory.
        again(|| unsafe { call(libc::SYS_dup3, arguments) }).map(|_| ())
    }

    /// Makes it so long. Beyond the process's limit the kernel would send a signal that ends it.
    pub(crate) fn set_length(self, length: PageLen) -> Result<(), Refusal> {
        if failpoints::refuses() {
            return Err(libc::ENOSPC);
        }
        if !may_be_so_long(length.bytes()) {
            return Err(libc::EFBIG);
        }
        // SAFETY: 1. changes no memory: nobody has mapped the file yet.
        unsafe { call(libc::SYS_ftruncate, [self.word(), word(length.bytes())]) }?;
        failpoints::tell(self.0, || Written::Length(length.bytes()));
        Ok(())
    }

    /// Sees to it that there is room for these bytes of the file, which stay what they are.
    pub(crate) fn reserve(self, place: usize, length: PageLen) -> Result<(), Refusal> {
        if failpoints::refuses() {
            return Err(libc::ENOSPC);
        }
        let arguments = [
            self.word(),
            word(libc::FALLOC_FL_KEEP_SIZE as usize),
            word(place),
            word(length.bytes()),
        ];
        // SAFETY: 1. changes no contents.
        again(|| unsafe { call(libc::SYS_fallocate, arguments) }).map(|_| ())
    }

    /// A number that a copy of the file has not, nor one that takes its place: of its number and its birth, where the
    /// filesystem knows that.
    pub(crate) fn identity(self) -> Result<u64, Refusal> {
        if failpoints::refuses() {
            return Err(libc::EBADF);
        }
        // SAFETY: 1. all zero is one.
        let mut found: libc::statx = unsafe { core::mem::zeroed() };
        let arguments = [
            self.word(),
            c"".as_ptr().cast_mut().cast(),
            word(libc::AT_EMPTY_PATH as usize),
            word((libc::STATX_INO | libc::STATX_BTIME) as usize),
            (&raw mut found).cast(),
        ];
        // SAFETY: 1. the path is a C string, and writes such a structure there.
        again(|| unsafe { call(libc::SYS_statx, arguments) })?;
        let birth = found.stx_btime;
        Ok(mix(&[
            found.stx_ino,
            birth.tv_sec.cast_unsigned(),
            birth.tv_nsec.into(),
        ]))
    }

    /// Bytes of a device; 0 if it cannot tell.
    pub(crate) fn device_length(self) -> Result<usize, Refusal> {
        if failpoints::refuses() {
            return Err(libc::EIO);
        }
        let arguments = [self.word(), word(0), word(libc::SEEK_END as usize)];
        // SAFETY: 1. changes no memory.
        match unsafe { call(libc::SYS_lseek, arguments) } {
            Err(libc::ESPIPE | libc::EINVAL) => Ok(0),
            length => length.map(<*mut _>::addr),
        }
    }

    /// Bytes that the file takes on the disk.
    pub(crate) fn space(self) -> Result<usize, Refusal> {
        if failpoints::refuses() {
            return Err(libc::EIO);
        }
        const BLOCK: usize = 512; // as the kernel counts, whatever the disk's are
        let blocks = usize::try_from(self.status()?.st_blocks).unwrap_or(0);
        Ok(blocks.saturating_mul(BLOCK))
    }

    /// Reads what comes next in a file of the kernel's.
    pub(super) fn read(self, into: &mut [u8]) -> Result<usize, Refusal> {
        if failpoints::refuses() {
            return Err(libc::EIO);
        }
        let arguments = [self.word(), into.as_mut_ptr().cast(), word(into.len())];
        // SAFETY: 1. writes at most so many bytes there.
        again(|| unsafe { call(libc::SYS_read, arguments) }).map(<*mut _>::addr)
    }

    /// Waits until what was stored in the file outlives the machine.
    pub(crate) fn sync(self) -> Result<(), Refusal> {
        if failpoints::refuses() {
            return Err(libc::EIO);
        }
        // SAFETY: 1. changes no memory.
        again(|| unsafe { call(libc::SYS_fsync, [self.word()]) })?;
        failpoints::tell(self.0, || Written::Synced);
        Ok(())
    }
}

/// Waits until what was stored in a shared mapping of a file outlives the machine.
pub(crate) fn sync_mapping(base: NonNull<u8>, length: PageLen) -> Result<(), Refusal> {
    if failpoints::refuses() {
        return Err(libc::EIO);
    }
    let arguments = [
        base.as_ptr().cast(),
        word(length.bytes()),
        word(libc::MS_SYNC as usize),
    ];
    // SAFETY: 1. changes no byte.
    again(|| unsafe { call(libc::SYS_msync, arguments) }).map(|_| ())
}

/// What pages are to be in memory for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Populate {
    Read,
    Write,
}

/// Has all pages of a mapping in memory.
pub(crate) fn populate(
    base: NonNull<u8>,
    length: PageLen,
    purpose: Populate,
) -> Result<(), Refusal> {
    if failpoints::refuses() {
        return Err(libc::ENOMEM);
    }
    let advice = match purpose {
        Populate::Read => libc::MADV_POPULATE_READ,
        Populate::Write => libc::MADV_POPULATE_WRITE,
    };
    let arguments = [
        base.as_ptr().cast(),
        word(length.bytes()),
        word(advice as usize),
    ];
    // SAFETY: 1. changes no byte.
    again(|| unsafe { call(libc::SYS_madvise, arguments) }).map(|_| ())
}

/// A number for the time since the machine began, never 0.
pub(crate) fn boot_number() -> Result<u64, Refusal> {
    let path = Path::new(b"/proc/sys/kernel/random/boot_id")?;
    let file = path.open_for_reading()?;
    let mut text = [0_u64; 5];
    let read = file.read_words(0, &mut text);
    file.close();
    if read? < size_of_val(&text[..4]) {
        return Err(libc::EIO);
    }
    Ok(mix(&text).max(1))
}

/// A number of words (FNV-1a by words): any change of one changes it.
pub(crate) fn mix(words: &[u64]) -> u64 {
    words.iter().fold(0xcbf2_9ce4_8422_2325, |sum, word| {
        (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Whether this process may have a file of so many bytes (`RLIMIT_FSIZE`). Where the kernel does not tell, it may.
pub(super) fn may_be_so_long(bytes: usize) -> bool {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    let arguments = [
        word(0),
        word(libc::RLIMIT_FSIZE as usize),
        word(0),
        (&raw mut limit).cast(),
    ];
    // SAFETY: 1. writes such a structure there.
    let _ = unsafe { call(libc::SYS_prlimit64, arguments) };
    limit.rlim_cur >= bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_has_one_number() {
        let number = boot_number().expect("a number");
        assert_ne!(number, 0);
        assert_eq!(boot_number(), Ok(number));
    }
}
