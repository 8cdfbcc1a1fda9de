//! The thread's words: three pointers in static thread-local storage, reached without a call.
//!
//! `thread_local!` across crates may be an indirect call in the default profile, which costs more
//! than the rest of the fast path (ALGORITHM.md). So the words are defined in assembly under a name
//! with the crate's version, two versions in one program keep apart, and read by the initial-exec
//! sequence, which linkers relax to a constant offset in programs.

use core::arch::{asm, global_asm};

pub(super) use super::words::{EMPTY, Words};

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

/// The thread's `hot` word plus `offset`.
///
/// Not `pure`: two reads must not be merged, and stores before must not sink below. Both bound what
/// a thread can still do to its magazines after another has put [`EMPTY`] here: at most one
/// operation (ALGORITHM.md, holding threads off).
///
/// The sum is made here so that the magazine's words are addressed by one register, the same in every
/// inlined copy: recent cores then forward the last operation's stores to the next one's loads
/// without delay. With an index, or a register of the compiler's choice, some rows lose a third
/// (ALGORITHM.md, constants).
#[inline(always)]
pub(super) fn hot_at(offset: usize) -> *mut u8 {
    let place: *mut u8;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: 1. reads the word defined above, of this thread.
    unsafe {
        asm!(
            concat!("mov {word}, qword ptr [rip + ", words!(), "@GOTTPOFF]"),
            "add r8, qword ptr fs:[{word}]",
            word = out(reg) _,
            inout("r8") offset => place,
            options(nostack, readonly),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: 1. reads the word defined above, of this thread.
    unsafe {
        asm!(
            "mrs {thread}, tpidr_el0",
            concat!("adrp {word}, :gottprel:", words!()),
            concat!("ldr {word}, [{word}, :gottprel_lo12:", words!(), "]"),
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

/// The thread's words. They stay where they are until the thread ends.
pub(super) fn words() -> &'static Words {
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
