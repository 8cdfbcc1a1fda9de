//! As `tls`, for libraries that programs load while they run: the words are wherever the loader
//! puts them. Their place is asked for by TLS descriptors, so that the library is not marked as one
//! that needs static storage.
//!
//! Linkers know the sequences by their exact form. In programs they relax them to a constant
//! offset; a library calls the loader's function that the descriptor names. That is a few
//! instructions where the words are in static storage after all, and some twenty where they are
//! not.
//!
//! The first such call of a thread is long, as may be the first one after another library was
//! loaded. The loader then allocates the library's storage for that thread, by the `malloc` of the
//! *program*, and ends the process without memory for it. That `malloc` is never this copy of the
//! allocator: what serves it was there when the program started, and the storage of such libraries
//! is static. So nothing here is entered again. Our locks may be held in the call, and come before
//! the loader's, under which nobody calls this copy. (glibc before 2.35 takes the lock that it
//! holds while constructors run: see docs/decisions.md, what is left out.)
//!
//! What the call changes, as the ABI has it: on x86-64 `rax` and the flags; on aarch64 `x0`, `x1`,
//! the link register, the flags, and what SVE adds to the vector registers. glibc before 2.40
//! breaks that on x86-64: around the long call it saves the general registers alone, and copies and
//! clears by vectors. So those are said to be lost, too, with masks and x87. They seldom hold
//! anything where a program allocates.
//!
//! The call is made on the stack of the function that this is inlined into. Without `nostack` the
//! compiler keeps nothing below the stack pointer there, and aligns it as C functions expect: the
//! long call is one.

use core::arch::asm;

pub(crate) use super::tls_words::{EMPTY, Words};

/// `asm!`, and nothing survives it in the registers that the descriptor's call may change besides
/// its result's.
#[cfg(target_arch = "x86_64")]
macro_rules! asm_descriptor {
    ($word:ident, $($part:tt)*) => {
        asm!(
            concat!("lea rax, [rip + ", $word!(), "@tlsdesc]"),
            concat!("call qword ptr [rax + ", $word!(), "@tlscall]"),
            $($part)*
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _,
            out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
            out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _,
            out("zmm28") _, out("zmm29") _, out("zmm30") _, out("zmm31") _,
            out("k1") _, out("k2") _, out("k3") _, out("k4") _,
            out("k5") _, out("k6") _, out("k7") _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            out("mm0") _, out("mm1") _, out("mm2") _, out("mm3") _,
            out("mm4") _, out("mm5") _, out("mm6") _, out("mm7") _,
        )
    };
}

/// As above. The thread's register is read after the call, whose sequence allows nothing between.
#[cfg(target_arch = "aarch64")]
macro_rules! asm_descriptor {
    ($word:ident, $($part:tt)*) => {
        asm!(
            concat!("adrp x0, :tlsdesc:", $word!()),
            concat!("ldr x1, [x0, :tlsdesc_lo12:", $word!(), "]"),
            concat!("add x0, x0, :tlsdesc_lo12:", $word!()),
            concat!(".tlsdesccall ", $word!()),
            "blr x1",
            "mrs x1, tpidr_el0",
            $($part)*
            out("x1") _, out("lr") _,
            out("p0") _, out("p1") _, out("p2") _, out("p3") _,
            out("p4") _, out("p5") _, out("p6") _, out("p7") _,
            out("p8") _, out("p9") _, out("p10") _, out("p11") _,
            out("p12") _, out("p13") _, out("p14") _, out("p15") _, out("ffr") _,
        )
    };
}

/// A function that returns the thread's word of this name plus an offset.
///
/// As in `tls`: not `pure`, so that the word is read once for each operation; it is read behind the
/// call. `readonly`: what the loader writes in the call is its own, and stores before are done
/// first. The sum is made in one register.
macro_rules! word_plus_offset {
    ($(#[$doc:meta])* $function:ident, $word:ident) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $function(offset: usize) -> *mut u8 {
            let place: *mut u8;
            #[cfg(target_arch = "x86_64")]
            // SAFETY: 1. reads the word of this thread; what the call changes is said.
            unsafe {
                asm_descriptor!(
                    $word,
                    "add r8, qword ptr fs:[rax]",
                    inout("r8") offset => place,
                    out("rax") _,
                    options(readonly),
                );
            }
            #[cfg(target_arch = "aarch64")]
            // SAFETY: 1. reads the word of this thread; what the call changes is said.
            unsafe {
                asm_descriptor!(
                    $word,
                    "ldr x0, [x1, x0]",
                    "add {place}, {place}, x0",
                    place = inout(reg) offset => place,
                    out("x0") _,
                    options(readonly),
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

/// The thread's words. They stay where they are until the thread ends: the library is never
/// unloaded, and a thread's storage goes after its key destructors have run.
pub(crate) fn words() -> &'static Words {
    let words: *const Words;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: 1. computes the address of the words of this thread; what the call changes is said.
    unsafe {
        asm_descriptor!(
            words,
            "add rax, qword ptr fs:[0]",
            out("rax") words,
            options(readonly, pure),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: 1. as above.
    unsafe {
        asm_descriptor!(
            words,
            "add x0, x0, x1",
            out("x0") words,
            options(readonly, pure),
        );
    }
    // SAFETY: 1. storage of this thread; the reference is used by this thread, or under the
    // registry's lock while the thread is in the registry.
    unsafe { &*words }
}
