//! The thread's words: four pointers in static thread-local storage, reached without a call.
//!
//! They are read by the initial-exec sequence, which linkers relax to a constant offset in
//! programs. A library that has it is marked: the loader places all of its thread-local storage in
//! the static block, which is small. For libraries that this is too small for there is
//! `tls_dynamic`.

use core::arch::asm;

pub(crate) use super::tls_words::{EMPTY, Words};

/// A function that returns the thread's word of this name plus an offset.
///
/// Not `pure`: two reads must not be merged, and stores before must not sink below. Both bound what
/// a thread can still do to its magazines after another has put [`EMPTY`] here: at most one
/// operation (docs/purging.md, holding threads off).
///
/// The sum is made here so that the magazine's words are addressed by one register, the same in every
/// inlined copy: recent cores then forward the last operation's stores to the next one's loads
/// without delay. With an index, or a register of the compiler's choice, some rows lose a third
/// (docs/decisions.md, departures).
macro_rules! word_plus_offset {
    ($(#[$doc:meta])* $function:ident, $word:ident) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $function(offset: usize) -> *mut u8 {
            let place: *mut u8;
            #[cfg(target_arch = "x86_64")]
            // SAFETY: 1. reads the word of this name, of this thread.
            unsafe {
                asm!(
                    concat!("mov {word}, qword ptr [rip + ", $word!(), "@GOTTPOFF]"),
                    "add r8, qword ptr fs:[{word}]",
                    word = out(reg) _,
                    inout("r8") offset => place,
                    options(nostack, readonly),
                );
            }
            #[cfg(target_arch = "aarch64")]
            // SAFETY: 1. reads the word of this name, of this thread.
            unsafe {
                asm!(
                    "mrs {thread}, tpidr_el0",
                    concat!("adrp {word}, :gottprel:", $word!()),
                    concat!("ldr {word}, [{word}, :gottprel_lo12:", $word!(), "]"),
                    "ldr {word}, [{thread}, {word}]",
                    "add {place}, {place}, {word}",
                    thread = out(reg) _,
                    word = out(reg) _,
                    place = inout(reg) offset => place,
                    options(nostack, preserves_flags, readonly),
                );
            }
            place
        }
    };
}

word_plus_offset! {
    /// The thread's `alloc` word plus `offset`.
    alloc_at, words
}

word_plus_offset! {
    /// The thread's `free` word plus `offset`.
    free_at, free_word
}

/// The thread's words. They stay where they are until the thread ends.
pub(crate) fn words() -> &'static Words {
    let words: *const Words;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: 1. computes the address of the words defined above, of this thread.
    unsafe {
        asm!(
            concat!("mov {words}, qword ptr [rip + ", words!(), "@GOTTPOFF]"),
            "add {words}, qword ptr fs:[0]",
            words = out(reg) words,
            options(nostack, readonly, pure),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: 1. computes the address of the words defined above, of this thread.
    unsafe {
        asm!(
            "mrs {thread}, tpidr_el0",
            concat!("adrp {words}, :gottprel:", words!()),
            concat!("ldr {words}, [{words}, :gottprel_lo12:", words!(), "]"),
            "add {words}, {words}, {thread}",
            words = out(reg) words,
            thread = out(reg) _,
            options(nostack, readonly, pure, preserves_flags),
        );
    }
    // SAFETY: 1. static storage of this thread; the reference is used by this thread, or under the
    // registry's lock while the thread is in the registry.
    unsafe { &*words }
}
