//! Heaps of a program's own, see [`engine::Heap`]: `include/flagstone.h` has the C side.
//!
//! A program has a heap by a *handle*, a block of `malloc`'s. It is not in the heap, which a reset
//! empties, and of which it would be one block more in every statistic.

use core::ffi::{CStr, c_char, c_uint, c_void};
use core::ptr::{self, NonNull};

use engine::{Heap, HeapError, HeapOptions, HeapStats, HugePages, raw};

use crate::malloc::{fail, or_enomem};

/// Bytes of a name with its end: the engine keeps as many without.
const NAME: usize = 48;

/// `flagstone_heap_t`.
#[derive(Debug)]
pub struct FlagstoneHeap {
    /// `None` once it was dropped. The handle is free then; as long as nobody else has the block, a
    /// late call is noticed.
    heap: Option<Heap>,
    /// What the engine keeps of the name, as a C string.
    name: [u8; NAME],
}

/// `struct flagstone_heap_stats`: see [`engine::HeapStats`].
#[repr(C)]
#[derive(Debug)]
pub struct FlagstoneHeapStats {
    live: usize,
    blocks: usize,
    held: usize,
    peak: usize,
    refused: usize,
}

#[cold]
fn dropped() -> ! {
    crate::die(format_args!("use of a heap that was dropped"))
}

/// The heap of a handle.
///
/// # Safety
/// 1. A heap's handle, which is not dropped or reset meanwhile.
#[inline(always)]
unsafe fn behind<'a>(handle: *const FlagstoneHeap) -> &'a Heap {
    // SAFETY: 1. the caller's.
    match unsafe { &(*handle).heap } {
        Some(heap) => heap,
        None => dropped(),
    }
}

/// C's limit: 0 is none.
fn limit(bytes: usize) -> Option<usize> {
    Some(bytes).filter(|bytes| *bytes > 0)
}

/// The flags of `flagstone_heap_new_of`, by their bits.
const HUGE_PAGES: c_uint = 1 << 0;
const SMALL_PAGES: c_uint = 1 << 1;
const GIGANTIC_PAGES: c_uint = 1 << 2;
const NO_CORE_DUMPS: c_uint = 1 << 3;
const MERGEABLE: c_uint = 1 << 4;
const ON_NODE: c_uint = 1 << 5;
const ALL: c_uint = (1 << 6) - 1;

/// What flags ask for, if they are known and may stand together.
fn options(flags: c_uint, node: c_uint) -> Option<HeapOptions<'static>> {
    let has = |flag| flags & flag != 0;
    let kinds = flags & (HUGE_PAGES | SMALL_PAGES | GIGANTIC_PAGES);
    if flags & !ALL != 0 || kinds.count_ones() > 1 {
        return None;
    }
    let wish = match kinds {
        HUGE_PAGES => HugePages::Advise,
        SMALL_PAGES => HugePages::Off,
        _ => HugePages::Auto,
    };
    let options = Heap::options()
        .huge_pages(wish)
        .gigantic_pages(has(GIGANTIC_PAGES))
        .core_dumps(!has(NO_CORE_DUMPS))
        .mergeable(has(MERGEABLE))
        .node(has(ON_NODE).then_some(node));
    Some(options)
}

fn create(options: HeapOptions<'_>, bytes: usize) -> *mut FlagstoneHeap {
    // First, so that a process whose first call this is begins as with `malloc`, not with the
    // options of a heap alone.
    let block = raw::alloc(size_of::<FlagstoneHeap>(), raw::ALIGN);
    let Some(handle) = NonNull::new(block.cast::<FlagstoneHeap>()) else {
        return fail(libc::ENOMEM).cast();
    };
    match options.limit(limit(bytes)).create() {
        Ok(heap) => {
            let mut name = [0; NAME];
            let kept = heap.name().as_bytes();
            name[..kept.len()].copy_from_slice(kept);
            let heap = Some(heap);
            // SAFETY: 1. a block as long, and aligned to what every type needs.
            unsafe { handle.write(FlagstoneHeap { heap, name }) };
            handle.as_ptr()
        }
        Err(error) => {
            // SAFETY: 1. live. 2. nobody has seen it.
            unsafe { raw::free(block) };
            let why = match error {
                HeapError::Limit => libc::EINVAL,
                HeapError::Unsupported => libc::ENOTSUP,
                _ => libc::ENOMEM,
            };
            fail(why).cast()
        }
    }
}

/// # Safety
/// 1. `name` is null or a C string.
unsafe fn create_named(
    options: HeapOptions<'_>,
    name: *const c_char,
    limit: usize,
) -> *mut FlagstoneHeap {
    if name.is_null() {
        return create(options, limit);
    }
    // SAFETY: 1. the caller's.
    match unsafe { CStr::from_ptr(name) }.to_str() {
        Ok(name) => create(options.name(name), limit),
        Err(_) => fail(libc::EINVAL).cast(),
    }
}

/// A heap without a name or a limit. Null with `ENOMEM` without memory.
#[unsafe(no_mangle)]
pub extern "C" fn flagstone_heap_new() -> *mut FlagstoneHeap {
    create(Heap::options(), 0)
}

/// A heap with a name, unless it is null, and a limit in bytes, unless it is 0. Null with `EINVAL`
/// for a name that is not UTF-8 or a limit below the 4096 bytes of an empty heap, with `ENOMEM`
/// without memory.
///
/// # Safety
/// 1. `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_new_with(
    name: *const c_char,
    limit: usize,
) -> *mut FlagstoneHeap {
    // SAFETY: 1. the caller's.
    unsafe { create_named(Heap::options(), name, limit) }
}

/// The same, of memory of some kind: [`HeapOptions`] says what each of the flags is. Null with `EINVAL`
/// for flags that are unknown or exclude each other, too, with `ENOTSUP` where there is no such memory.
///
/// # Safety
/// 1. `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_new_of(
    name: *const c_char,
    limit: usize,
    flags: c_uint,
    node: c_uint,
) -> *mut FlagstoneHeap {
    match options(flags, node) {
        // SAFETY: 1. the caller's.
        Some(options) => unsafe { create_named(options, name, limit) },
        None => fail(libc::EINVAL).cast(),
    }
}

/// Frees all blocks of a heap, and the heap; null is none. `errno` stays as it is.
///
/// # Safety
/// 1. Null, or a heap's handle, which nobody uses any more.
/// 2. Nobody uses the heap's blocks any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_drop(heap: *mut FlagstoneHeap) {
    // SAFETY: 1. the caller's.
    let Some(handle) = (unsafe { heap.as_mut() }) else {
        return;
    };
    match handle.heap.take() {
        Some(inner) => drop(inner),
        None => dropped(),
    }
    // SAFETY: 1. live, from `create`. 2. the caller's.
    unsafe { raw::free(heap.cast()) };
}

/// Frees all blocks of a heap, which keeps its name and its limit. `errno` stays as it is.
///
/// # Safety
/// 1. A heap's handle, and no other thread is in a call for it.
/// 2. Nobody uses the heap's blocks any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_reset(heap: *mut FlagstoneHeap) {
    // SAFETY: 1. the caller's.
    match unsafe { &mut (*heap).heap } {
        Some(inner) => inner.reset(),
        None => dropped(),
    }
}

/// `size` bytes of a heap, aligned to 16; one of 0 bytes is a block like others. Null with `ENOMEM`
/// without memory, or beyond the limit.
///
/// # Safety
/// 1. A heap's handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_malloc(
    heap: *mut FlagstoneHeap,
    size: usize,
) -> *mut c_void {
    // SAFETY: 1. the caller's.
    or_enomem(unsafe { behind(heap) }.raw_alloc(size, raw::ALIGN))
}

/// `count` times `size` bytes, zero. Null with `ENOMEM` as [`flagstone_heap_malloc`], or if the
/// product overflows.
///
/// # Safety
/// 1. A heap's handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_calloc(
    heap: *mut FlagstoneHeap,
    count: usize,
    size: usize,
) -> *mut c_void {
    // SAFETY: 1. the caller's.
    let heap = unsafe { behind(heap) };
    match count.checked_mul(size) {
        Some(bytes) => or_enomem(heap.raw_alloc_zeroed(bytes, raw::ALIGN)),
        None => fail(libc::ENOMEM),
    }
}

/// `size` bytes aligned to `align`. Null with `EINVAL` if that is no power of two, with `ENOMEM` as
/// [`flagstone_heap_malloc`]. The size need not be a multiple of the alignment.
///
/// # Safety
/// 1. A heap's handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_aligned_alloc(
    heap: *mut FlagstoneHeap,
    align: usize,
    size: usize,
) -> *mut c_void {
    // SAFETY: 1. the caller's.
    let heap = unsafe { behind(heap) };
    if !align.is_power_of_two() {
        return fail(libc::EINVAL);
    }
    or_enomem(heap.raw_alloc(size, align.max(raw::ALIGN)))
}

/// Changes the size of a block, which may move. Null allocates; size 0 frees and gives null, as
/// `realloc` does. Null with `ENOMEM` leaves the block as it was.
///
/// # Safety
/// 1. A heap's handle.
/// 2. Null, or a live block of this heap, which nobody uses any more unless null is given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_realloc(
    heap: *mut FlagstoneHeap,
    block: *mut c_void,
    size: usize,
) -> *mut c_void {
    // SAFETY: 1. the caller's.
    let heap = unsafe { behind(heap) };
    if size == 0 && !block.is_null() {
        // SAFETY: 1. and 2. the caller's.
        unsafe { heap.raw_free(block.cast()) };
        return ptr::null_mut();
    }
    // SAFETY: 1. the caller's; every block here is aligned so. 2. the caller's.
    or_enomem(unsafe { heap.raw_realloc(block.cast(), size, raw::ALIGN) })
}

/// Frees a block; null is none. `errno` stays as it is.
///
/// # Safety
/// 1. A heap's handle.
/// 2. Null, or a live block of this heap that nobody uses any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_free(heap: *mut FlagstoneHeap, block: *mut c_void) {
    // SAFETY: 1. the caller's.
    let heap = unsafe { behind(heap) };
    // SAFETY: 1. and 2. the caller's.
    unsafe { heap.raw_free(block.cast()) };
}

/// Bytes of a block that its user may use, at least as many as were asked for; 0 for null.
///
/// # Safety
/// 1. A heap's handle.
/// 2. Null, or a live block of this heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_usable_size(
    heap: *const FlagstoneHeap,
    block: *const c_void,
) -> usize {
    // SAFETY: 1. the caller's.
    let heap = unsafe { behind(heap) };
    // SAFETY: 1. the caller's.
    unsafe { heap.raw_usable_size(block.cast_mut().cast()) }
}

/// Changes what a heap may hold, in bytes; 0 is no limit. Where it holds more already, it is
/// refused more until it holds less.
///
/// # Safety
/// 1. A heap's handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_set_limit(heap: *mut FlagstoneHeap, bytes: usize) {
    // SAFETY: 1. the caller's.
    unsafe { behind(heap) }.set_limit(limit(bytes));
}

/// Gives back what a heap has free, as [`Heap::purge`] does; how many bytes.
///
/// # Safety
/// 1. A heap's handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_purge(heap: *mut FlagstoneHeap) -> usize {
    // SAFETY: 1. the caller's.
    unsafe { behind(heap) }.purge()
}

/// What a heap holds at the moment, into `*out`.
///
/// # Safety
/// 1. A heap's handle.
/// 2. `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_get_stats(
    heap: *const FlagstoneHeap,
    out: *mut FlagstoneHeapStats,
) {
    // SAFETY: 1. the caller's.
    let HeapStats {
        live,
        blocks,
        held,
        peak,
        refused,
        ..
    } = unsafe { behind(heap) }.stats();
    let stats = FlagstoneHeapStats {
        live,
        blocks,
        held,
        peak,
        refused,
    };
    // SAFETY: 1. the caller's second item.
    unsafe { out.write(stats) };
}

/// The first 47 bytes of a heap's name, whole characters of them; empty if it has none. It is there
/// until the heap is dropped.
///
/// # Safety
/// 1. A heap's handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_heap_name(heap: *const FlagstoneHeap) -> *const c_char {
    // SAFETY: 1. the caller's.
    let _is_there = unsafe { behind(heap) };
    // SAFETY: 1. the caller's: the field of a handle, which is not written to.
    unsafe { &raw const (*heap).name }.cast()
}
