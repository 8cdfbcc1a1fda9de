//! Sampled allocations: each on a page of its own between inaccessible ones, and inaccessible itself once
//! it is freed, so that an overflow or a use after free faults where it happens. The method is that of
//! GWP-ASan (Serebryany and others, 2023); the pool is small and its pages are reused as late as possible.

mod report;

use core::ptr::NonNull;

use self::report::Trace;
use crate::arena::meta;
use crate::error::{Call, Misuse};
use crate::os::{self, Access, Held, Lock, PageLen};
use crate::sync::{AtomicPtr, AtomicUsize, GuardedU8, GuardedUsize, Link, Ordering};
use crate::units::round_up;

/// Blocks that the pool holds, live ones and freed ones that are not reused yet.
const PLACES: usize = 64;
/// Samples until it is believed that the process has installed its handlers of faults.
const SETTLED: usize = 1 << 10;
/// What fills a sampled page behind its block.
const FILLING: u8 = 0xA5;

/// What a place holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// Nothing yet.
    Unused = 0,
    /// On its way between two other states, in the hands of one thread: see [`Moving`].
    Moving = 1,
    Live = 2,
    Freed = 3,
}

/// One page for blocks; the pages beside it are never accessible.
struct Place {
    state: GuardedU8,
    /// The block: first byte and bytes.
    address: GuardedUsize,
    size: GuardedUsize,
    /// When it was freed, as a count of frees.
    freed: GuardedUsize,
    allocated_by: Trace,
    freed_by: Trace,
}

/// All zero is an empty table.
struct Table([Place; PLACES]);

struct Pool {
    /// Frees so far, in the lock of the places' states.
    frees: Lock<usize>,
    table: Link<Table>,
    /// First page: a guard, as is every second one.
    base: AtomicPtr<u8>,
    /// Blocks sampled so far.
    samples: AtomicUsize,
    /// 1 once callers can be recorded.
    begun: GuardedU8,
}

static POOL: Pool = Pool {
    frees: Lock::new(0),
    table: Link::none(),
    base: AtomicPtr::new(core::ptr::null_mut()),
    samples: AtomicUsize::new(0),
    begun: GuardedU8::new(0),
};

/// Begins to sample: the C library is initialised, so that the unwinder works.
pub(crate) fn begin() {
    POOL.begun.set(1);
}

fn pool_length() -> PageLen {
    PageLen::pages(2 * PLACES + 1)
}

/// Makes the pool; without memory for it nothing is sampled. Threads may do this at the same time.
pub(crate) fn initialise() {
    let make = || {
        let table = meta::alloc_pages(size_of::<Table>())?;
        let length = pool_length();
        let base = os::map(length, os::page_size(), Access::Committed)?;
        // SAFETY: 1. mapped above.
        if !unsafe { os::guard(base, length) } {
            // SAFETY: 1. mapped above, and nobody knows it.
            let _ = unsafe { os::unmap(base, length) };
            return None;
        }
        Some((table, base))
    };
    if POOL.table.get().is_some() {
        return;
    }
    let Some((table, base)) = make() else { return };
    // ORDERING: pairs with the acquire in `base`; who comes second leaves its pool unused.
    let (none, publish) = (core::ptr::null_mut(), Ordering::Release);
    let first = POOL
        .base
        .compare_exchange(none, base.as_ptr(), publish, Ordering::Relaxed);
    if first.is_err() {
        // SAFETY: 1. mapped above, and nobody knows it.
        let _ = unsafe { os::unmap(base, pool_length()) };
        return;
    }
    // SAFETY: 1. zeroed metadata of this size, never freed; all zero is an empty table.
    POOL.table
        .set(Some(unsafe { table.cast::<Table>().as_ref() }));
}

fn base() -> Option<NonNull<u8>> {
    // ORDERING: pairs with the release in `initialise`.
    NonNull::new(POOL.base.load(Ordering::Acquire))
}

/// How far into the pool `address` lies.
#[inline(always)]
fn offset_of(address: usize) -> Option<usize> {
    let offset = address.checked_sub(base()?.addr().get())?;
    (offset < pool_length().bytes()).then_some(offset)
}

/// Bytes of the pages of live blocks.
pub(crate) fn live() -> usize {
    let places = POOL.table.get().map_or(&[][..], |table| &table.0);
    let is_live = |place: &&Place| place.state() == State::Live;
    places.iter().filter(is_live).count() * os::page_size()
}

/// Whether a pointer leads into the pool.
#[inline(always)]
pub(crate) fn owns(block: NonNull<u8>) -> bool {
    offset_of(block.addr().get()).is_some()
}

/// Bytes that the user of the block at `block` asked for, if it is one; what is none is found out by
/// [`expect`] and [`free`].
pub(crate) fn length(block: NonNull<u8>) -> usize {
    offset_of(block.addr().get())
        .and_then(|offset| place_of(offset / os::page_size()))
        .map_or(0, |place| place.size.get())
}

/// The place whose page is the `page`th of the pool.
fn place_of(page: usize) -> Option<&'static Place> {
    if page.is_multiple_of(2) {
        return None;
    }
    POOL.table.get()?.0.get(page / 2)
}

/// The page of the place with this index.
fn page_at(index: usize) -> Option<NonNull<u8>> {
    let offset = (2 * index + 1) * os::page_size();
    // SAFETY: 1. below the pool's length.
    Some(unsafe { crate::ptr::advance(base()?, offset) })
}

impl Place {
    fn state(&self) -> State {
        match self.state.get() {
            0 => State::Unused,
            2 => State::Live,
            3 => State::Freed,
            _ => State::Moving,
        }
    }
}

/// A block of zeros on a page of its own; `None` if it does not fit, or the pool is full of live ones.
pub(crate) fn alloc(size: usize, align: usize) -> Option<NonNull<u8>> {
    let page = os::page_size();
    let rounded = round_up(size, align)?;
    if rounded > page || align > page || POOL.begun.get() == 0 {
        return None;
    }
    let moving = lock().begin_alloc()?;
    let start = page_at(moving.index)?;
    // SAFETY: 1. a page of the pool that is in the hands of this thread.
    if !unsafe { os::expose(start, PageLen::pages(1)) } {
        lock().undo_alloc(moving);
        return None;
    }
    // Most overflows run forwards: three of four blocks end where the page does.
    // ORDERING: a counter.
    let samples = POOL.samples.fetch_add(1, Ordering::Relaxed);
    let offset = if samples % 4 == 3 { 0 } else { page - rounded };
    // SAFETY: 1. inside the page.
    let block = unsafe { crate::ptr::advance::<u8>(start, offset) };
    // SAFETY: 1. the page is this thread's.
    unsafe { start.write_bytes(FILLING, page) };
    // SAFETY: 1. inside the page: `rounded` is at least `size`.
    unsafe { block.write_bytes(0, size) };
    moving.place.allocated_by.record();
    moving.place.freed_by.clear();
    moving.become_live(block, size);
    Some(block)
}

/// A place between two states: whoever has this is the thread in whose hands it is.
struct Moving {
    index: usize,
    place: &'static Place,
}

impl Moving {
    /// Is the place of a block that goes to its user.
    fn become_live(self, block: NonNull<u8>, size: usize) {
        self.place.address.set(block.addr().get());
        self.place.size.set(size);
        self.place.state.set(State::Live as u8);
    }
}

/// The states of all places, whose lock is held: no other thread begins to move one, or frees one.
/// The count of frees is the time by which the place freed first is known.
struct States(Held<'static, usize>);

fn lock() -> States {
    States(POOL.frees.lock())
}

impl States {
    /// Takes a place to use: one never used, or the one freed first.
    fn begin_alloc(&self) -> Option<Moving> {
        let is_free = |place: &Place| matches!(place.state(), State::Unused | State::Freed);
        let places = POOL.table.get()?.0.iter().enumerate();
        let (index, place) = places
            .filter(|(_, place)| is_free(place))
            .min_by_key(|(_, place)| place.freed.get())?;
        place.state.set(State::Moving as u8);
        // ORDERING: a counter.
        if POOL.samples.load(Ordering::Relaxed) <= SETTLED {
            os::watch_faults(report::fault);
        }
        Some(Moving { index, place })
    }

    /// Takes back a place that could not be used.
    fn undo_alloc(&self, moving: Moving) {
        moving.place.state.set(State::Freed as u8);
    }

    /// The place of the live block at `block`, which is `size` bytes long, with its index; or what
    /// is wrong.
    fn live_at(&self, block: NonNull<u8>, size: usize) -> Result<(usize, &'static Place), Wrong> {
        let address = block.addr().get();
        let page = offset_of(address).map_or(0, |offset| offset / os::page_size());
        let Some(place) = place_of(page) else {
            return Err((Misuse::Foreign, None));
        };
        let is_there = place.address.get() == address;
        let misuse = match place.state() {
            State::Unused => return Err((Misuse::Foreign, None)),
            State::Live if !is_there => Misuse::Interior,
            State::Live if place.size.get() != size => Misuse::WrongSize,
            State::Live => return Ok((page / 2, place)),
            State::Freed | State::Moving if is_there => Misuse::Freed,
            State::Freed | State::Moving => Misuse::Vacant,
        };
        Err((misuse, Some(place)))
    }

    /// Takes the live block at `block` from its user.
    fn begin_free(&self, block: NonNull<u8>, size: usize) -> Result<Moving, Wrong> {
        let (index, place) = self.live_at(block, size)?;
        place.state.set(State::Moving as u8);
        Ok(Moving { index, place })
    }

    /// From now on the place may be taken, after those freed before.
    fn end_free(&mut self, moving: Moving) {
        *self.0 += 1;
        moving.place.freed.set(*self.0);
        moving.place.state.set(State::Freed as u8);
    }
}

/// What is wrong with a pointer, and the place that it leads to.
type Wrong = (Misuse, Option<&'static Place>);

/// What was found at `block`, or the end of the process: without the lock, as a report asks the
/// loader.
fn found<T>(block: NonNull<u8>, call: Call, result: Result<T, Wrong>) -> T {
    result.unwrap_or_else(|(misuse, place)| report::die(misuse.by(call), block.addr().get(), place))
}

/// Makes sure that `block` is a live one of `size` bytes.
pub(crate) fn expect(block: NonNull<u8>, size: usize, call: Call) {
    // A statement of its own, at whose end the states are unlocked; as in `free`.
    let result = lock().live_at(block, size);
    found(block, call, result);
}

/// Frees a block of [`alloc`]; what is none ends the process.
pub(crate) fn free(block: NonNull<u8>, size: usize) {
    let result = lock().begin_free(block, size);
    let moving = found(block, Call::Free, result);
    let (index, place) = (moving.index, moving.place);
    let Some(start) = page_at(index) else { return };
    if !is_filled(start, block, size) {
        let address = block.addr().get();
        report::die("write beside a block", address, Some(place));
    }
    place.freed_by.record();
    // SAFETY: 1. a page of the pool whose block its user gave up; nobody takes it while it is
    // moving.
    let _ = unsafe { os::guard(start, PageLen::pages(1)) };
    lock().end_free(moving);
}

/// Whether the bytes of the page beside the block are as they were.
fn is_filled(start: NonNull<u8>, block: NonNull<u8>, size: usize) -> bool {
    let page = os::page_size();
    let before = block.addr().get() - start.addr().get();
    // SAFETY: 1. a page that is accessible while its block is live.
    let bytes = unsafe { core::slice::from_raw_parts(start.as_ptr(), page) };
    let beside = bytes[..before].iter().chain(&bytes[before + size..]);
    beside.fold(0, |differs, byte| differs | (byte ^ FILLING)) == 0
}

/// In a forked child: breaks the lock of a thread that is gone. What was moving is lost.
///
/// # Safety
/// 1. This is the only thread inside the allocator, and it does not hold the lock.
pub(crate) unsafe fn recover() {
    POOL.frees.break_inherited();
    report::recover();
}
