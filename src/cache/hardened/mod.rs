//! The way of calls in a hardened process, which is one with safeguards or sampling: every call comes here, because its
//! `alloc` and `free` words lead to [`tls::EMPTY`]. So a process without pays nothing.
//!
//! Another word leads to the same magazines, and the protocol of holding threads off is the same: one
//! look at the word, at most one block pushed or popped for each call.

use core::ptr::{self, NonNull};

mod canary;
mod realloc;
mod validate;
mod zero_prefix;

use self::validate::{die, die_broken};
use super::flush::make_room;
use super::plain;
use super::refill::refill;
use super::tick;
use crate::arena::{Zeroed, tags};
use crate::config::{self, Config, Mode};
use crate::error::{Call, Misuse};
use crate::hardening::Hardening;
use crate::heap;
use crate::large;
use crate::os;
use crate::reclaim::{self, or_reclaim};
use crate::sample;
use crate::size_class::{CLASS_MAX, Request, SizeClass, classify_to};
use crate::size_map::table_class;
use crate::sync::Ordering;
use crate::thread_cache::{Safeguards, ThreadCache, tls};
use crate::threads;
use crate::units::ADDRESS_BITS;

pub(super) use canary::write_slow as write_canary;
pub(super) use realloc::{realloc, resize};
pub(super) use validate::{expect, expect_live};

/// The cache that the hardened word leads to: the thread's own, or `EMPTY`.
#[inline(always)]
pub(super) fn cache_at_hand() -> &'static ThreadCache {
    // ORDERING: as with the other words: read once for each call.
    let place = tls::words().hardened.load(Ordering::Relaxed);
    // SAFETY: 1. a cache, never unmapped, or `EMPTY`, which is as long, aligned and all zero: a cache
    // without blocks, to whose magazines nothing is written.
    unsafe { &*place.cast::<ThreadCache>() }
}

/// As [`cache_at_hand`], once the process is initialised or repaired, and the thread has registered or come
/// back, if it can. `None` without memory for the first call of the process.
pub(super) fn prepared(config: &Config) -> Option<&'static ThreadCache> {
    // Before any lock: in a forked child a thread that is gone may hold it.
    if !threads::prepare(config) {
        return None;
    }
    let cache = cache_at_hand();
    if config::mode().is_hardened() && !cache.is_real() {
        come_back(config);
        return Some(cache_at_hand());
    }
    Some(cache)
}

/// As [`prepared`], for a call about a block of so many bytes: what may be a table of the C library's does not register the
/// thread ([`threads::lock_own_for`]).
fn prepared_for(size: usize, align: usize, config: &Config) -> Option<&'static ThreadCache> {
    match request(size, align, config::mode()) {
        Request::Block(class) if threads::is_for_a_table(class) => {
            threads::prepare(config).then(cache_at_hand)
        }
        _ => prepared(config),
    }
}

#[cold]
fn come_back(config: &Config) {
    // Which registers it if need be, and brings it back.
    if let Some(gate) = threads::lock_own(config) {
        // Who looks for life counts such calls.
        tick::show_life(gate.cache());
    }
}

/// In a process that has turned out to be none.
fn alloc_plain(size: usize, align: usize, zeroed: Zeroed, config: &Config) -> *mut u8 {
    match zeroed {
        Zeroed::No => plain::alloc(size, align, config),
        Zeroed::Yes => plain::alloc_zeroed(size, align, config),
    }
}

/// What serves `size` bytes aligned to `align` and what is kept behind them. What is no block has a
/// mapping of its own.
#[inline]
pub(super) fn request(size: usize, align: usize, mode: Mode) -> Request {
    match classify_to(CLASS_MAX, size.saturating_add(mode.canary_bytes()), align) {
        Request::Block(class) => Request::Block(class),
        _ => Request::Large,
    }
}

/// [`super::alloc`] and [`super::alloc_zeroed`]; `SIZED` as in [`super::alloc_slow`].
pub(super) fn alloc<const SIZED: bool>(
    size: usize,
    align: usize,
    zeroed: Zeroed,
    config: &Config,
) -> *mut u8 {
    let mode = config::mode();
    let block = if mode.is_all() {
        // The same code without its tests.
        pop::<SIZED>(size, align, zeroed, Mode::ALL)
    } else if mode.is_decided() && (!mode.samples() || count_down()) {
        pop::<SIZED>(size, align, zeroed, mode)
    } else {
        return alloc_uncounted::<SIZED>(size, align, zeroed, config);
    };
    match block {
        Some(block) => block.as_ptr(),
        None => alloc_slow::<SIZED>(size, align, zeroed, config),
    }
}

/// Counts an allocation that is no sample; `false` if it may be one, or has no cache to be counted in yet.
#[inline(always)]
fn count_down() -> bool {
    cache_at_hand()
        .safeguards
        .get()
        .is_some_and(Safeguards::count_down)
}

/// A block that is at hand.
#[inline(always)]
fn pop<const SIZED: bool>(
    size: usize,
    align: usize,
    zeroed: Zeroed,
    mode: Mode,
) -> Option<NonNull<u8>> {
    let class = table_class(size.wrapping_add(mode.canary_bytes()), align)?;
    let magazine = cache_at_hand().magazine(class);
    let block = NonNull::new(magazine.pop())?;
    os::prefetch(magazine.head());
    // SAFETY: 1. popped just now.
    unsafe { hand_out::<SIZED>(block, size, class, zeroed, mode) };
    Some(block)
}

/// [`alloc`] of what may be a sample.
#[inline(never)]
fn alloc_uncounted<const SIZED: bool>(
    size: usize,
    align: usize,
    zeroed: Zeroed,
    config: &Config,
) -> *mut u8 {
    let Some(cache) = prepared_for(size, align, config) else {
        return ptr::null_mut();
    };
    if config::mode().samples()
        && let Some(safeguards) = cache.safeguards.get()
        && safeguards.is_due(config::sample_one_in())
        && let Some(block) = safeguards.while_recording(|| sample::alloc(size, align))
    {
        return block.as_ptr();
    }
    alloc_slow::<SIZED>(size, align, zeroed, config)
}

/// [`alloc`] of what is no sample, whatever is at hand.
#[inline(never)]
fn alloc_slow<const SIZED: bool>(
    size: usize,
    align: usize,
    zeroed: Zeroed,
    config: &Config,
) -> *mut u8 {
    let Some(cache) = prepared_for(size, align, config) else {
        return ptr::null_mut();
    };
    let mode = config::mode();
    if !mode.is_hardened() {
        return alloc_plain(size, align, zeroed, config);
    }
    let Request::Block(class) = request(size, align, mode) else {
        return alloc_large::<SIZED>(size, align, zeroed, mode);
    };
    let mut block = cache.magazine(class).pop();
    if block.is_null() {
        block = refill(class, config);
    }
    if let Some(fresh) = NonNull::new(block) {
        // SAFETY: 1. popped or refilled just now.
        unsafe { hand_out::<SIZED>(fresh, size, class, zeroed, mode) };
    }
    block
}

fn alloc_large<const SIZED: bool>(
    size: usize,
    align: usize,
    zeroed: Zeroed,
    mode: Mode,
) -> *mut u8 {
    if size.max(align) >> ADDRESS_BITS != 0 {
        return ptr::null_mut();
    }
    let length = size + mode.canary_bytes();
    let found = or_reclaim(|| large::alloc(length, align, zeroed));
    let Some((block, clean)) = found.unwrap_or_else(|wrong| wrong.report()) else {
        return ptr::null_mut();
    };
    if (zeroed, clean) == (Zeroed::Yes, Zeroed::No) {
        // SAFETY: 1. a fresh block of at least `size` bytes.
        unsafe { block.write_bytes(0, size) };
    }
    let end = if SIZED {
        size
    } else {
        large::length(block, Call::Alloc) - mode.canary_bytes()
    };
    // SAFETY: 1. `length` has room for it, or the block as it was found to be.
    unsafe { canary::write_slow(block, end, mode) };
    block.as_ptr()
}

/// Prepares a free block for its user.
///
/// # Safety
/// 1. The block is one of `class`, which serves `size` and what stands behind, and nobody else has it.
#[inline(always)]
unsafe fn hand_out<const SIZED: bool>(
    block: NonNull<u8>,
    size: usize,
    class: SizeClass,
    zeroed: Zeroed,
    mode: Mode,
) {
    let address = block.addr().get();
    if mode.has(Hardening::CHECKS) && !tags::mark_live(address, class) {
        die(Misuse::Overlap, Call::Alloc, address, Some(class));
    }
    // Before the look at the front: a page never used costs one fault when it is written first, and two
    // when it is read first.
    let end = if SIZED { size } else { room(class, mode) };
    // SAFETY: 1. the class serves `end` and the canary, and nobody else has the block.
    unsafe { canary::write(block, end, mode) };
    // SAFETY: 1. the class serves `size`; blocks have at least 16 bytes.
    if mode.has(Hardening::ZERO) && !unsafe { zero_prefix::is_zero(block, size) } {
        die(Misuse::UseAfterFree, Call::Alloc, address, Some(class));
    }
    if zeroed == Zeroed::Yes {
        // SAFETY: 1. the class serves `size`, and nobody else has the block.
        unsafe { block.write_bytes(0, size) };
    }
}

/// Bytes of a block of `class` in front of what is kept behind it.
#[inline(always)]
pub(super) fn room(class: SizeClass, mode: Mode) -> usize {
    class.size() - mode.canary_bytes()
}

/// Checks what comes back from its user, and prepares it for the next.
///
/// # Safety
/// 1. The block is live and one of `class`, which served `size`, as far as that is not checked here.
/// 2. Nobody uses it any more.
#[inline(always)]
unsafe fn take_back(block: NonNull<u8>, size: usize, class: SizeClass, mode: Mode) {
    let address = block.addr().get();
    if mode.has(Hardening::CHECKS) && !tags::mark_free(address, class) {
        die(
            heap::why_not(address, class),
            Call::Free,
            address,
            Some(class),
        );
    }
    // SAFETY: 1. `mark_free` found a live block of the class, if there are tags; else it is our own
    // first item.
    if !unsafe { canary::check_and_erase(block, size, mode) } {
        // SAFETY: 1. the same room.
        unsafe { die_broken(block, size, Some(class), Call::Free, mode) };
    }
    if mode.has(Hardening::ZERO) {
        // SAFETY: 1. a block of the class has its size, at least 16; nobody uses it, our own second
        // item.
        unsafe { zero_prefix::clear(block, class.size()) };
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
        // SAFETY: 1. and 2. our own: the call is passed on as it is.
        unsafe { push(block, size, align, Mode::ALL, config) }
    } else {
        // SAFETY: 1. and 2. our own: the call is passed on as it is.
        mode.is_decided()
            && !is_sampled(block, mode)
            && unsafe { push(block, size, align, mode, config) }
    };
    if !done {
        // SAFETY: 1. and 2. our own: nothing was done to the block yet.
        unsafe { free_slow(block, size, align, config) };
    }
}

/// Takes a block back without the gate; `false` if that cannot be.
///
/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. On success nobody uses it any more.
#[inline(always)]
unsafe fn push(block: NonNull<u8>, size: usize, align: usize, mode: Mode, config: &Config) -> bool {
    let cache = cache_at_hand();
    let Some(safeguards) = cache.safeguards.get() else {
        return false;
    };
    let Some(class) = table_class(size.wrapping_add(mode.canary_bytes()), align) else {
        return false;
    };
    // SAFETY: 1. the class is that of its layout and what is kept behind it. 2. our own second
    // item.
    unsafe { take_back(block, size, class, mode) };
    if let Some(waited) = NonNull::new(safeguards.admit(block.as_ptr(), class, mode)) {
        // SAFETY: 1. a block of `class` that was freed, now or before.
        unsafe { push_or_flush(cache, waited, class, config) };
    }
    true
}

/// Puts what comes out of quarantine into its magazine.
///
/// # Safety
/// 1. The block is one of `class`, and nobody uses it any more.
#[inline(always)]
unsafe fn push_or_flush(
    cache: &ThreadCache,
    block: NonNull<u8>,
    class: SizeClass,
    config: &Config,
) {
    if !cache.magazine(class).push(block) {
        // SAFETY: 1. a block of the class that nobody uses, our own first item.
        unsafe { make_room(block, class, config) };
        reclaim::notice(config);
    }
}

/// Sends a freed block into quarantine; the one that comes out for it.
fn quarantine(
    cache: &ThreadCache,
    block: NonNull<u8>,
    class: SizeClass,
    mode: Mode,
) -> Option<NonNull<u8>> {
    match cache.safeguards.get() {
        Some(safeguards) => NonNull::new(safeguards.admit(block.as_ptr(), class, mode)),
        None => Some(block),
    }
}

/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. Nobody uses it any more.
#[inline(never)]
unsafe fn free_slow(block: NonNull<u8>, size: usize, align: usize, config: &Config) {
    // Without memory for its first call a process can have nothing to free.
    let Some(cache) = prepared_for(size, align, config) else {
        return;
    };
    let mode = config::mode();
    if !mode.is_hardened() {
        // SAFETY: 1. and 2. our own: the process turned out plain.
        return unsafe { plain::free(block, size, align, config) };
    }
    if is_sampled(block, mode) {
        return free_sample(block, size);
    }
    match request(size, align, mode) {
        Request::Block(class) => {
            // SAFETY: 1. the class is that of its layout and what is kept behind it. 2. our own
            // second item.
            unsafe { take_back(block, size, class, mode) };
            if let Some(waited) = quarantine(cache, block, class, mode) {
                // SAFETY: 1. a block of `class` that was freed, now or before.
                unsafe { push_or_flush(cache, waited, class, config) };
            }
        }
        // SAFETY: 1. `request` says that this layout has a mapping. 2. our own second item.
        _ => unsafe { free_large(block, size, mode, config) },
    }
}

/// # Safety
/// 1. The block is live and has `size` bytes in front of what is kept behind it.
/// 2. Nobody uses it any more.
pub(super) unsafe fn free_large(block: NonNull<u8>, size: usize, mode: Mode, config: &Config) {
    // SAFETY: 1. `size` bytes in front of what is kept behind them: our own first item.
    unsafe { expect(block, size, Request::Large, Call::Free, mode) };
    // SAFETY: 1. `expect` found room and a whole canary, and nobody uses the block.
    unsafe { canary::erase(block, size, mode) };
    // SAFETY: 1. nobody uses the block any more, our own second item.
    unsafe { large::free(block, size) };
    reclaim::notice(config);
}

/// Whether a block is a sampled one.
#[inline(always)]
pub(super) fn is_sampled(block: NonNull<u8>, mode: Mode) -> bool {
    mode.samples() && sample::owns(block)
}

/// Frees a sampled block.
pub(super) fn free_sample(block: NonNull<u8>, size: usize) {
    match cache_at_hand().safeguards.get() {
        Some(safeguards) => safeguards.while_recording(|| sample::free(block, size)),
        None => sample::free(block, size),
    }
}
