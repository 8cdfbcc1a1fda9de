//! Memory for the allocator's own tables: bumped out of mappings that are never given back, so a
//! stale reference to a table always reads a table.
//!
//! Fresh memory is zero and pages of it that nobody touches cost nothing.

use core::ptr::NonNull;

use crate::config;
use crate::hardening::Hardening;
use crate::os::{self, Access, Lock, PageLen, failpoints};
use crate::sync::{GuardedPtr, GuardedUsize, OwnLines};
use crate::units::{LINE, round_up};

/// Bytes of one mapping, unless a table needs more.
const REGION: usize = 1 << 20;
/// log2 of the smallest and the largest recyclable array.
const ARRAY_MIN: u32 = 4;
const ARRAY_MAX: u32 = 16;
const ARRAYS: usize = (ARRAY_MAX - ARRAY_MIN + 1) as usize;

/// First words of each mapping, so that [`resident`] can walk them.
#[derive(Clone, Copy)]
struct Region {
    next: Option<NonNull<Self>>,
    length: PageLen,
}

/// What the lock guards: who has a reference holds it. Cells, not plain fields: whatever moment a
/// fork catches a thread at, its child finds what the stores before that one left.
struct Meta {
    /// The part of the newest mapping not yet handed out.
    cursor: GuardedPtr<u8>,
    left: GuardedUsize,
    regions: GuardedPtr<Region>,
    /// Recycled arrays by log2 of their length, LIFO; the first word of each is the link.
    arrays: [GuardedPtr<u8>; ARRAYS],
}

static META: OwnLines<Lock<Meta>> = OwnLines(Lock::new(Meta {
    cursor: GuardedPtr::null(),
    left: GuardedUsize::new(0),
    regions: GuardedPtr::null(),
    arrays: [const { GuardedPtr::null() }; ARRAYS],
}));

/// `bytes` of zeroed memory on a cache line, forever.
pub(crate) fn alloc(bytes: usize) -> Option<NonNull<u8>> {
    let bytes = round_up(bytes, LINE)?;
    from_region(bytes, |meta| meta.bump(bytes))
}

/// As [`alloc`], in whole pages.
pub(crate) fn alloc_pages(bytes: usize) -> Option<NonNull<u8>> {
    let bytes = PageLen::holding(bytes)?.bytes();
    from_region(bytes, |meta| meta.bump_pages(bytes))
}

/// What `take` finds in the newest mapping, or else in a fresh one that has room for `bytes`.
fn from_region(bytes: usize, take: impl Fn(&Meta) -> Option<NonNull<u8>>) -> Option<NonNull<u8>> {
    {
        let meta = META.lock();
        failpoints::at(failpoints::Point::Meta);
        if let Some(table) = take(&meta) {
            return Some(table);
        }
    }
    // No system call under the lock. The rest of the region before is lost, as it is if two threads
    // get here at once: addresses that were never touched.
    let length = PageLen::holding(round_up(bytes + os::page_size(), REGION)?)?;
    let base = map(length)?;
    let meta = META.lock();
    meta.add_region(base, length);
    take(&meta)
}

/// A mapping for tables; between inaccessible pages, if they are to be isolated.
fn map(length: PageLen) -> Option<NonNull<u8>> {
    let page = PageLen::pages(1);
    if !config::mode().has(Hardening::ISOLATION) {
        return os::map(length, page.bytes(), Access::Committed);
    }
    let whole = length.plus(PageLen::pages(2))?;
    let first = os::map(whole, page.bytes(), Access::Committed)?;
    // SAFETY: 1. two pages more than `length` were mapped: this is behind the first.
    let base = unsafe { crate::ptr::advance::<u8>(first, page.bytes()) };
    // SAFETY: 1. the second of the two is behind this.
    let last = unsafe { crate::ptr::advance::<u8>(base, length.bytes()) };
    for place in [first, last] {
        // Tables without a guard are better than none.
        // SAFETY: 1. a page mapped above, not used.
        let _ = unsafe { os::guard(place, page) };
    }
    Some(base)
}

impl Meta {
    /// The next `bytes` of the newest mapping.
    fn bump(&self, bytes: usize) -> Option<NonNull<u8>> {
        let left = self.left.get().checked_sub(bytes)?;
        let table = self.cursor.get()?;
        // SAFETY: 1. `left` counted these bytes.
        let rest = unsafe { crate::ptr::advance::<u8>(table, bytes) };
        // A fork between these two leaks `bytes` in the child: `left` shrinks first.
        self.left.set(left);
        self.cursor.set(Some(rest));
        Some(table)
    }

    /// The last `bytes` of whole pages of the newest mapping: pages keep together at its end, and
    /// what is shorter at its beginning.
    fn bump_pages(&self, bytes: usize) -> Option<NonNull<u8>> {
        let cursor = self.cursor.get()?;
        let start = (cursor.addr().get() + self.left.get()).checked_sub(bytes)?;
        let start = start & !(os::page_size() - 1);
        let left = start.checked_sub(cursor.addr().get())?;
        self.left.set(left);
        // SAFETY: 1. `left` counted these bytes.
        Some(unsafe { crate::ptr::advance(cursor, left) })
    }

    /// Makes a fresh mapping the newest.
    fn add_region(&self, base: NonNull<u8>, length: PageLen) {
        let region = base.cast::<Region>();
        let next = self.regions.get();
        // SAFETY: 1. a fresh mapping, long enough and aligned to a page.
        unsafe { region.write(Region { next, length }) };
        self.regions.set(Some(region));
        // Nothing is left while the cursor moves on: a child of a fork in between takes a new
        // mapping.
        self.left.set(0);
        // SAFETY: 1. the mapping is longer than a line.
        let first = unsafe { crate::ptr::advance::<u8>(base, LINE) };
        self.cursor.set(Some(first));
        self.left.set(length.bytes() - LINE);
    }

    /// Takes a recycled array off its list.
    fn pop_array(&self, index: usize) -> Option<NonNull<u8>> {
        let array = self.arrays[index].get()?;
        // SAFETY: 1. `push_array` left the link in the first word.
        let next = unsafe { array.cast::<Option<NonNull<u8>>>().read() };
        self.arrays[index].set(next);
        Some(array)
    }

    /// Puts an array on the list of those of its length.
    ///
    /// # Safety
    /// 1. The array is of a length that belongs to the list, and nobody uses it.
    unsafe fn push_array(&self, index: usize, array: NonNull<u8>) {
        let next = self.arrays[index].get();
        // SAFETY: 1. of the shortest length it is 16 bytes, aligned to as many, and unused.
        unsafe { array.cast::<Option<NonNull<u8>>>().write(next) };
        self.arrays[index].set(Some(array));
    }
}

/// An array of at least `bytes`, a power of two, contents unknown; [`free_array`] recycles it.
pub(crate) fn alloc_array(bytes: usize) -> Option<NonNull<u8>> {
    let index = array_index(bytes)?;
    let recycled = META.lock().pop_array(index);
    if recycled.is_some() {
        return recycled;
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
    // SAFETY: 1. `alloc_array` gave one of this length for as many bytes; its last user gives it.
    unsafe { META.lock().push_array(index, array) };
}

fn array_index(bytes: usize) -> Option<usize> {
    let log = bytes.next_power_of_two().ilog2().max(ARRAY_MIN);
    (log <= ARRAY_MAX).then(|| (log - ARRAY_MIN) as usize)
}

/// Bytes of the tables that are in memory.
pub(crate) fn resident() -> usize {
    let mut bytes = 0;
    // Regions are never unmapped nor changed: only the first is read under the lock.
    let mut region = META.lock().regions.get();
    while let Some(base) = region {
        // SAFETY: 1. written by `add_region`, never changed.
        let Region { next, length } = unsafe { base.read() };
        bytes += os::resident(base.cast(), length);
        region = next;
    }
    bytes
}

/// In a forked child: tables can be had.
#[must_use]
pub(crate) struct Whole(());

/// In a forked child: breaks the lock of a thread that is gone. Each section above leaves the lists
/// whole at every step, at worst it leaks what it was about to hand out.
///
/// # Safety
/// 1. This is the only thread inside the allocator, and it does not hold the lock.
pub(crate) unsafe fn recover() -> Whole {
    META.break_inherited();
    Whole(())
}
