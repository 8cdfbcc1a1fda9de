//! The careful way: every call of a process with safeguards or sampling comes here, because its hot
//! words lead to [`super::tls::EMPTY`]. So a process without pays nothing.
//!
//! Another word leads to the same magazines, and the protocol of holding threads off is the same: one
//! look at the word, at most one block pushed or popped for each call.

use core::ptr::{self, NonNull};

use super::care::Care;
use super::slow::{self, is_gated, or_reclaim};
use super::{Config, SizeClass, ThreadCache, front, thread, tls};
use crate::arena::{Zeroed, tags};
use crate::config::{self, Mode};
use crate::error::Misuse;
use crate::hardening::Hardening;
use crate::heap;
use crate::large;
use crate::os;
use crate::random;
use crate::sample;
use crate::size_class::{Request, SMALL_CLASSES, classify, medium_offset, small_offset};
use crate::sync::Ordering;
use crate::units::ADDRESS_BITS;

/// Bytes of a canary.
const CANARY: usize = size_of::<u64>();

/// The cache that the careful word leads to: the thread's own, or `EMPTY`.
#[inline(always)]
fn at_hand() -> &'static ThreadCache {
    // ORDERING: as with the hot word: read once for each call.
    let place = tls::words().careful.load(Ordering::Relaxed);
    // SAFETY: 1. a cache, never unmapped, or `EMPTY`, which is as long, aligned and all zero: a cache
    // without blocks, to whose magazines nothing is written.
    unsafe { &*place.cast::<ThreadCache>() }
}

/// As [`at_hand`], once the process is initialised or repaired, and the thread has registered or come
/// back, if it can. `None` without memory for the first call of the process.
fn prepared(config: &Config) -> Option<&'static ThreadCache> {
    // Before any lock: in a forked child a thread that is gone may hold it.
    if !thread::prepare(config) {
        return None;
    }
    let cache = at_hand();
    if config::mode().is_careful() && !cache.is_real() {
        come_in(config);
        return Some(at_hand());
    }
    Some(cache)
}

#[cold]
fn come_in(config: &Config) {
    if let Some(own) = thread::enter(config) {
        let _held = own.gate.lock();
        own.come_back();
    }
}

/// What serves `size` bytes aligned to `align` and what is kept behind them. What is no block has a
/// mapping of its own.
#[inline]
fn request(size: usize, align: usize, mode: Mode) -> Request {
    match classify(size.saturating_add(behind(mode)), align) {
        Request::Block(class) => Request::Block(class),
        _ => Request::Large,
    }
}

/// The class of `size` bytes, canary included, if its magazine is reached without the gate.
#[inline(always)]
fn ungated(size: usize, align: usize) -> Option<SizeClass> {
    small_offset::<1>(size, align)
        .or_else(|| Some(SMALL_CLASSES + medium_offset::<1>(size, align)?))
        .map(SizeClass::of_offset)
}

/// Bytes behind each block.
#[inline(always)]
fn behind(mode: Mode) -> usize {
    if mode.has(Hardening::CANARIES) {
        CANARY
    } else {
        0
    }
}

/// [`super::alloc`] and [`super::alloc_zeroed`].
pub(super) fn alloc(size: usize, align: usize, zeroed: Zeroed, config: &Config) -> *mut u8 {
    let mode = config::mode();
    let block = if mode.is_all() {
        // The same code without its tests.
        pop(size, align, zeroed, Mode::ALL)
    } else if mode.is_decided() && !(mode.samples() && is_sample()) {
        pop(size, align, zeroed, mode)
    } else {
        None
    };
    match block {
        Some(block) => block.as_ptr(),
        None => alloc_long(size, align, zeroed, config),
    }
}

/// Counts down to the next sample; whether it is this allocation, or none is counted down to yet.
#[inline(always)]
fn is_sample() -> bool {
    at_hand().care.get().is_none_or(Care::count_down)
}

/// A block that is at hand.
#[inline(always)]
fn pop(size: usize, align: usize, zeroed: Zeroed, mode: Mode) -> Option<NonNull<u8>> {
    let class = ungated(size.wrapping_add(behind(mode)), align)?;
    let magazine = at_hand().magazine(class);
    let block = NonNull::new(magazine.pop())?;
    os::prefetch(magazine.head());
    hand_out(block, size, class, zeroed, mode);
    Some(block)
}

#[inline(never)]
fn alloc_long(size: usize, align: usize, zeroed: Zeroed, config: &Config) -> *mut u8 {
    let Some(cache) = prepared(config) else {
        return ptr::null_mut();
    };
    let mode = config::mode();
    if !mode.is_careful() {
        return slow::alloc_plain(size, align, zeroed, config);
    }
    if mode.samples()
        && cache.care.get().is_some_and(Care::is_due)
        && let Some(block) = sample::alloc(size, align)
    {
        return block.as_ptr();
    }
    let Request::Block(class) = request(size, align, mode) else {
        return alloc_large(size, align, zeroed, mode);
    };
    let at_hand = if is_gated(class) {
        ptr::null_mut()
    } else {
        cache.magazine(class).pop()
    };
    let block = if at_hand.is_null() {
        slow::refill(class, config)
    } else {
        at_hand
    };
    if let Some(fresh) = NonNull::new(block) {
        hand_out(fresh, size, class, zeroed, mode);
    }
    block
}

fn alloc_large(size: usize, align: usize, zeroed: Zeroed, mode: Mode) -> *mut u8 {
    if size.max(align) >> ADDRESS_BITS != 0 {
        return ptr::null_mut();
    }
    let length = size + behind(mode);
    let Some((block, clean)) = or_reclaim(|| large::alloc(length, align, zeroed)) else {
        return ptr::null_mut();
    };
    if (zeroed, clean) == (Zeroed::Yes, Zeroed::No) {
        // SAFETY: 1. a fresh block of at least `size` bytes.
        unsafe { block.write_bytes(0, size) };
    }
    write_canary(block, size, mode);
    block.as_ptr()
}

/// Prepares a free block for its user.
#[inline(always)]
fn hand_out(block: NonNull<u8>, size: usize, class: SizeClass, zeroed: Zeroed, mode: Mode) {
    let address = block.addr().get();
    if mode.has(Hardening::CHECKS) && !tags::mark_live(address, class) {
        die(Misuse::Overlap, address, Some(class));
    }
    // Before the look at the front: a page never used costs one fault when it is written first, and two
    // when it is read first.
    write_canary(block, size, mode);
    // SAFETY: 1. a free block, as long as the front of its class.
    if mode.has(Hardening::ZERO) && !unsafe { front::is_zero(block, size) } {
        die(Misuse::UseAfterFree, address, Some(class));
    }
    if zeroed == Zeroed::Yes {
        // SAFETY: 1. a fresh block of at least `size` bytes.
        unsafe { block.write_bytes(0, size) };
    }
}

/// Checks what comes back from its user, and prepares it for the next.
#[inline(always)]
fn take_back(block: NonNull<u8>, size: usize, class: SizeClass, mode: Mode) {
    let address = block.addr().get();
    if mode.has(Hardening::CHECKS) && !tags::mark_free(address, class) {
        die(heap::why_not(address, class), address, Some(class));
    }
    check_canary(block, size, Some(class), mode);
    if mode.has(Hardening::ZERO) {
        // SAFETY: 1. a block of `class`, which its user gave up.
        unsafe { front::clear(block, class.size()) };
    }
}

/// [`super::free`].
///
/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. Nobody uses it any more.
pub(super) unsafe fn free(block: NonNull<u8>, size: usize, align: usize, config: &Config) {
    let mode = config::mode();
    let done = if mode.is_all() {
        // The same code without its tests.
        push(block, size, align, Mode::ALL, config)
    } else {
        let is_sample = mode.samples() && sample::owns(block);
        mode.is_decided() && !is_sample && push(block, size, align, mode, config)
    };
    if !done {
        // SAFETY: 1. and 2. the caller's.
        unsafe { free_long(block, size, align, config) };
    }
}

/// Takes a block back without the gate; `false` if that cannot be.
#[inline(always)]
fn push(block: NonNull<u8>, size: usize, align: usize, mode: Mode, config: &Config) -> bool {
    let cache = at_hand();
    let Some(care) = cache.care.get() else {
        return false;
    };
    let Some(class) = ungated(size.wrapping_add(behind(mode)), align) else {
        return false;
    };
    take_back(block, size, class, mode);
    if let Some(waited) = NonNull::new(care.admit(block.as_ptr(), class, mode))
        && !cache.magazine(class).push(waited)
    {
        // SAFETY: 1. a block of `class` that was freed, now or before.
        unsafe { slow::make_room(waited, class, config) };
    }
    true
}

/// Sends a freed block into quarantine; the one that comes out for it.
fn wait(
    cache: &ThreadCache,
    block: NonNull<u8>,
    class: SizeClass,
    mode: Mode,
) -> Option<NonNull<u8>> {
    match cache.care.get() {
        Some(care) => NonNull::new(care.admit(block.as_ptr(), class, mode)),
        None => Some(block),
    }
}

/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. Nobody uses it any more.
#[inline(never)]
unsafe fn free_long(block: NonNull<u8>, size: usize, align: usize, config: &Config) {
    // Without memory for its first call a process can have nothing to free.
    let Some(cache) = prepared(config) else {
        return;
    };
    let mode = config::mode();
    if !mode.is_careful() {
        // SAFETY: 1. and 2. the caller's.
        return unsafe { slow::free_plain(block, size, align, config) };
    }
    if mode.samples() && sample::owns(block) {
        return sample::free(block, size);
    }
    match request(size, align, mode) {
        Request::Block(class) => {
            take_back(block, size, class, mode);
            if let Some(waited) = wait(cache, block, class, mode)
                && (is_gated(class) || !cache.magazine(class).push(waited))
            {
                // SAFETY: 1. a block of `class` that was freed, now or before.
                unsafe { slow::make_room(waited, class, config) };
            }
        }
        _ => {
            expect(block, size, Request::Large, mode);
            // SAFETY: 1. the caller's 2.
            unsafe { large::free(block, size) };
        }
    }
}

/// [`super::realloc_rest`].
///
/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. On success nobody uses the old block any more.
pub(super) unsafe fn realloc(
    block: NonNull<u8>,
    size: usize,
    align: usize,
    new: usize,
    config: &Config,
) -> *mut u8 {
    let mode = config::mode();
    let is_sample = mode.samples() && sample::owns(block);
    if mode.is_decided()
        && !is_sample
        && at_hand().is_real()
        && let Some(before) = ungated(size.wrapping_add(behind(mode)), align)
        && let Some(after) = ungated(new.wrapping_add(behind(mode)), align)
    {
        expect(block, size, Request::Block(before), mode);
        if before == after {
            write_canary(block, new, mode);
            return block.as_ptr();
        }
        // SAFETY: 1. and 2. the caller's.
        return unsafe { slow::realloc_by_copy(block, size, align, new, config) };
    }
    // SAFETY: 1. and 2. the caller's.
    unsafe { realloc_long(block, size, align, new, config) }
}

/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. On success nobody uses the old block any more.
#[inline(never)]
unsafe fn realloc_long(
    block: NonNull<u8>,
    size: usize,
    align: usize,
    new: usize,
    config: &Config,
) -> *mut u8 {
    if prepared(config).is_none() {
        return ptr::null_mut();
    }
    let mode = config::mode();
    if !mode.is_careful() {
        // SAFETY: 1. and 2. the caller's.
        return unsafe { slow::realloc_plain(block, size, align, new, config) };
    }
    let is_sampled = mode.samples() && sample::owns(block);
    if is_sampled {
        sample::expect(block, size);
    } else {
        let before = request(size, align, mode);
        expect(block, size, before, mode);
        let stays = before == request(new, align, mode);
        // SAFETY: 1. and 2. the caller's.
        if stays && let Some(moved) = unsafe { resize(block, before, align, new, mode) } {
            write_canary(moved, new, mode);
            return moved.as_ptr();
        }
    }
    // SAFETY: 1. and 2. the caller's.
    unsafe { slow::realloc_by_copy(block, size, align, new, config) }
}

/// Makes sure that a block is one that `request` was served by, as long as said.
fn expect(block: NonNull<u8>, size: usize, request: Request, mode: Mode) {
    let address = block.addr().get();
    if let Request::Block(class) = request {
        if mode.has(Hardening::CHECKS) && !tags::is_live(address, class) {
            die(heap::why_not(address, class), address, Some(class));
        }
        check_canary(block, size, Some(class), mode);
    } else {
        large::expect(block, size + behind(mode));
        check_canary(block, size, None, mode);
    }
}

/// Changes the length of a block without a copy.
///
/// # Safety
/// 1. The block is live, and `request` served it.
/// 2. On success nobody uses the old block any more.
unsafe fn resize(
    block: NonNull<u8>,
    request: Request,
    align: usize,
    new: usize,
    mode: Mode,
) -> Option<NonNull<u8>> {
    if let Request::Block(_) = request {
        return Some(block);
    }
    if align > os::page_size() || new >> ADDRESS_BITS != 0 {
        return None;
    }
    // SAFETY: 1. the caller's 2.
    unsafe { large::resize(block, new + behind(mode)) }
}

/// What stands behind a block: other for each address and size. Its first byte is not zero, so that the
/// zero at the end of a C string, one too far, does not pass.
#[inline(always)]
fn canary(address: usize, size: usize) -> u64 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    random::secret() ^ address as u64 ^ (size as u64).wrapping_mul(SPREAD) | 1
}

#[inline(always)]
fn write_canary(block: NonNull<u8>, size: usize, mode: Mode) {
    if mode.has(Hardening::CANARIES) {
        let value = canary(block.addr().get(), size);
        // SAFETY: 1. `request` made room for a canary.
        let place = unsafe { block.add(size) };
        // SAFETY: 1. as above, and nobody uses it.
        unsafe { place.cast::<u64>().write_unaligned(value) };
    }
}

#[inline(always)]
fn check_canary(block: NonNull<u8>, size: usize, class: Option<SizeClass>, mode: Mode) {
    if mode.has(Hardening::CANARIES) {
        // SAFETY: 1. the caller's: a live block that was allocated with this size. With checks, that was
        // made sure of.
        let place = unsafe { block.add(size) };
        // SAFETY: 1. as above: `write_canary` wrote it.
        let found = unsafe { place.cast::<u64>().read_unaligned() };
        let address = block.addr().get();
        if found != canary(address, size) {
            die(Misuse::Overflow, address, class);
        }
    }
}

#[cold]
fn die(misuse: Misuse, address: usize, class: Option<SizeClass>) -> ! {
    match class {
        Some(class) => heap::die(misuse, address, class),
        None => large::die(misuse, address),
    }
}

impl ThreadCache {
    /// Whether this is a thread's cache, not `EMPTY`.
    #[inline]
    fn is_real(&self) -> bool {
        !ptr::eq(ptr::from_ref(self).cast(), &raw const tls::EMPTY)
    }
}
