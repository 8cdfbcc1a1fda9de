//! What the fast paths fall back to. `extern "C"`: a panic, which would be a bug, aborts here
//! instead of unwinding into the program.

use core::ptr::{self, NonNull};

use super::capacity::Move;
use super::{
    Config, NO_CLASS, SizeClass, ThreadCache, careful, helper, hot_magazine, parked, thread,
};
use crate::arena::{self, Age, Zeroed};
use crate::config;
use crate::error::Misuse;
use crate::hardening::Hardening;
use crate::heap::{self, Wrong};
use crate::large;
use crate::os::failpoints;
use crate::size_class::{CLASSES, Request, classify};
use crate::size_map::{MEDIUM_MAX, MagazineOffset};
use crate::sync::{Ordering, Slot};
use crate::units::ADDRESS_BITS;

/// Slow paths of a thread between two looks at what is unused.
const TICK: u64 = 256;
/// Slabs whose pages are looked at in one sweep.
const SWEEP: usize = 256;

/// [`super::alloc`], whatever the size and whatever state the thread is in. `KNOWN`: who frees the block
/// knows its layout.
#[inline(never)]
pub(crate) extern "C" fn alloc_rest<const KNOWN: bool>(
    size: usize,
    align: usize,
    config: &Config,
) -> *mut u8 {
    if config::mode().is_careful() {
        return careful::alloc::<KNOWN>(size, align, Zeroed::No, config);
    }
    alloc_decided(size, align, config)
}

/// In a process whose calls take no care.
pub(super) fn alloc_plain(size: usize, align: usize, zeroed: Zeroed, config: &Config) -> *mut u8 {
    match zeroed {
        Zeroed::No => alloc_decided(size, align, config),
        Zeroed::Yes => alloc_zeroed_decided(size, align, config),
    }
}

#[inline(always)]
fn alloc_decided(size: usize, align: usize, config: &Config) -> *mut u8 {
    match classify(size, align) {
        Request::Block(class) => {
            let block = if is_gated(class) {
                ptr::null_mut()
            } else {
                hot_magazine(MagazineOffset::of(class)).pop()
            };
            if block.is_null() {
                refill(class, config)
            } else {
                block
            }
        }
        request => block_or_null(alloc_big(request, size, align, Zeroed::No, config)),
    }
}

/// Zeroed, what is not a small block at hand.
#[inline(never)]
pub(crate) extern "C" fn alloc_zeroed_rest<const KNOWN: bool>(
    size: usize,
    align: usize,
    config: &Config,
) -> *mut u8 {
    if config::mode().is_careful() {
        return careful::alloc::<KNOWN>(size, align, Zeroed::Yes, config);
    }
    alloc_zeroed_decided(size, align, config)
}

fn alloc_zeroed_decided(size: usize, align: usize, config: &Config) -> *mut u8 {
    let request = classify(size, align);
    let (block, zeroed) = match request {
        Request::Block(_) => (NonNull::new(alloc_decided(size, align, config)), Zeroed::No),
        _ => match alloc_big(request, size, align, Zeroed::Yes, config) {
            Some((block, zeroed)) => (Some(block), zeroed),
            None => (None, Zeroed::No),
        },
    };
    if let (Some(block), Zeroed::No) = (block, zeroed) {
        // SAFETY: 1. a fresh block of at least `size` bytes.
        unsafe { block.write_bytes(0, size) };
    }
    block.map_or(ptr::null_mut(), NonNull::as_ptr)
}

/// What `attempt` gives, or gives once all that nobody uses went back to the kernel: empty chunks and
/// cached mappings of one kind must not be what keeps another from memory.
pub(super) fn or_reclaim<T>(attempt: impl Fn() -> Option<T>) -> Result<Option<T>, Wrong> {
    if let Some(found) = attempt() {
        return Ok(Some(found));
    }
    parked::try_to_empty(Age::Any, usize::MAX)?;
    heap::spares();
    arena::decay(Age::Any);
    large::decay(Age::Any);
    Ok(attempt())
}

fn block_or_null(found: Option<(NonNull<u8>, Zeroed)>) -> *mut u8 {
    found.map_or(ptr::null_mut(), |(block, _)| block.as_ptr())
}

fn alloc_big(
    request: Request,
    size: usize,
    align: usize,
    wanted: Zeroed,
    config: &Config,
) -> Option<(NonNull<u8>, Zeroed)> {
    // No memory given back makes room for what no process can address.
    if size.max(align) >> ADDRESS_BITS != 0 || !thread::prepare(config) {
        return None;
    }
    let found = or_reclaim(|| match request {
        Request::Span(units) => large::alloc_span(units, size, align),
        _ => large::alloc(size, align, wanted),
    });
    found.unwrap_or_else(|wrong| wrong.report())
}

/// [`super::free`], whatever the size and whatever state the thread is in.
///
/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. Nobody uses it any more.
#[inline(never)]
pub(crate) unsafe extern "C" fn free_rest(
    block: NonNull<u8>,
    size: usize,
    align: usize,
    config: &Config,
) {
    if config::mode().is_careful() {
        // SAFETY: 1. and 2. the caller's.
        return unsafe { careful::free(block, size, align, config) };
    }
    // SAFETY: 1. and 2. the caller's.
    unsafe { free_plain(block, size, align, config) };
    helper::notice();
}

/// In a process whose calls take no care.
///
/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. Nobody uses it any more.
#[inline(always)]
pub(super) unsafe fn free_plain(block: NonNull<u8>, size: usize, align: usize, config: &Config) {
    match classify(size, align) {
        Request::Block(class) => {
            if is_gated(class) || !hot_magazine(MagazineOffset::of(class)).push(block) {
                // SAFETY: 1. the caller's.
                unsafe { make_room(block, class, config) };
            }
        }
        // Without memory for its first call a process can have nothing to free.
        _ if !thread::prepare(config) => {}
        // SAFETY: 1. the caller's 2.
        Request::Span(units) => unsafe { large::free_span(block, units) },
        // SAFETY: 1. the caller's 2.
        Request::Large => unsafe { large::free(block, size) },
    }
}

/// The magazine of `class` is empty, or gated, or the thread has none at hand.
#[cold]
pub(super) fn refill(class: SizeClass, config: &Config) -> *mut u8 {
    try_to_refill(class, config).unwrap_or_else(|wrong| wrong.report())
}

fn try_to_refill(class: SizeClass, config: &Config) -> Result<*mut u8, Wrong> {
    let Some(cache) = thread::enter_for(class, config) else {
        // Past its clean-up, before it is registered, or without memory for a cache.
        return if thread::is_ready() {
            refill_one(0, class)
        } else {
            Ok(ptr::null_mut())
        };
    };
    let _held = cache.gate.lock();
    cache.come_back();
    let _working = cache.working_on(class)?;
    failpoints::at(failpoints::Point::Gate);
    // After having been held off, the thread finds its magazines as they were.
    let block = cache.magazine(class).pop();
    if !block.is_null() {
        return Ok(block);
    }
    let (record, heap) = (cache.record(class), cache.heap.get() as usize);
    if record.goes_alone(class) {
        return refill_one(heap, class);
    }
    cache.grow(class, Move::Refill);
    record.note(Move::Refill);
    let (slots, _) = cache.contents(class);
    if slots.is_empty() {
        // No memory for slots. There may still be a block.
        return refill_one(heap, class);
    }
    let batch = record.next_batch();
    let Some(blocks) = fill(heap, class, &slots[1..=batch])? else {
        return Ok(ptr::null_mut());
    };
    if let (true, Some(care)) = (config::mode().has(Hardening::RANDOM), cache.care.get()) {
        care.shuffle(&slots[1..=blocks], class);
    }
    Ok(cache.magazine(class).load(slots, blocks))
}

/// [`heap::refill`], after all that nobody uses went back if need be; `None` is out of memory.
fn fill(heap: usize, class: SizeClass, out: &[Slot]) -> Result<Option<usize>, Wrong> {
    or_reclaim(|| Some(heap::refill(heap, class, out)).filter(|taken| *taken > 0))
}

/// One block, straight from heap `heap`.
fn refill_one(heap: usize, class: SizeClass) -> Result<*mut u8, Wrong> {
    let slot = Slot::new(ptr::null_mut());
    // Without one, the slot stays null.
    let _ = fill(heap, class, core::slice::from_ref(&slot))?;
    // ORDERING: on this thread's stack.
    Ok(slot.load(Ordering::Relaxed))
}

/// The magazine of `class` is full, or gated, or the thread has none at hand.
///
/// # Safety
/// 1. The block is one of `class`, and nobody uses it any more.
#[cold]
pub(super) unsafe fn make_room(block: NonNull<u8>, class: SizeClass, config: &Config) {
    // SAFETY: 1. the caller's.
    let made = unsafe { try_to_make_room(block, class, config) };
    made.unwrap_or_else(|wrong| wrong.report());
}

/// # Safety
/// 1. As for [`make_room`].
unsafe fn try_to_make_room(
    block: NonNull<u8>,
    class: SizeClass,
    config: &Config,
) -> Result<(), Wrong> {
    let Some(cache) = thread::enter(config) else {
        // SAFETY: 1. the caller's.
        return unsafe { flush_shared(block, class) };
    };
    let _held = cache.gate.lock();
    cache.come_back();
    let _working = cache.working_on(class)?;
    failpoints::at(failpoints::Point::Gate);
    if is_gated(class) && cache.holds(class, block) {
        let address = block.addr().get();
        return Err(Wrong::new(Misuse::Freed, address, class));
    }
    if cache.magazine(class).push(block) {
        return Ok(());
    }
    if cache.record(class).goes_alone(class) {
        // SAFETY: 1. the caller's.
        return unsafe { flush_shared(block, class) };
    }
    if !cache.grow(class, Move::Flush) {
        let (_, blocks) = cache.contents(class);
        cache.flush_oldest(class, cache.record(class).gives(blocks))?;
    }
    cache.record(class).note(Move::Flush);
    if cache.magazine(class).push(block) {
        return Ok(());
    }
    // No memory for slots.
    // SAFETY: 1. the caller's.
    unsafe { flush_shared(block, class) }
}

/// # Safety
/// 1. The block is one of `class`, and nobody uses it any more.
unsafe fn flush_shared(block: NonNull<u8>, class: SizeClass) -> Result<(), Wrong> {
    // SAFETY: 1. the caller's.
    unsafe { heap::flush(class, &[Slot::new(block.as_ptr())]) }
}

/// While it lives, a child of `fork` knows which magazine may be half changed.
struct Working(&'static ThreadCache);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.busy.set(NO_CLASS);
    }
}

impl ThreadCache {
    /// Begins a slow path: the gate is held. Every so often, looks at what is unused.
    fn working_on(&'static self, class: SizeClass) -> Result<Working, Wrong> {
        let ticks = self.ticks.get().wrapping_add(1);
        self.ticks.set(ticks);
        if ticks.is_multiple_of(TICK) {
            let working = Working(self);
            self.shrink_unused()?;
            tend()?;
            drop(working);
            // Not only a free gives blocks back to slabs.
            helper::notice();
        }
        self.work_on(class);
        Ok(Working(self))
    }

    /// The class whose magazine may be half changed.
    pub(super) fn busy_with(&self) -> Option<SizeClass> {
        let busy = usize::from(self.busy.get());
        (busy < CLASSES).then(|| SizeClass::new(busy))
    }

    /// Notes which magazine may be half changed from here on.
    pub(super) fn work_on(&self, class: SizeClass) {
        #[expect(clippy::cast_possible_truncation, reason = "CLASSES is below NO_CLASS")]
        self.busy.set(class.index() as u8);
    }
}

/// Gives back what is due, about once in a purge delay for the whole process.
fn tend() -> Result<(), Wrong> {
    if thread::is_time() {
        parked::try_to_empty(Age::Due, 1)?;
        heap::some_holes(SWEEP);
        arena::decay(Age::Due);
        large::decay(Age::Due);
    }
    Ok(())
}

/// Gives back what is due, wherever it is. No lock is held.
pub(super) fn tend_all() {
    thread::tended();
    let emptied = parked::try_to_empty(Age::Due, usize::MAX);
    emptied.unwrap_or_else(|wrong| wrong.report());
    heap::old_holes();
    arena::decay(Age::Due);
    large::decay(Age::Due);
}

/// Whether the magazine of `class` is reached through the gate alone. The blocks of these classes are
/// so long that the newest of each would be most of what a sleeping thread pins. The careful way, which
/// pins what is in quarantine anyhow, has no use for gates.
pub(super) fn is_gated(class: SizeClass) -> bool {
    class.size() > MEDIUM_MAX && !config::mode().is_careful()
}
