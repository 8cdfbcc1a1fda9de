//! Memory for the allocator's own tables: bumped out of mappings that are never given back, so a
//! stale reference to a table always reads a table.
//!
//! Fresh memory is zero and pages of it that nobody touches cost nothing.

use core::ptr::NonNull;

use crate::config;
use crate::hardening::Hardening;
use crate::os::{self, Access, Lock, failpoints};
use crate::sync::{AtomicPtr, GuardedUsize, Ordering};
use crate::units::{LINE, round_up};

/// Bytes of one mapping, unless a table needs more.
const REGION: usize = 1 << 20;
/// log2 of the smallest and the largest recyclable array.
const ARRAY_MIN: u32 = 4;
const ARRAY_MAX: u32 = 16;
const ARRAYS: usize = (ARRAY_MAX - ARRAY_MIN + 1) as usize;

/// First words of each mapping, so that [`resident`] can walk them.
struct Region {
    next: *const Self,
    length: usize,
}

struct Meta {
    lock: Lock<()>,
    /// The part of the newest mapping not yet handed out.
    cursor: AtomicPtr<u8>,
    left: GuardedUsize,
    regions: AtomicPtr<Region>,
    /// Recycled arrays by log2 of their length, LIFO; the first word of each is the link.
    arrays: [AtomicPtr<u8>; ARRAYS],
}

static META: Meta = Meta {
    lock: Lock::new(()),
    cursor: AtomicPtr::new(core::ptr::null_mut()),
    left: GuardedUsize::new(0),
    regions: AtomicPtr::new(core::ptr::null_mut()),
    arrays: [const { AtomicPtr::new(core::ptr::null_mut()) }; ARRAYS],
};

/// `bytes` of zeroed memory on a cache line, forever.
pub(crate) fn alloc(bytes: usize) -> Option<NonNull<u8>> {
    let bytes = round_up(bytes, LINE)?;
    from_region(bytes, || bump(bytes))
}

/// As [`alloc`], in whole pages.
pub(crate) fn alloc_pages(bytes: usize) -> Option<NonNull<u8>> {
    let bytes = round_up(bytes, os::page_size())?;
    from_region(bytes, || bump_pages(bytes))
}

/// What `take` finds in the newest mapping, or else in a fresh one that has room for `bytes`.
fn from_region(bytes: usize, take: impl Fn() -> Option<NonNull<u8>>) -> Option<NonNull<u8>> {
    {
        let _held = META.lock.lock();
        failpoints::at(failpoints::Point::Meta);
        if let Some(table) = take() {
            return Some(table);
        }
    }
    // No system call under the lock. The rest of the region before is lost, as it is if two threads
    // get here at once: addresses that were never touched.
    let length = round_up(bytes + os::page_size(), REGION)?;
    let base = map(length)?;
    let _held = META.lock.lock();
    add_region(base, length);
    take()
}

/// A mapping for tables; between inaccessible pages, if they are to be isolated.
fn map(length: usize) -> Option<NonNull<u8>> {
    let page = os::page_size();
    if !config::mode().has(Hardening::ISOLATION) {
        return os::map(length, page, Access::Committed);
    }
    let first = os::map(length + 2 * page, page, Access::Committed)?;
    // SAFETY: 1. two pages more than `length` were mapped.
    let base = unsafe { crate::ptr::advance::<u8>(first, page) };
    // SAFETY: 1. as above.
    let last = unsafe { crate::ptr::advance::<u8>(base, length) };
    for place in [first, last] {
        // Tables without a guard are better than none.
        // SAFETY: 1. a page mapped above, not used.
        let _ = unsafe { os::guard(place, page) };
    }
    Some(base)
}

/// The next `bytes` of the newest mapping. The lock is held.
fn bump(bytes: usize) -> Option<NonNull<u8>> {
    let left = META.left.get().checked_sub(bytes)?;
    // ORDERING: guarded by `META.lock`, here and below.
    let table = NonNull::new(META.cursor.load(Ordering::Relaxed))?;
    // SAFETY: 1. `left` counted these bytes.
    let rest = unsafe { crate::ptr::advance::<u8>(table, bytes) };
    // A fork between these two leaks `bytes` in the child: `left` shrinks first.
    META.left.set(left);
    META.cursor.store(rest.as_ptr(), Ordering::Relaxed);
    Some(table)
}

/// The last `bytes` of whole pages of the newest mapping: pages keep together at its end, and what is
/// shorter at its beginning. The lock is held.
fn bump_pages(bytes: usize) -> Option<NonNull<u8>> {
    // ORDERING: guarded by `META.lock`.
    let cursor = NonNull::new(META.cursor.load(Ordering::Relaxed))?;
    let start = (cursor.addr().get() + META.left.get()).checked_sub(bytes)?;
    let start = start & !(os::page_size() - 1);
    let left = start.checked_sub(cursor.addr().get())?;
    META.left.set(left);
    // SAFETY: 1. `left` counted these bytes.
    Some(unsafe { crate::ptr::advance(cursor, left) })
}

/// Makes a fresh mapping the newest. The lock is held.
fn add_region(base: NonNull<u8>, length: usize) {
    let region = base.cast::<Region>();
    // ORDERING: guarded by `META.lock`.
    let next = META.regions.load(Ordering::Relaxed);
    // SAFETY: 1. a fresh mapping, long enough and aligned to a page.
    unsafe { region.write(Region { next, length }) };
    META.regions.store(region.as_ptr(), Ordering::Relaxed);
    META.left.set(0);
    // SAFETY: 1. the mapping is longer than a line.
    let first = unsafe { crate::ptr::advance::<u8>(base, LINE) };
    META.cursor.store(first.as_ptr(), Ordering::Relaxed);
    META.left.set(length - LINE);
}

/// An array of at least `bytes`, a power of two, contents unknown; [`free_array`] recycles it.
pub(crate) fn alloc_array(bytes: usize) -> Option<NonNull<u8>> {
    let index = array_index(bytes)?;
    {
        let _held = META.lock.lock();
        // ORDERING: guarded by `META.lock`.
        if let Some(array) = NonNull::new(META.arrays[index].load(Ordering::Relaxed)) {
            // SAFETY: 1. `free_array` left the link in the first word.
            let next = unsafe { array.cast::<*mut u8>().read() };
            META.arrays[index].store(next, Ordering::Relaxed);
            return Some(array);
        }
    }
    let length = 1 << (ARRAY_MIN as usize + index);
    let array = alloc(length)?;
    // Arrays shorter than a line share one.
    for offset in (length..LINE).step_by(length) {
        // SAFETY: 1. inside the line.
        let other = unsafe { crate::ptr::advance::<u8>(array, offset) };
        // SAFETY: 1. nobody has it yet.
        unsafe { free_array(other, length) };
    }
    Some(array)
}

/// Recycles an array of `bytes`.
///
/// # Safety
/// 1. `array` came from [`alloc_array`] with the same `bytes`, and nobody uses it any more.
pub(crate) unsafe fn free_array(array: NonNull<u8>, bytes: usize) {
    let Some(index) = array_index(bytes) else {
        return;
    };
    let _held = META.lock.lock();
    // ORDERING: guarded by `META.lock`.
    let next = META.arrays[index].load(Ordering::Relaxed);
    // SAFETY: 1. at least 16 bytes and aligned to as many, the caller's to give.
    unsafe { array.cast::<*mut u8>().write(next) };
    META.arrays[index].store(array.as_ptr(), Ordering::Relaxed);
}

fn array_index(bytes: usize) -> Option<usize> {
    let log = bytes.next_power_of_two().ilog2().max(ARRAY_MIN);
    (log <= ARRAY_MAX).then(|| (log - ARRAY_MIN) as usize)
}

/// Bytes of the tables that are in memory.
pub(crate) fn resident() -> usize {
    let mut bytes = 0;
    // ORDERING: guarded by `META.lock`; regions are never unmapped, so the walk needs no lock.
    let mut region = {
        let _held = META.lock.lock();
        META.regions.load(Ordering::Relaxed).cast_const()
    };
    while let Some(base) = NonNull::new(region.cast_mut()) {
        // SAFETY: 1. written by `add_region`, never changed.
        let Region { next, length } = unsafe { base.read() };
        bytes += os::resident(base.cast(), length);
        region = next;
    }
    bytes
}

/// In a forked child: breaks the lock of a thread that is gone. Each section above leaves the lists
/// whole at every step, at worst it leaks what it was about to hand out.
///
/// # Safety
/// 1. This is the only thread inside the allocator, and it does not hold the lock.
pub(crate) unsafe fn recover() {
    META.lock.break_inherited();
}
