//! The thread's words: where they stand, and their name in assembly.
//!
//! They are defined in assembly as `thread_local!` cannot be read from another crate without a call
//! in every profile (docs/decisions.md, departures). The name has the crate's version, so that two
//! versions in one program keep apart.

use core::arch::global_asm;

use super::tls_words::{EMPTY, Words};

/// Bytes of the words before those of first-class heaps.
const FIRST: usize = 4 * size_of::<usize>();

/// A name with the crate's version.
macro_rules! versioned {
    ($name:literal) => {
        concat!(
            $name,
            env!("CARGO_PKG_VERSION_MAJOR"),
            "_",
            env!("CARGO_PKG_VERSION_MINOR"),
            "_",
            env!("CARGO_PKG_VERSION_PATCH")
        )
    };
}

/// The name of the words, and of the first of them: `alloc`.
macro_rules! words {
    () => {
        versioned!("flagstone_words_")
    };
}

/// The name of the second word: `free`. On aarch64 an offset from the first would be an instruction
/// more.
macro_rules! free_word {
    () => {
        versioned!("flagstone_free_word_")
    };
}

global_asm!(
    ".pushsection .tdata,\"awT\",%progbits",
    ".balign 16",
    concat!(".globl ", words!()),
    concat!(".hidden ", words!()),
    concat!(".type ", words!(), ", %object"),
    concat!(".size ", words!(), ", {all}"),
    concat!(words!(), ":"),
    ".quad {empty}",
    concat!(".globl ", free_word!()),
    concat!(".hidden ", free_word!()),
    concat!(".type ", free_word!(), ", %object"),
    concat!(".size ", free_word!(), ", 8"),
    concat!(free_word!(), ":"),
    ".quad {empty}",
    ".quad 0",
    ".quad {empty}",
    ".zero {heaps}",
    ".popsection",
    empty = sym EMPTY,
    all = const size_of::<Words>(),
    heaps = const size_of::<Words>() - FIRST,
);
