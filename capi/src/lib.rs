//! The C ABI: `malloc` and its kin, `operator new` and its kin, and what is flagstone's own, exported under
//! the names that C and C++ call. What each does is [`engine::raw`]'s business; here are the C standard's
//! and glibc's terms: `errno`, null, zero, overflow.
//!
//! Nothing but `core` and libc is linked: no allocation, no unwinding, no thread-local storage besides the
//! engine's 176 bytes.
#![no_std]

#[macro_use]
#[path = "../../src/os/weak.rs"]
mod weak;

pub mod cxx;
pub mod glibc;
pub mod heaps;
pub mod malloc;
pub mod own;
mod text;

use core::alloc::{GlobalAlloc, Layout};
use core::panic::PanicInfo;
use core::ptr;

use self::text::Text;

/// Refuses everything: heaps bring the crate `alloc` along, which asks for an allocator of Rust's.
/// Nothing here calls it.
struct Refusing;

// SAFETY: 1. there is no block that could be wrong.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, _layout: Layout) -> *mut u8 {
        ptr::null_mut()
    }

    unsafe fn dealloc(&self, _block: *mut u8, _layout: Layout) {}
}

#[global_allocator]
static RUSTS: Refusing = Refusing;

/// A panic is a bug: one line on standard error, then `abort`.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    die(format_args!("{info}"))
}

/// Writes one line to standard error and aborts. Allocates nothing.
#[cold]
fn die(message: core::fmt::Arguments<'_>) -> ! {
    let mut line = Text::<512>::new();
    line.add(format_args!("flagstone: {message}\n"));
    line.write_to(libc::STDERR_FILENO);
    // SAFETY: 1. no precondition.
    unsafe { libc::abort() }
}

// `core` as it comes may unwind, and names the unwinder's helper where it is not optimised away. Nothing here
// does: a panic aborts. Weak, in case another archive of Rust code has it.
core::arch::global_asm!(
    ".weak rust_eh_personality",
    ".hidden rust_eh_personality",
    "rust_eh_personality:",
    #[cfg(target_arch = "x86_64")]
    "ud2",
    #[cfg(target_arch = "aarch64")]
    "brk #1",
);

// Said here: the crate `libc` leaves it to std if anything built beside this library turns on its feature `std`.
#[link(name = "c")]
unsafe extern "C" {}
