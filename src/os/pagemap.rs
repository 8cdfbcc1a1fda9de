//! Which pages of a private mapping are no more those of its file: somebody stored in them, and they may be swapped out.
//!
//! For each page that is there the kernel looks at what it knows of that (65 to 190 ns here, where it has each by itself).
//! Where it allows, it notes itself which pages were stored in since they were last asked for (`userfaultfd`, in the mode
//! that sends nobody a message), in the table of pages (1 ns).

use core::ops::Range;
use core::ptr::NonNull;

use super::paths::Path;
use super::shared::{File, FileId, Refusal, again, descriptor};
use super::syscall::{call, word};
use super::{PageLen, failpoints, page_size};

/// `PAGEMAP_SCAN` of the kernel's `fs.h`, which the C library's crate does not name. Linux 6.7 has it.
const SCAN: usize = 0xc060_6610;
const IS_WRITTEN: u64 = 1 << 1;
const IS_FILE: u64 = 1 << 2;
const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;

/// Bits of an entry of `/proc/self/pagemap`, by which older kernels tell.
const ENTRY_PRESENT: u64 = 1 << 63;
const ENTRY_SWAPPED: u64 = 1 << 62;
const ENTRY_FILE: u64 = 1 << 61;

/// What a scan does besides: protects what it finds, and fails where the kernel does not note what is stored.
const PROTECT: u64 = 1;
const ONLY_NOTED: u64 = 1 << 1;

/// `struct pm_scan_arg`.
#[derive(Default)]
#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// Regions that one call answers: a page of them, about.
const REGIONS: usize = 160;
/// Entries that one call reads: as long.
const ENTRIES: usize = 512;

/// What this process knows of its own pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pagemap {
    file: File,
    /// Whether the kernel knows the call.
    can_scan: bool,
}

impl Pagemap {
    /// Refused where `/proc` is not there, or is another's.
    pub(crate) fn open() -> Result<Self, Refusal> {
        let file = Path::new(b"/proc/self/pagemap")?.open_for_reading()?;
        // An empty range.
        let can_scan = scan(file, COPIES, 0..0, &mut [Region::default(); 1]).is_ok();
        Ok(Self { file, can_scan })
    }

    pub(crate) fn close(self) {
        self.file.close();
    }

    /// Calls for each run of pages between two addresses of private mappings that are no more the files', in order.
    pub(crate) fn each_changed<E: From<NotTold>>(
        self,
        addresses: Range<usize>,
        act: impl FnMut(Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.can_scan {
            return self.each_by_entries(addresses, act);
        }
        self.each(COPIES, addresses, act)
    }

    /// The same, of mappings whose stores the kernel [notes](Noted): of the pages that were stored in since they were last
    /// protected.
    pub(crate) fn each_noted<E: From<NotTold>>(
        self,
        addresses: Range<usize>,
        mut act: impl FnMut(Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.each(WRITTEN, addresses, |run| {
            let mut has_copies = false;
            self.each(COPIES, run.clone(), |copies| {
                has_copies = true;
                act(copies)
            })?;
            if !has_copies {
                // They were only read since they came, or are not there. What is refused is found once more.
                let _ = self.protect(run);
            }
            Ok(())
        })
    }

    /// Whether the kernel notes what is stored in this page.
    pub(crate) fn is_noted(self, page: Range<usize>) -> bool {
        scan(self.file, WRITTEN, page, &mut [Region::default(); 1]).is_ok()
    }

    /// From here on these pages count as not stored in.
    pub(crate) fn protect(self, addresses: Range<usize>) -> Result<(), NotTold> {
        scan(self.file, PROTECTED, addresses, &mut [])
            .map(|_| ())
            .map_err(NotTold)
    }

    fn each<E: From<NotTold>>(
        self,
        what: Wanted,
        mut addresses: Range<usize>,
        mut act: impl FnMut(Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !addresses.is_empty() {
            let mut regions = [Region::default(); REGIONS];
            let found = scan(self.file, what, addresses.clone(), &mut regions).map_err(NotTold)?;
            for region in regions.iter().take(found.count) {
                #[expect(clippy::cast_possible_truncation, reason = "addresses of this process")]
                act(region.start as usize..region.end as usize)?;
            }
            if found.end <= addresses.start {
                return Err(NotTold(libc::EIO).into());
            }
            addresses.start = found.end;
        }
        Ok(())
    }

    fn each_by_entries<E: From<NotTold>>(
        self,
        addresses: Range<usize>,
        mut act: impl FnMut(Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        let page = page_size();
        let (mut next, end) = (addresses.start / page, addresses.end.div_ceil(page));
        let mut run = 0..0;
        while next < end {
            let mut entries = [0; ENTRIES];
            let most = entries.len().min(end - next);
            let place = next * size_of::<u64>();
            let read = self.file.read_words(place, &mut entries[..most]);
            let count = read.map_err(NotTold)? / size_of::<u64>();
            if count == 0 {
                return Err(NotTold(libc::EIO).into());
            }
            for entry in &entries[..count] {
                let is_there = entry & (ENTRY_PRESENT | ENTRY_SWAPPED) != 0;
                if is_there && entry & ENTRY_FILE == 0 {
                    if run.end != next {
                        if !run.is_empty() {
                            act(run.start * page..run.end * page)?;
                        }
                        run = next..next;
                    }
                    run.end = next + 1;
                }
                next += 1;
            }
        }
        if run.is_empty() {
            return Ok(());
        }
        act(run.start * page..run.end * page)
    }
}

/// The kernel does not tell, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotTold(pub(crate) Refusal);

struct Found {
    count: usize,
    /// So far the kernel looked.
    end: usize,
}

/// Which pages a scan is for.
#[derive(Clone, Copy)]
struct Wanted {
    flags: u64,
    inverted: u64,
    all: u64,
    any: u64,
    answered: u64,
}

/// Those that are not the file's.
const COPIES: Wanted = Wanted {
    flags: 0,
    inverted: IS_FILE,
    all: IS_FILE,
    any: IS_PRESENT | IS_SWAPPED,
    answered: IS_FILE,
};

/// Those that are not protected, also where none is: asked for just so, the kernel looks at nothing but its table.
const WRITTEN: Wanted = Wanted {
    flags: ONLY_NOTED,
    inverted: 0,
    all: IS_WRITTEN,
    any: 0,
    answered: IS_WRITTEN,
};

/// The same, which are so from here on.
const PROTECTED: Wanted = Wanted {
    flags: ONLY_NOTED | PROTECT,
    inverted: 0,
    all: IS_WRITTEN,
    any: 0,
    answered: 0,
};

fn scan(
    file: File,
    what: Wanted,
    addresses: Range<usize>,
    into: &mut [Region],
) -> Result<Found, Refusal> {
    if failpoints::refuses() {
        return Err(libc::ENOTTY);
    }
    let vec = match into.len() {
        0 => 0,
        _ => into.as_mut_ptr().expose_provenance() as u64,
    };
    let mut arguments = Scan {
        size: size_of::<Scan>() as u64,
        flags: what.flags,
        start: addresses.start as u64,
        end: addresses.end as u64,
        vec,
        vec_len: into.len() as u64,
        category_inverted: what.inverted,
        category_mask: what.all,
        category_anyof_mask: what.any,
        return_mask: what.answered,
        ..Scan::default()
    };
    let words = [file.word(), word(SCAN), (&raw mut arguments).cast()];
    // SAFETY: 1. writes at most so many regions into the slice, and the structure.
    let count = again(|| unsafe { call(libc::SYS_ioctl, words) })?.addr();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an address of this process"
    )]
    let end = arguments.walk_end as usize;
    Ok(Found { count, end })
}

/// Linux's own numbers for `userfaultfd`, which the C library's crate does not name.
const USER_MODE_ONLY: usize = 1;
const API: u64 = 0xaa;
const API_CALL: usize = 0xc018_aa3f;
const REGISTER_CALL: usize = 0xc020_aa00;
/// Pages that are not there are protected, too; nobody is told of stores, the page is no more protected then.
const FEATURES: u64 = 1 << 13 | 1 << 15;
const REGISTER_PROTECTION: u64 = 1 << 1;

/// A mapping whose stores the kernel notes, as long as this is open. Once the program closes its descriptor (`closefrom`,
/// say), [`Pagemap::each_noted`] fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noted {
    file: File,
    id: FileId,
}

impl Noted {
    /// Refused by kernels before 6.7, and in many containers.
    pub(crate) fn begin(base: NonNull<u8>, length: PageLen) -> Result<Self, Refusal> {
        if failpoints::refuses() {
            return Err(libc::EPERM);
        }
        let flags = libc::O_CLOEXEC as usize | libc::O_NONBLOCK as usize | USER_MODE_ONLY;
        // SAFETY: 1. changes no memory.
        let file = descriptor(unsafe { call(libc::SYS_userfaultfd, [word(flags)]) }?);
        let begun = Self::register(file, base, length).and_then(|()| file.identify());
        let (id, _) = begun.inspect_err(|_| file.close())?;
        Ok(Self { file, id })
    }

    fn register(file: File, base: NonNull<u8>, length: PageLen) -> Result<(), Refusal> {
        let mut api = [API, FEATURES, 0];
        let arguments = [file.word(), word(API_CALL), (&raw mut api).cast()];
        // SAFETY: 1. writes into the array, as long as the kernel's structure.
        unsafe { call(libc::SYS_ioctl, arguments) }?;
        let base = base.as_ptr().expose_provenance() as u64;
        let mut range = [base, length.bytes() as u64, REGISTER_PROTECTION, 0];
        let arguments = [file.word(), word(REGISTER_CALL), (&raw mut range).cast()];
        // SAFETY: 1. as above. Stores into the range are as before.
        unsafe { call(libc::SYS_ioctl, arguments) }.map(|_| ())
    }

    /// Ends it, unless the program has another file by the number.
    pub(crate) fn end(self) {
        if self.file.identify().is_ok_and(|(id, _)| id == self.id) {
            self.file.close();
        }
    }
}
