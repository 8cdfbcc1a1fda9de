//! The thread's words: where they stand, and their name in assembly.
//!
//! They are defined in assembly as `thread_local!` cannot be read from another crate without a call
//! in every profile (ALGORITHM.md, departures). The name has the crate's version, so that two
//! versions in one program keep apart.

use core::arch::global_asm;

use super::tls_words::EMPTY;

/// The name.
macro_rules! words {
    () => {
        concat!(
            "flagstone_words_",
            env!("CARGO_PKG_VERSION_MAJOR"),
            "_",
            env!("CARGO_PKG_VERSION_MINOR"),
            "_",
            env!("CARGO_PKG_VERSION_PATCH")
        )
    };
}

global_asm!(
    ".pushsection .tdata,\"awT\",%progbits",
    ".balign 16",
    concat!(".globl ", words!()),
    concat!(".hidden ", words!()),
    concat!(".type ", words!(), ", %object"),
    concat!(".size ", words!(), ", 24"),
    concat!(words!(), ":"),
    ".quad {empty}",
    ".quad 0",
    ".quad {empty}",
    ".popsection",
    empty = sym EMPTY,
);
