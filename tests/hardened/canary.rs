//! Which canaries a program can read that are not behind a block of its own.

use core::alloc::Layout;

use flagstone::{Flagstone, failpoints, raw};

use super::common::block::Block;
use super::common::child::alone;
use super::common::process::is_readable;
use super::{ALLOC, HARDENED, block};

type Canary = [u8; 8];

/// Two sizes served by the same, the second with room where the first one's canary stood.
const PAIRS: [(usize, usize); 6] = [
    (290, 310),
    (1_000, 1_016),
    (5 << 10, 5_600),
    (100 << 10, 110_000),
    (300 << 10, 310_000),
    (2 << 20, (2 << 20) + 4_000),
];

/// The canary behind a live block of `size` bytes.
fn canary(block: *mut u8, size: usize) -> Canary {
    let place = block.wrapping_add(size).cast::<Canary>();
    // SAFETY: the process has canaries: these bytes belong to the block, though not to its user.
    unsafe { place.read_volatile() }
}

/// Where `canary` stands in the first `length` bytes of a block.
fn find(block: *mut u8, length: usize, canary: Canary) -> Option<usize> {
    // SAFETY: as long as the caller says. Whatever the bytes hold, the kernel or the allocator wrote them.
    let bytes = unsafe { core::slice::from_raw_parts(block, length) };
    bytes.windows(8).position(|bytes| *bytes == canary)
}

/// Allocates `size` bytes until they come at `address`.
fn allocate_at(address: usize, size: usize) -> Block {
    let mut others = Vec::with_capacity(100);
    loop {
        let layout = Layout::from_size_align(size, 8).expect("a layout");
        let block = Block::alloc(&ALLOC, layout).expect("memory");
        if block.addr() == address {
            others
                .into_iter()
                .for_each(|other: Block| other.free(&ALLOC));
            return block;
        }
        assert!(others.len() < 100, "{size} bytes never came back");
        others.push(block);
    }
}

#[test]
fn none_is_left_for_the_next_owner() {
    let name = "canary::none_is_left_for_the_next_owner";
    alone(name, &[(HARDENED, "canaries")], || {
        for (size, next) in PAIRS {
            let first = block(size);
            let (address, old) = (first.addr(), canary(first.as_ptr(), size));
            assert_ne!(old[0], 0, "{size}");
            first.free(&ALLOC);
            let second = allocate_at(address, next);
            assert_eq!(find(second.as_ptr(), next, old), None, "{size}");
            second.free(&ALLOC);
        }
    });
}

/// The block stays where it is, its end and so its canary do not.
#[test]
fn none_is_left_inside_a_block_that_grew_or_shrank() {
    let name = "canary::none_is_left_inside_a_block_that_grew_or_shrank";
    alone(name, &[(HARDENED, "canaries")], || {
        for (less, more) in PAIRS {
            for (before, after) in [(less, more), (more, less)] {
                let first = block(before);
                let (address, old) = (first.addr(), canary(first.as_ptr(), before));
                let second = first.realloc(&ALLOC, after).expect("memory");
                assert_eq!(second.addr(), address, "{before} to {after}");
                let room = more + size_of::<Canary>();
                assert_eq!(
                    find(second.as_ptr(), room, old),
                    None,
                    "{before} to {after}"
                );
                second.free(&ALLOC);
            }
        }
    });
}

/// What a mapping leaves behind when it moves, or is cut, is kept for the next.
#[test]
fn none_is_left_where_a_mapping_was() {
    const KEPT: usize = 6_000_000;
    let name = "canary::none_is_left_where_a_mapping_was";
    alone(name, &[(HARDENED, "canaries")], || {
        for (before, after, is_copied) in [
            (400_000, 4_000_000, true),
            (400_000, 40_000_000, false),
            (4_000_000, 400_000, false),
        ] {
            Flagstone::purge();
            let first = block(before);
            let (address, old) = (first.addr(), canary(first.as_ptr(), before));
            let place = first.as_ptr().wrapping_add(before);
            let kept = block(KEPT);
            let kept_address = kept.addr();
            kept.free(&ALLOC);
            let second = first.realloc(&ALLOC, after).expect("memory");
            let (is_there, is_in_kept) = (second.addr() == address, second.addr() == kept_address);
            assert_eq!(
                (is_there, is_in_kept),
                (after < before, is_copied),
                "to {after}"
            );
            assert_eq!(find(second.as_ptr(), after, old), None, "to {after}");
            // Unless the kernel has moved it.
            assert_eq!(is_readable(place.addr()), after < KEPT, "to {after}");
            if after < KEPT {
                assert_ne!(canary(place, 0), old, "to {after}");
            }
            second.free(&ALLOC);
        }
    });
}

/// A mapping that the kernel does not lengthen keeps its canary until it was copied.
#[test]
fn one_is_put_back_where_the_mapping_stays() {
    let name = "canary::one_is_put_back_where_the_mapping_stays";
    alone(name, &[(HARDENED, "canaries")], || {
        let first = block(400_000);
        failpoints::refuse_after(0, false);
        let second = first.realloc(&ALLOC, 40_000_000).expect("memory");
        assert_eq!(failpoints::refuse_none(), 1);
        second.free(&ALLOC);
    });
}

/// Blocks that are freed by their address have theirs at the end of all their room.
#[test]
fn none_is_left_behind_blocks_freed_by_address() {
    let name = "canary::none_is_left_behind_blocks_freed_by_address";
    alone(name, &[(HARDENED, "canaries")], || {
        for (size, next) in PAIRS {
            for resized in [None, Some(3 * next)] {
                let first = raw::alloc(size, raw::ALIGN);
                // SAFETY: live.
                let room = unsafe { raw::usable_size(first) };
                let old = canary(first, room);
                assert_ne!(old[0], 0, "{size}");
                let rest = match resized {
                    // SAFETY: live; but for its canary it is not used again, here and below.
                    Some(new) => unsafe { raw::realloc(first, new) },
                    None => first,
                };
                if resized.is_none() {
                    // SAFETY: as above.
                    unsafe { raw::free(first) };
                }
                let place = first.wrapping_add(room);
                let is_gone = !is_readable(place.addr()) || canary(place, 0) != old;
                assert!(is_gone, "{size} to {resized:?}");
                if resized.is_some() {
                    // SAFETY: as above.
                    unsafe { raw::free(rest) };
                }
            }
        }
    });
}
