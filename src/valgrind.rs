//! Tells memcheck what is a block, so that it finds accesses after a free, past an end or of bytes never
//! written, and leaks. Requests are instructions that do nothing on a processor and that valgrind knows.
//!
//! Memcheck knows the memory of blocks as out of bounds, but for live blocks. Inside the allocator it
//! reports nothing. It finds leaks by looking for addresses in memory; our tables hold those of live
//! blocks too, so they are *hidden*: every address that comes in, from the kernel or from a free, counts
//! as never written, and so does what is computed from it. What goes out is *shown* again.

use core::arch::asm;
use core::ffi::c_void;
use core::ptr::NonNull;

/// The requests that are used, with the numbers of `valgrind.h` and `memcheck.h`.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Request {
    RunningOnValgrind = 0x1001,
    MalloclikeBlock = 0x1301,
    FreelikeBlock = 0x1302,
    ChangeErrDisablement = 0x1801,
    MakeMemNoaccess = MEMCHECK,
    MakeMemUndefined = MEMCHECK + 1,
    MakeMemDefined = MEMCHECK + 2,
}

/// Where memcheck's own requests begin.
const MEMCHECK: usize = (b'M' as usize) << 24 | (b'C' as usize) << 16;

/// Asks valgrind; 0 without it.
#[inline]
fn request(request: Request, place: *const c_void, numbers: [usize; 3]) -> usize {
    // Six words, of which one leads to what may change.
    let number = core::ptr::without_provenance::<c_void>;
    let [second, third, fourth] = numbers.map(number);
    let request = number(request as usize);
    let arguments = [request, place, second, third, fourth, number(0)];
    let answer: usize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: 1. turns a register round to where it was, and swaps one with itself. 2. valgrind reads
    // the six arguments, writes the answer, and marks no memory but what the callers own.
    unsafe {
        asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") 0_usize => answer,
            options(nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: 1. and 2. as above.
    unsafe {
        asm!(
            "ror x12, x12, #3",
            "ror x12, x12, #13",
            "ror x12, x12, #51",
            "ror x12, x12, #61",
            "orr x10, x10, x10",
            in("x4") arguments.as_ptr(),
            inout("x3") 0_usize => answer,
            options(nostack),
        );
    }
    answer
}

/// Whether valgrind runs the program.
#[inline]
pub(crate) fn is_running() -> bool {
    request(Request::RunningOnValgrind, core::ptr::null(), [0; 3]) != 0
}

/// `work` of the allocator, about which nothing is reported; its result is shown.
pub(crate) fn quietly<R>(work: impl FnOnce() -> R) -> R {
    if !is_running() {
        return work();
    }
    let change = |by: usize| {
        let by = core::ptr::without_provenance(by);
        request(Request::ChangeErrDisablement, by, [0; 3])
    };
    change(1);
    let mut result = work();
    mark(Request::MakeMemDefined, &mut result);
    // Once less.
    change(usize::MAX);
    result
}

/// An allocation of `size` bytes by `work`.
pub(crate) fn allocating(size: usize, work: impl FnOnce() -> *mut u8) -> *mut u8 {
    announced(quietly(work), size, false)
}

/// An allocation of `size` zeroed bytes by `work`.
pub(crate) fn allocating_zeroed(size: usize, work: impl FnOnce() -> *mut u8) -> *mut u8 {
    announced(quietly(work), size, true)
}

fn announced(block: *mut u8, size: usize, is_zeroed: bool) -> *mut u8 {
    if !block.is_null() {
        let numbers = [size, 0, usize::from(is_zeroed)];
        request(Request::MalloclikeBlock, block.cast(), numbers);
    }
    block
}

/// A free of `block` by `work`. Announced before: afterwards it may be another thread's.
pub(crate) fn freeing(block: NonNull<u8>, work: impl FnOnce(NonNull<u8>)) {
    request(Request::FreelikeBlock, block.as_ptr().cast(), [0; 3]);
    let block = hidden(block);
    quietly(|| work(block));
}

/// Fresh memory for blocks, out of bounds until some of it is one.
pub(crate) fn fence_off(base: NonNull<u8>, length: usize) {
    request(
        Request::MakeMemNoaccess,
        base.as_ptr().cast(),
        [length, 0, 0],
    );
}

/// An address that is not to be found when memcheck looks for leaks.
pub(crate) fn hidden<T>(mut address: NonNull<T>) -> NonNull<T> {
    mark(Request::MakeMemUndefined, &mut address);
    address
}

/// An address that others look at, libc for one.
pub(crate) fn shown<T>(mut address: NonNull<T>) -> NonNull<T> {
    mark(Request::MakeMemDefined, &mut address);
    address
}

fn mark<T>(how: Request, value: &mut T) {
    request(how, (&raw mut *value).cast(), [size_of::<T>(), 0, 0]);
}
