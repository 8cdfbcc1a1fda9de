//! Which pages of a private mapping are no more those of its file: somebody stored in them, and they may be swapped out.

use core::ops::Range;

use super::paths::Path;
use super::shared::{File, Refusal, again};
use super::syscall::{call, word};
use super::{failpoints, page_size};

/// `PAGEMAP_SCAN` of the kernel's `fs.h`, which the C library's crate does not name. Linux 6.7 has it.
const SCAN: usize = 0xc060_6610;
const IS_FILE: u64 = 1 << 2;
const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;

/// Bits of an entry of `/proc/self/pagemap`, by which older kernels tell.
const ENTRY_PRESENT: u64 = 1 << 63;
const ENTRY_SWAPPED: u64 = 1 << 62;
const ENTRY_FILE: u64 = 1 << 61;

/// `struct pm_scan_arg`.
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
        let can_scan = scan(file, 0..0, &mut [Region::default(); 1]).is_ok();
        Ok(Self { file, can_scan })
    }

    pub(crate) fn close(self) {
        self.file.close();
    }

    /// Calls for each run of pages between two addresses of private mappings that are no more the files', in order.
    pub(crate) fn each_changed<E: From<NotTold>>(
        self,
        mut addresses: Range<usize>,
        mut act: impl FnMut(Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.can_scan {
            return self.each_by_entries(addresses, act);
        }
        while !addresses.is_empty() {
            let mut regions = [Region::default(); REGIONS];
            let found = scan(self.file, addresses.clone(), &mut regions).map_err(NotTold)?;
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
            let read = self.file.read_at(place, &mut entries[..most]);
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

fn scan(file: File, addresses: Range<usize>, into: &mut [Region]) -> Result<Found, Refusal> {
    if failpoints::refuses() {
        return Err(libc::ENOTTY);
    }
    let mut arguments = Scan {
        size: size_of::<Scan>() as u64,
        flags: 0,
        start: addresses.start as u64,
        end: addresses.end as u64,
        walk_end: 0,
        vec: into.as_mut_ptr().expose_provenance() as u64,
        vec_len: into.len() as u64,
        max_pages: 0,
        category_inverted: IS_FILE,
        category_mask: IS_FILE,
        category_anyof_mask: IS_PRESENT | IS_SWAPPED,
        return_mask: IS_FILE,
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
