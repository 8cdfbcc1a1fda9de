//! What is at an address, and the end of the process if it is not what it should be.

use core::ptr::NonNull;

use super::{LARGE, Mapping, bucket, span};
use crate::arena::{self, Kind};
use crate::config;
use crate::error::Misuse;
use crate::os;
use crate::size_class::{BLOCK_MAX, CLASS_MAX};
use crate::sync::Link;
use crate::units::UnitCount;

/// Why what is at `block` is no live span or mapping.
#[cold]
pub(super) fn why_not(block: NonNull<u8>) -> Misuse {
    let (is_freed, is_inside) = {
        let _held = LARGE.lock.lock();
        // What was joined does not begin a mapping any more.
        let mut freed = LARGE.stuck.iter().chain([&LARGE.cached]);
        (
            freed.any(|list| holds(list, block)),
            LARGE.table.iter().any(|list| holds(list, block)),
        )
    };
    if is_freed {
        Misuse::DoubleFree
    } else if is_inside {
        Misuse::Interior
    } else {
        arena::why_none(block.addr().get(), Kind::Span)
    }
}

/// Whether `block` lies in one of the mappings of a list. Locked.
fn holds(list: &Link<Mapping>, block: NonNull<u8>) -> bool {
    let mut link = list;
    while let Some(mapping) = link.get() {
        // OVERFLOW: wraps to a large number below the base, which is the answer.
        let offset = block.addr().get().wrapping_sub(mapping.base().addr().get());
        if offset < mapping.length.get() {
            return true;
        }
        link = &mapping.next;
    }
    false
}

#[cold]
pub(crate) fn die(misuse: Misuse, address: usize) -> ! {
    let most = if config::mode().is_careful() {
        CLASS_MAX
    } else {
        BLOCK_MAX
    };
    let (least, thread) = (most >> 10, os::thread_id());
    os::die(format_args!(
        "{misuse}: {address:#x}, more than {least} KiB, thread {thread}"
    ))
}

/// Makes sure that `block` is a live mapping, or a span in its place, of at least `length` bytes.
pub(crate) fn expect(block: NonNull<u8>, length: usize) {
    if self::length(block) < length {
        die(Misuse::WrongClass, block.addr().get());
    }
}

/// Makes sure that `block` is a live mapping, or a span, that was handed out for `length` bytes, more than a block's, in
/// a process whose calls take no care.
pub(crate) fn expect_for(block: NonNull<u8>, length: usize) {
    let fits = match span::units_at(block) {
        Some(units) => Some(UnitCount::holding(length) == Some(units)),
        None => live(block, |mapping| mapping.serves(length)),
    };
    match fits {
        Some(true) => {}
        Some(false) => die(Misuse::WrongClass, block.addr().get()),
        None => die(why_not(block), block.addr().get()),
    }
}

/// Bytes of the live mapping or span at `block`; if there is none, the process ends.
pub(crate) fn length(block: NonNull<u8>) -> usize {
    live(block, |mapping| mapping.length.get())
        .or_else(|| span::length_at(block))
        .unwrap_or_else(|| die(why_not(block), block.addr().get()))
}

/// What `look` says of the live mapping at `block`. Locked.
fn live<T>(block: NonNull<u8>, look: impl Fn(&Mapping) -> T) -> Option<T> {
    let mut link = bucket(block.addr().get());
    let _held = LARGE.lock.lock();
    while let Some(mapping) = link.get() {
        if mapping.base() == block {
            return Some(look(mapping));
        }
        link = &mapping.next;
    }
    None
}
