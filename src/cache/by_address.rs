//! Calls that name a block by its address alone, as those of C do: what serves it is looked up.

use core::ptr::{self, NonNull};

use super::flush::make_room;
use super::hardened::{self, expect, expect_live, is_sampled, room};
use super::plain;
use super::resize::{long, move_at_hand, realloc_by_copy, resize_in_place};
use crate::arena;
use crate::config::{self, Config, Mode};
use crate::error::Call;
use crate::heap;
use crate::large;
use crate::sample;
use crate::size_class::{Request, SizeClass, classify};
use crate::size_map::{MagazineOffset, table_offset};
use crate::threads;
use crate::wakeup;

/// Alignment of a block if none is asked for: fit for every type of C.
pub(crate) const ALIGN: usize = 16;

/// Whether this process is hardened, which its first call decides.
fn is_hardened(config: &Config) -> bool {
    !config::mode().is_plain() && threads::prepare(config) && config::mode().is_hardened()
}

/// # Safety
/// 1. and 2. as for [`super::free_by_address`].
#[inline(never)]
pub(super) unsafe extern "C" fn free_slow(block: *mut u8, config: &Config) {
    let Some(block) = NonNull::new(block) else {
        return;
    };
    if is_hardened(config) {
        // SAFETY: 1. and 2. our own: the block is passed on, and is not null.
        return unsafe { free_hardened(block, config) };
    }
    match heap::class_at(block.addr().get()) {
        Some(class) => {
            if plain::push(block, class) {
                // It stays with the thread, which is no news to others.
                return;
            }
            // SAFETY: 1. the class of the slab that it lies in; nobody uses it any more.
            unsafe { make_room(block, class, config) };
        }
        None if plain::put_span(block, None, config) => return,
        // Without memory for its first call a process can have nothing to free.
        None if !threads::prepare(config) => {}
        None => {
            plain::come_back(config);
            // SAFETY: 1. nobody uses it any more, our own second item.
            unsafe { large::free(block, 0) }
        }
    }
    wakeup::notice();
}

/// # Safety
/// 1. and 2. as for [`super::free_by_address`].
unsafe fn free_hardened(block: NonNull<u8>, config: &Config) {
    let mode = config::mode();
    if is_sampled(block, mode) {
        return hardened::free_sample(block, sample::length(block));
    }
    match heap::class_at(block.addr().get()) {
        // SAFETY: 1. it was allocated with the whole room of its class, whatever the alignment was.
        // 2. our own.
        Some(class) => unsafe { hardened::free(block, room(class, mode), 1, config) },
        None => {
            let size = length(block, None, Call::Free, mode);
            // SAFETY: 1. it has as many bytes as were found in front of its canary. 2. our own.
            unsafe { hardened::free_large(block, size, mode, config) };
        }
    }
}

/// Bytes that the user of a block may use, which is one of `class`, or has a mapping or span of its own.
fn length(block: NonNull<u8>, class: Option<SizeClass>, call: Call, mode: Mode) -> usize {
    match class {
        Some(class) if mode.is_hardened() => room(class, mode),
        Some(class) => class.size(),
        None if mode.is_hardened() => large::length(block, call) - mode.canary_bytes(),
        None => large::length(block, call),
    }
}

/// Bytes that the user of a block may use: at least what was asked for.
///
/// # Safety
/// 1. The block is live and came from an allocation that did not count on its layout.
pub(crate) unsafe fn usable_size(block: NonNull<u8>, config: &Config) -> usize {
    if !threads::prepare(config) {
        return 0;
    }
    let mode = config::mode();
    if is_sampled(block, mode) {
        let size = sample::length(block);
        sample::expect(block, size, Call::UsableSize);
        return size;
    }
    let class = heap::class_at(block.addr().get());
    if let Some(class) = class {
        expect_live(block, class, Call::UsableSize, mode);
    }
    length(block, class, Call::UsableSize, mode)
}

/// Changes the size of a block, in place or by moving its contents, to one aligned to 16 bytes; null leaves
/// it as it was.
///
/// # Safety
/// 1. The block is live and came from an allocation that did not count on its layout.
/// 2. On success nobody uses the old block any more.
#[inline(never)]
pub(crate) unsafe extern "C" fn realloc_by_address(
    block: NonNull<u8>,
    new: usize,
    config: &Config,
) -> *mut u8 {
    if is_hardened(config) {
        // SAFETY: 1. and 2. our own: the call is passed on as it is.
        return unsafe { realloc_hardened(block, new, config) };
    }
    let address = block.addr().get();
    if let Some(here) =
        arena::magazine_offset(address).filter(|found| *found != MagazineOffset::NONE)
        && let Some(there) = table_offset(new, ALIGN)
    {
        if here == there {
            return block.as_ptr();
        }
        let length = here.class().size().min(new);
        // SAFETY: 1. it was live until it was moved, and freed by its address by our own first
        // item. 2. it was moved.
        let free_slow = |block: NonNull<u8>| unsafe { free_slow(block.as_ptr(), config) };
        // SAFETY: 1. the offsets are those of the block's class and of the one that serves `new`.
        // 2. who calls us does not use the block after a success.
        let moved = unsafe { move_at_hand(block, here, there, length, free_slow) };
        if let Some(moved) = moved {
            return moved.as_ptr();
        }
    }
    if !threads::prepare(config) {
        return ptr::null_mut();
    }
    let class = heap::class_at(address);
    let after = classify(new, ALIGN);
    if let (None, Some(length)) = (class, long(after, new)) {
        // SAFETY: 1. nobody uses the block if it is moved: the second item of our own list.
        let resized = unsafe { resize_in_place(block, usize::MAX, ALIGN, new, length, config) };
        if let Some(resized) = resized {
            return resized.as_ptr();
        }
    }
    let old = length(block, class, Call::Realloc, config::mode());
    if class.is_some_and(|class| after == Request::Block(class)) {
        return block.as_ptr();
    }
    // SAFETY: 1. `old` is the room that its user has. 2. our own second item.
    let moved = unsafe { realloc_by_copy::<false>(block, old, ALIGN, new, config) };
    if moved.is_null() && new <= old {
        // Without memory for a shorter one: nobody relies on its class.
        return block.as_ptr();
    }
    moved
}

/// # Safety
/// 1. and 2. as for [`realloc_by_address`].
unsafe fn realloc_hardened(block: NonNull<u8>, new: usize, config: &Config) -> *mut u8 {
    let mode = config::mode();
    if is_sampled(block, mode) {
        let old = sample::length(block);
        sample::expect(block, old, Call::Realloc);
        // SAFETY: 1. `old` is the room that its user has. 2. our own second item.
        return unsafe { realloc_by_copy::<false>(block, old, ALIGN, new, config) };
    }
    let class = heap::class_at(block.addr().get());
    let old = length(block, class, Call::Realloc, mode);
    let before = class.map_or(Request::Large, Request::Block);
    // SAFETY: 1. `before` and `old` are what the block's address leads to.
    unsafe { expect(block, old, before, Call::Realloc, mode) };
    if hardened::request(new, ALIGN, mode) == before {
        if class.is_some() {
            return block.as_ptr();
        }
        // SAFETY: 1. as `expect` found it, canary and all. 2. our own second item.
        if let Some(moved) = unsafe { hardened::resize(block, before, ALIGN, old, new, mode) } {
            // SAFETY: 1. as long as it was just found to be.
            unsafe {
                hardened::write_canary(moved, length(moved, None, Call::Realloc, mode), mode)
            };
            return moved.as_ptr();
        }
    }
    // SAFETY: 1. `old` is the room that its user has. 2. our own second item.
    unsafe { realloc_by_copy::<false>(block, old, ALIGN, new, config) }
}
