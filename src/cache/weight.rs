//! What has a path inlined where the compiler knows the size, and called where it does not.
//!
//! Under link-time optimisation a program has thousands of sites of the second kind (`docs/paths.md`, what is inlined).
//! Stable Rust cannot ask whether a value is a constant. But the inliner weighs a path with what it knows of a site: a
//! branch for sizes that no layout has is gone before, where the size is a constant. Elsewhere it stays, and
//! it is heavy: statements that the inliner counts as an instruction each, and that are none.

use super::slow::no_size;

/// Weighs nothing for a size that is a constant; ends the process if no layout is so long.
#[inline(always)]
pub(super) fn of_size(size: usize) {
    if size > isize::MAX as usize {
        heavy();
        no_size();
    }
}

macro_rules! four_times {
    ($($statement:tt)*) => { $($statement)* $($statement)* $($statement)* $($statement)* };
}

/// 64 statements, each of which the inliner takes for 5 of the 325 that a function may weigh which is marked `inline`.
#[inline(always)]
fn heavy() {
    four_times! { four_times! { four_times! { nothing(); } } }
}

/// No instruction, but a statement to the compiler, which neither drops it nor looks inside.
#[cfg(not(miri))]
#[inline(always)]
fn nothing() {
    // SAFETY: 1. no instruction.
    unsafe { core::arch::asm!("", options(nomem, nostack, preserves_flags)) };
}

#[cfg(miri)]
fn nothing() {}
