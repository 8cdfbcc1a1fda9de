//! What the C standard and POSIX name.
//!
//! No exported function calls another by its name: a program may define some of them itself, in front of glibc's inner
//! names for the others, and would be called back. What they share is inlined, below.

use core::ffi::{c_int, c_void};
use core::ptr;

use engine::raw;

/// Sets `errno` of the calling thread.
pub(crate) fn set_errno(value: c_int) {
    // SAFETY: 1. no precondition; the result is this thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: 1. valid for as long as the thread lives.
    unsafe { errno.write(value) };
}

#[cold]
pub(crate) fn fail(errno: c_int) -> *mut c_void {
    set_errno(errno);
    ptr::null_mut()
}

#[inline(always)]
pub(crate) fn or_enomem(block: *mut u8) -> *mut c_void {
    if block.is_null() {
        return fail(libc::ENOMEM);
    }
    block.cast()
}

#[inline(always)]
pub(crate) fn allocate(size: usize) -> *mut c_void {
    let block = raw::alloc_at_hand(size, raw::ALIGN);
    if block.is_null() {
        return allocate_long(size);
    }
    block.cast()
}

/// Apart, so that the short way saves no registers.
#[inline(never)]
extern "C" fn allocate_long(size: usize) -> *mut c_void {
    or_enomem(raw::alloc(size, raw::ALIGN))
}

#[inline(always)]
pub(crate) fn zeroed(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => or_enomem(raw::alloc_zeroed(bytes, raw::ALIGN)),
        None => fail(libc::ENOMEM),
    }
}

/// # Safety
/// 1. Null, or a live block of this library that nobody uses any more.
#[inline(always)]
pub(crate) unsafe fn release(block: *mut c_void) {
    // SAFETY: 1. and 2. the caller's.
    unsafe { raw::free(block.cast()) };
}

/// # Safety
/// 1. Null, or a live block of this library, which nobody uses any more unless null is given.
#[inline(always)]
pub(crate) unsafe fn resize(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return allocate(size);
    }
    if size == 0 {
        // SAFETY: 1. the caller's.
        unsafe { release(block) };
        return ptr::null_mut();
    }
    // SAFETY: 1. and 2. the caller's.
    or_enomem(unsafe { raw::realloc(block.cast(), size) })
}

/// # Safety
/// 1. `out` is writable.
#[inline(always)]
pub(crate) unsafe fn aligned_into(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || align < size_of::<*mut c_void>() {
        return libc::EINVAL;
    }
    let block = raw::alloc(size, align.max(raw::ALIGN));
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: 1. the caller's.
    unsafe { out.write(block.cast()) };
    0
}

#[inline(always)]
fn aligned(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return fail(libc::EINVAL);
    }
    or_enomem(raw::alloc(size, align.max(raw::ALIGN)))
}

#[inline(always)]
pub(crate) fn aligned_above(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => aligned(align, size),
        None => fail(libc::EINVAL),
    }
}

/// Bytes of a page.
fn page() -> usize {
    // SAFETY: 1. no precondition.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).unwrap_or(4096)
}

#[inline(always)]
pub(crate) fn aligned_to_page(size: usize) -> *mut c_void {
    aligned(page(), size)
}

#[inline(always)]
pub(crate) fn pages(size: usize) -> *mut c_void {
    let page = page();
    match size.checked_next_multiple_of(page) {
        Some(bytes) => aligned(page, bytes),
        None => fail(libc::ENOMEM),
    }
}

/// `size` bytes aligned to 16; one of 0 bytes is a block like others. Null with `ENOMEM` without memory.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    allocate(size)
}

/// `count` times `size` bytes, zero. Null with `ENOMEM` without memory, or if the product overflows.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    zeroed(count, size)
}

/// Frees a block; null is none. `errno` stays as it is.
///
/// # Safety
/// 1. Null, or a live block of this library that nobody uses any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    // SAFETY: 1. the caller's.
    unsafe { release(block) };
}

/// Changes the size of a block, which may move. Null allocates; size 0 frees and gives null, as in glibc.
/// Null with `ENOMEM` leaves the block as it was.
///
/// # Safety
/// 1. Null, or a live block of this library, which nobody uses any more unless null is given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: 1. the caller's.
    unsafe { resize(block, size) }
}

/// As [`realloc`] to `count` times `size` bytes; null with `ENOMEM` if the product overflows.
///
/// # Safety
/// 1. As for [`realloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: 1. the caller's.
        Some(bytes) => unsafe { resize(block, bytes) },
        None => fail(libc::ENOMEM),
    }
}

/// `size` bytes aligned to `align`, a power of two and a multiple of a pointer's size, into `*out`. `EINVAL`
/// or `ENOMEM` is returned, leaving `*out` as it was; `errno` stays as it is.
///
/// # Safety
/// 1. `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    // SAFETY: 1. the caller's.
    unsafe { aligned_into(out, align, size) }
}

/// `size` bytes aligned to `align`. Null with `EINVAL` if that is no power of two, with `ENOMEM` without
/// memory. The size need not be a multiple of the alignment.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    aligned(align, size)
}

/// As [`free`]; the size is not relied upon.
///
/// # Safety
/// 1. As for [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(block: *mut c_void, _size: usize) {
    // SAFETY: 1. the caller's.
    unsafe { release(block) };
}

/// As [`free`]; alignment and size are not relied upon.
///
/// # Safety
/// 1. As for [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(block: *mut c_void, _align: usize, _size: usize) {
    // SAFETY: 1. the caller's.
    unsafe { release(block) };
}

/// Bytes of a block that its user may use, at least as many as were asked for; 0 for null.
///
/// # Safety
/// 1. Null, or a live block of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    // SAFETY: 1. the caller's.
    unsafe { raw::usable_size(block.cast()) }
}

/// As [`aligned_alloc`], but an alignment that is no power of two is rounded up to one, as in glibc.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    aligned_above(align, size)
}

/// `size` bytes aligned to a page.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    aligned_to_page(size)
}

/// Whole pages of at least `size` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    pages(size)
}
