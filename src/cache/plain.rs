//! The way of calls in a process without safeguards and sampling: by its size, a request is served by a magazine, a
//! span or a mapping.

use core::ptr::{self, NonNull};

use super::flush::make_room;
use super::refill::refill;
use super::tick;
use crate::arena::{self, Age, Zeroed};
use crate::config::Config;
use crate::large::{self, Freed};
use crate::reclaim::{self, or_reclaim};
use crate::size_class::{Request, SizeClass, classify, span_units};
use crate::size_map::MagazineOffset;
use crate::thread_cache::{alloc_magazine, briefly, free_magazine, is_diverted, is_gated};
use crate::threads;
use crate::units::{ADDRESS_BITS, UNIT, UnitCount};

/// Not inlined, here and in [`free`]: who has safeguards would save the registers that these use, 12 instructions of each
/// call.
#[inline(never)]
pub(super) fn alloc(size: usize, align: usize, config: &Config) -> *mut u8 {
    if let Some(block) = take_span(size, align) {
        return block.as_ptr();
    }
    match classify(size, align) {
        Request::Block(class) => {
            let block = if is_gated(class) {
                briefly(|cache| cache.magazine(class).pop()).unwrap_or(ptr::null_mut())
            } else {
                alloc_magazine(MagazineOffset::of(class)).pop()
            };
            if block.is_null() {
                refill(class, config)
            } else {
                block
            }
        }
        request => block_or_null(alloc_large(request, size, align, Zeroed::No, config)),
    }
}

pub(super) fn alloc_zeroed(size: usize, align: usize, config: &Config) -> *mut u8 {
    let request = classify(size, align);
    let at_hand = match request {
        Request::Block(_) => NonNull::new(alloc(size, align, config)),
        _ => take_span(size, align),
    };
    let found = match (at_hand, request) {
        (Some(block), _) => Some((block, Zeroed::No)),
        (None, Request::Block(_)) => None,
        (None, _) => alloc_large(request, size, align, Zeroed::Yes, config),
    };
    if let Some((block, Zeroed::No)) = found {
        // SAFETY: 1. a fresh block of at least `size` bytes.
        unsafe { block.write_bytes(0, size) };
    }
    block_or_null(found)
}

/// A span of the thread's own stock, if one serves the request.
#[inline(always)]
fn take_span(size: usize, align: usize) -> Option<NonNull<u8>> {
    let units = span_units(size, align)?;
    briefly(|cache| cache.stock()?.take(units, size, align)).flatten()
}

/// Puts the span at `block` in the thread's own stock; `false` if the arena is to take it.
#[inline(always)]
pub(super) fn put_span(block: NonNull<u8>, units: Option<UnitCount>, config: &Config) -> bool {
    match try_to_put_span(block, units) {
        Some(Freed::Yes) => true,
        Some(Freed::Full) => put_span_slow(block, units, config),
        Some(Freed::No) | None => false,
    }
}

#[inline(always)]
fn try_to_put_span(block: NonNull<u8>, units: Option<UnitCount>) -> Option<Freed> {
    briefly(|cache| match cache.stock() {
        Some(stock) => stock.put(block, units),
        None => Freed::Full,
    })
}

/// [`put_span`] where the stock is full, or there is none yet.
#[cold]
#[inline(never)]
fn put_span_slow(block: NonNull<u8>, units: Option<UnitCount>, config: &Config) -> bool {
    // Before any lock: in a forked child a thread that is gone may hold it.
    if !threads::prepare(config) {
        return false;
    }
    let Some(found) = large::units_at(block) else {
        return false;
    };
    let passed = threads::lock_own(config).map_or(Ok(()), |gate| tick::pass(gate.cache()));
    passed.unwrap_or_else(|wrong| wrong.report());
    briefly(|cache| {
        if let Some(stock) = cache.stock_or_new() {
            stock.make_room_for(found);
        }
    });
    let is_put = try_to_put_span(block, units) == Some(Freed::Yes);
    arena::decay(Age::Due);
    reclaim::notice(config);
    is_put
}

/// Brings a thread back that was held off, whose stock was not at hand for that; which counts as a slow path, by which
/// others see that it is alive.
pub(super) fn come_back(config: &Config) {
    if is_diverted()
        && let Some(gate) = threads::lock_own(config)
    {
        tick::show_life(gate.cache());
    }
}

fn block_or_null(found: Option<(NonNull<u8>, Zeroed)>) -> *mut u8 {
    found.map_or(ptr::null_mut(), |(block, _)| block.as_ptr())
}

fn alloc_large(
    request: Request,
    size: usize,
    align: usize,
    wanted: Zeroed,
    config: &Config,
) -> Option<(NonNull<u8>, Zeroed)> {
    // No memory given back makes room for what no process can address.
    if size.max(align) >> ADDRESS_BITS != 0 || !threads::prepare(config) {
        return None;
    }
    if matches!(request, Request::Span(_)) {
        come_back(config);
    }
    let found = or_reclaim(|| match request {
        Request::Span(units) if align > UNIT => large::alloc_aligned(units, size, align, wanted),
        Request::Span(units) => large::alloc_span(units, size, align),
        _ => large::alloc(size, align, wanted),
    });
    found.unwrap_or_else(|wrong| wrong.report())
}

/// Adds a block of `class` to its magazine; `false` if that is full, or not at hand.
#[inline(always)]
pub(super) fn push(block: NonNull<u8>, class: SizeClass) -> bool {
    if is_gated(class) {
        briefly(|cache| cache.push_gated(class, block)).unwrap_or(false)
    } else {
        free_magazine(MagazineOffset::of(class)).push(block)
    }
}

/// # Safety
/// 1. The block is live and was allocated with this size and alignment.
/// 2. Nobody uses it any more.
#[inline(never)]
pub(super) unsafe fn free(block: NonNull<u8>, size: usize, align: usize, config: &Config) {
    if let Some(units) = span_units(size, align)
        && put_span(block, Some(units), config)
    {
        return;
    }
    match classify(size, align) {
        Request::Block(class) => {
            if push(block, class) {
                return;
            }
            // SAFETY: 1. the class is that of its layout; nobody uses it any more.
            unsafe { make_room(block, class, config) };
        }
        // Without memory for its first call a process can have nothing to free.
        _ if !threads::prepare(config) => {}
        Request::Span(units) => {
            come_back(config);
            // SAFETY: 1. nobody uses it any more, our own second item.
            unsafe { large::free_span(block, units) }
        }
        // SAFETY: 1. nobody uses it any more, our own second item.
        Request::Large => unsafe { large::free(block, size) },
    }
    // What stays with the thread is no news to others.
    reclaim::notice(config);
}
