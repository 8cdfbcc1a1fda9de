//! What the hardened way makes sure of before it takes a block back, resizes it or says how long it is, and the
//! end of the process if it is not so.

use core::ptr::NonNull;

use super::canary;
use crate::arena::tags;
use crate::config::Mode;
use crate::error::{Call, Misuse};
use crate::hardening::Hardening;
use crate::heap;
use crate::large;
use crate::size_class::{Request, SizeClass};

/// Makes sure that a block is one that `request` was served by, as long as said.
///
/// # Safety
/// 1. It is that, as far as it is not checked here.
pub(in crate::cache) unsafe fn expect(
    block: NonNull<u8>,
    size: usize,
    request: Request,
    call: Call,
    mode: Mode,
) {
    let class = match request {
        Request::Block(class) => Some(class),
        _ => None,
    };
    match class {
        Some(class) => expect_live(block, class, call, mode),
        None => large::expect(block, size + mode.canary_bytes(), call),
    }
    // SAFETY: 1. a live block of the class, or as long a mapping, was found above, if there are
    // tags; else it is our own first item.
    if !unsafe { canary::is_whole(block, size, mode) } {
        // SAFETY: 1. the room was found, or promised, as for the look at the canary.
        unsafe { die_broken(block, size, class, call, mode) };
    }
}

/// Makes sure that a block is a live one of `class`, where there are tags to tell.
pub(in crate::cache) fn expect_live(block: NonNull<u8>, class: SizeClass, call: Call, mode: Mode) {
    let address = block.addr().get();
    if mode.has(Hardening::CHECKS) && !tags::is_live(address, class) {
        die(heap::why_not(address, class), call, address, Some(class));
    }
}

/// Ends the process for a canary that is not whole.
///
/// # Safety
/// 1. The block has room for `size` and what is kept behind it.
#[cold]
pub(in crate::cache) unsafe fn die_broken(
    block: NonNull<u8>,
    size: usize,
    class: Option<SizeClass>,
    call: Call,
    mode: Mode,
) -> ! {
    let address = block.addr().get();
    let misuse = match class {
        // Nothing but the canary told so far whether a block of the class is there, and is live.
        Some(class) if !mode.has(Hardening::CHECKS) => match heap::why_not(address, class) {
            // SAFETY: 1. the block has room for the canary, our own first item.
            Misuse::Freed if unsafe { canary::is_erased(block, size) } => Misuse::Erased,
            Misuse::Freed => Misuse::Overflow,
            other => other,
        },
        _ => Misuse::Overflow,
    };
    die(misuse, call, address, class)
}

#[cold]
pub(in crate::cache) fn die(
    misuse: Misuse,
    call: Call,
    address: usize,
    class: Option<SizeClass>,
) -> ! {
    match class {
        Some(class) => heap::die(misuse, call, address, class),
        None => large::die(misuse, call, address),
    }
}
