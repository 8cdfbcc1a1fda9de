//! What the benchmarks share: both allocators behind one interface, called without
//! `#[global_allocator]` so that both run in one process, side by side, on the same workload code.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::time::Duration;

use criterion::Criterion;
use flagstone::Flagstone;

/// The allocator under test. `std::alloc::System` stands beside it.
pub(crate) static FLAGSTONE: Flagstone = Flagstone::new();

/// Runs `$case(group, name, allocator, rest...)` for Flagstone, then for the system's allocator.
macro_rules! side_by_side {
    ($case:expr, $group:expr $(, $rest:expr)* $(,)?) => {{
        $case($group, "flagstone", &$crate::common::FLAGSTONE $(, $rest)*);
        $case($group, "system", &std::alloc::System $(, $rest)*);
    }};
}
pub(crate) use side_by_side;

/// Short runs: the point is to compare neighbours, and there are many rows.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(30)
}

/// A layout aligned like most Rust types.
pub(crate) fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("benchmark sizes are small")
}

/// One allocation and its layout. It has no `Drop`: `give` takes it back.
#[must_use]
pub(crate) struct Block {
    pub(crate) start: NonNull<u8>,
    pub(crate) layout: Layout,
}

// SAFETY: `start` blocks the auto impl; the block is reachable through this value alone.
unsafe impl Send for Block {}

/// Allocates. Panics if there is no memory.
#[inline]
pub(crate) fn take<A: GlobalAlloc>(allocator: &A, layout: Layout) -> Block {
    debug_assert_ne!(layout.size(), 0);
    // SAFETY: no benchmark asks for zero bytes.
    let start = unsafe { allocator.alloc(layout) };
    Block {
        start: NonNull::new(start).expect("out of memory"),
        layout,
    }
}

/// Frees.
///
/// # Safety
///
/// 1. `block` came from `take` with this same allocator, or replaces such a block after `realloc`.
#[inline]
pub(crate) unsafe fn give<A: GlobalAlloc>(allocator: &A, block: Block) {
    // SAFETY: 1. the caller says that it is this allocator's. 2. `block` is consumed, so it is
    // freed once, with the layout that it was allocated with.
    unsafe { allocator.dealloc(block.start.as_ptr(), block.layout) };
}
