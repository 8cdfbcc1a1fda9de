//! What is at an address, and the end of the process if it is not what it should be.

use core::ptr::NonNull;

use super::mappings::MAPPINGS;
use super::{Mapping, site};
use crate::arena::{self, UnitKind};
use crate::config;
use crate::error::{Call, Misuse};
use crate::os;
use crate::size_class::{BLOCK_MAX, CLASS_MAX};
use crate::units::UnitCount;

/// Why what is at `block` is no live span or mapping.
#[cold]
pub(super) fn why_not(block: NonNull<u8>) -> Misuse {
    let (freed, is_inside) = {
        let mappings = MAPPINGS.lock();
        let holds = |mapping: &&'static Mapping| mapping.holds(block);
        let freed = mappings.freed().find(holds);
        (freed, mappings.live().any(|mapping| mapping.holds(block)))
    };
    match freed {
        // What was cut off a mapping begins where no block did; what was joined, where one may have begun.
        Some(mapping) if mapping.base() == block && mapping.is_room.get() == 0 => Misuse::Freed,
        Some(_) => Misuse::Vacant,
        None if is_inside => Misuse::Interior,
        None if site::is_stocked(block) => Misuse::Freed,
        None => arena::why_none(block.addr().get(), UnitKind::Span),
    }
}

impl Mapping {
    /// Whether `block` lies in it.
    fn holds(&self, block: NonNull<u8>) -> bool {
        // OVERFLOW: wraps to a large number below the base, which is the answer.
        block.addr().get().wrapping_sub(self.base().addr().get()) < self.length.get()
    }
}

#[cold]
pub(crate) fn die(misuse: Misuse, call: Call, address: usize) -> ! {
    let most = if config::mode().is_hardened() {
        CLASS_MAX
    } else {
        BLOCK_MAX
    };
    let (fault, least, thread) = (misuse.by(call), most >> 10, os::thread_id());
    os::die(format_args!(
        "{fault}: {address:#x}, more than {least} KiB, thread {thread}"
    ))
}

/// Makes sure that `block` is a live mapping, or a span in its place, of at least `length` bytes.
pub(crate) fn expect(block: NonNull<u8>, length: usize, call: Call) {
    if self::length(block, call) < length {
        die(Misuse::WrongClass, call, block.addr().get());
    }
}

/// Makes sure that `block` is a live mapping, or a span, that was handed out for `length` bytes, more than a block's, in
/// a process that is not hardened.
pub(crate) fn expect_for(block: NonNull<u8>, length: usize, call: Call) {
    let fits = match site::units_at(block) {
        Some(units) => Some(UnitCount::holding(length) == Some(units)),
        None => live(block, |mapping| mapping.serves(length)),
    };
    match fits {
        Some(true) => {}
        Some(false) => die(Misuse::WrongClass, call, block.addr().get()),
        None => die(why_not(block), call, block.addr().get()),
    }
}

/// Bytes of the live mapping or span at `block`; if there is none, the process ends.
pub(crate) fn length(block: NonNull<u8>, call: Call) -> usize {
    live(block, |mapping| mapping.length.get())
        .or_else(|| site::length_at(block))
        .unwrap_or_else(|| die(why_not(block), call, block.addr().get()))
}

/// What `look` says of the live mapping at `block`, while no other thread can free it.
fn live<T>(block: NonNull<u8>, look: impl Fn(&Mapping) -> T) -> Option<T> {
    let mappings = MAPPINGS.lock();
    mappings.live_at(block).map(look)
}
