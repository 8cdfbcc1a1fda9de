//! The workload rows over rusty_alloc.
//!
//! The crate is an allocator core without a `GlobalAlloc`. This one takes the form that its authors
//! use in their own wrapper: the inline entry points, no null test on free, and the bodies small
//! enough for the allocator shim to inline into its callers.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::assert_unchecked;
use std::process::ExitCode;

use rusty_alloc::alloc;

/// Every block is aligned to a word, every block of two words or more to two words.
const WORD: usize = 8;
const TWO_WORDS: usize = 16;

struct RustyAlloc;

// SAFETY: each method forwards to rusty_alloc, whose blocks are valid until freed, of at least the
// size asked for, and aligned as the constants above say or as `*_aligned` was told.
unsafe impl GlobalAlloc for RustyAlloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= WORD {
            alloc::malloc(layout.size())
        } else if layout.align() <= TWO_WORDS {
            alloc_two_words(layout.size())
        } else {
            // SAFETY: a `Layout`'s alignment is a power of two.
            unsafe { alloc::malloc_aligned_pow2(layout.size(), layout.align()) }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: 1. the caller passes a block of ours, so it is not null.
        unsafe { assert_unchecked(!block.is_null()) };
        // SAFETY: 1. a live block of ours, by the contract of `dealloc`.
        unsafe { alloc::free_inline_flags_first(block) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= WORD {
            alloc::zalloc(layout.size())
        } else if layout.align() <= TWO_WORDS {
            alloc::zalloc(layout.size().max(TWO_WORDS))
        } else {
            alloc::zalloc_aligned(layout.size(), layout.align())
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: 1. the caller passes a block of ours, so it is not null.
        unsafe { assert_unchecked(!block.is_null()) };
        if layout.align() <= WORD {
            // SAFETY: 1. a live block of ours, by the contract of `realloc`.
            unsafe { alloc::realloc(block, new_size) }
        } else if layout.align() <= TWO_WORDS {
            // SAFETY: as above.
            unsafe { alloc::realloc(block, new_size.max(TWO_WORDS)) }
        } else {
            // SAFETY: as above.
            unsafe { alloc::realloc_aligned(block, new_size, layout.align()) }
        }
    }
}

/// Out of line: a second copy of the fast path would keep the shim from inlining.
#[inline(never)]
fn alloc_two_words(size: usize) -> *mut u8 {
    alloc::malloc(size.max(TWO_WORDS))
}

#[cfg(feature = "in_binary")]
#[path = "../../workload/src/lib.rs"]
#[expect(unreachable_pub, reason = "public where it is a library")]
mod workload;

#[global_allocator]
static GLOBAL: RustyAlloc = RustyAlloc;

fn main() -> ExitCode {
    workload::main(|| alloc::collect(true), None)
}
