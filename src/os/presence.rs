//! Which pages of a range are in memory, by what the kernel says, and what that is good for.

use core::ptr::NonNull;

use super::linux::purge;
use super::syscall::{call, word};
use super::{PageLen, failpoints};

/// Bytes of a range that are in memory; 0 when the kernel does not tell.
pub(crate) fn resident(base: NonNull<u8>, length: PageLen) -> usize {
    let mut pages = 0;
    for_each_presence(base, length, |_, present| {
        pages += present.iter().filter(|byte| is_present(**byte)).count();
    });
    pages * super::page_size()
}

/// Places of a range where [`about_resident`] asks, and pages at each.
const PLACES: usize = 4;
const AT_EACH: usize = 32;

/// About how many bytes of a range are in memory, by some of its pages, evenly spread; all when the
/// kernel does not tell.
pub(crate) fn about_resident(base: NonNull<u8>, length: PageLen) -> usize {
    let page = super::page_size();
    let pages = length.bytes() / page;
    let (mut asked, mut there) = (0, 0);
    for place in 0..PLACES {
        let first = pages * (2 * place + 1) / (2 * PLACES);
        // SAFETY: 1. inside the range.
        let start = unsafe { crate::ptr::advance::<u8>(base, first * page) };
        let part = PageLen::pages(AT_EACH.min(pages - first));
        for_each_presence(start, part, |_, present| {
            asked += present.len();
            there += present.iter().filter(|byte| is_present(**byte)).count();
        });
    }
    if asked == 0 {
        return length.bytes();
    }
    // In this order, as a range may be longer than a product of its bytes can be.
    length.bytes() / asked * there
}

/// Where fewer than one page in so many is in memory, all are given back, by one call: what is written
/// stays in memory, and a table of which little is used would come to be there as a whole.
const DENSE: usize = 2;
/// Pages at the beginning that stand for all in that question.
const FIRST: usize = 64;

/// How much of a range that was zeroed is in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum InMemory {
    All,
    Part,
}

/// Zeroes the pages of a range that are in memory, and gives the others back: one that is swapped out
/// is none of those in memory, and has contents. `None`: some are as they were.
///
/// # Safety
/// 1. The range is the caller's own mapping, and nothing in it is in use.
#[must_use]
pub(crate) unsafe fn zero(base: NonNull<u8>, length: PageLen) -> Option<InMemory> {
    let page = super::page_size();
    let first = length.bytes().min(FIRST * page);
    if resident(base, PageLen::within(first)) < first / DENSE {
        // SAFETY: 1. the caller's own mapping, where nothing is in use.
        return unsafe { purge(base, length) }.then_some(InMemory::Part);
    }
    let (mut is_zero, mut found) = (true, InMemory::All);
    let told = for_each_presence(base, length, |offset, present| {
        let mut first = 0;
        for run in present.chunk_by(|left, right| is_present(*left) == is_present(*right)) {
            // SAFETY: 1. pages inside the range.
            let start = unsafe { crate::ptr::advance::<u8>(base, offset + first * page) };
            if is_present(run[0]) {
                // SAFETY: 1. accessible pages that nobody uses.
                unsafe { start.write_bytes(0, run.len() * page) };
            } else {
                // SAFETY: 1. part of the caller's own mapping, where nothing is in use.
                is_zero &= unsafe { purge(start, PageLen::pages(run.len())) };
                found = InMemory::Part;
            }
            first += run.len();
        }
    });
    (told && is_zero).then_some(found)
}

/// Whether a page is in memory, by what `mincore` says of it.
fn is_present(byte: u8) -> bool {
    byte & 1 != 0
}

/// Asks the kernel which pages of a range are in memory, some at a time: `visit` is told how many
/// bytes lie before them, and of each of them. `false` if it did not say of some.
fn for_each_presence(
    base: NonNull<u8>,
    length: PageLen,
    mut visit: impl FnMut(usize, &[u8]),
) -> bool {
    /// So few, as they are on the stack.
    const BATCH: usize = 1024;
    let page = super::page_size();
    let (mut told, mut offset) = (true, 0);
    while offset < length.bytes() {
        let mut present = [0_u8; BATCH];
        let part = (length.bytes() - offset).min(BATCH * page);
        let start = base.as_ptr().wrapping_add(offset).cast();
        let answer = present.as_mut_ptr().cast();
        // SAFETY: 1. `present` has a byte for each page; the range itself is not accessed.
        let asked = unsafe { call(libc::SYS_mincore, [start, word(part), answer]) };
        if failpoints::refuses() || asked.is_err() {
            told = false;
        } else {
            visit(offset, &present[..part / page]);
        }
        offset += part;
    }
    told
}
