//! A user's program reduced to the six functions whose machine code `disasm.sh` shows.

use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;
use std::mem::MaybeUninit;

use flagstone::Flagstone;

#[global_allocator]
static GLOBAL: Flagstone = Flagstone::new();

type Block40 = MaybeUninit<[u8; 40]>;

/// A block whose size is a constant at the call site.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn probe_box40_alloc() -> *mut Block40 {
    Box::into_raw(Box::new(Block40::uninit()))
}

/// # Safety
/// 1. `block` came from `probe_box40_alloc` and has not been dropped.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn probe_box40_drop(block: *mut Block40) {
    // SAFETY: 1. from `Box::into_raw`, once.
    drop(unsafe { Box::from_raw(block) });
}

/// Bytes, of which the compiler knows the alignment and not how many they are.
///
/// # Safety
/// 1. `size` is not zero and fits an isize.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn probe_bytes_alloc(size: usize) -> *mut u8 {
    // SAFETY: 1. and 2. an alignment of 1; by the caller's point.
    let layout = unsafe { Layout::from_size_align_unchecked(size, 1) };
    // SAFETY: 1. the size is not zero.
    unsafe { alloc(layout) }
}

/// # Safety
/// 1. `block` came from `probe_bytes_alloc` with this size and has not been freed.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn probe_bytes_free(block: *mut u8, size: usize) {
    // SAFETY: 1. and 2. the block was allocated with it.
    let layout = unsafe { Layout::from_size_align_unchecked(size, 1) };
    // SAFETY: 1. a live block. 2. of this layout.
    unsafe { dealloc(block, layout) };
}

/// A block whose size and alignment are known at run time only.
///
/// # Safety
/// 1. `size` is not zero. 2. `align` is a power of two. 3. `size` rounded up to it fits an isize.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn probe_alloc(size: usize, align: usize) -> *mut u8 {
    // SAFETY: 1. and 2. by the caller's points 2 and 3.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    // SAFETY: 1. the size is not zero.
    unsafe { alloc(layout) }
}

/// # Safety
/// 1. `block` came from `probe_alloc` with this size and alignment and has not been freed.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn probe_free(block: *mut u8, size: usize, align: usize) {
    // SAFETY: 1. and 2. the block was allocated with them.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    // SAFETY: 1. a live block. 2. of this layout.
    unsafe { dealloc(block, layout) };
}

fn main() {
    for _ in 0..black_box(3) {
        let block = black_box(probe_box40_alloc());
        // SAFETY: 1. made above.
        unsafe { probe_box40_drop(block) };
        // SAFETY: 1. not zero, and small.
        let bytes = black_box(unsafe { probe_bytes_alloc(black_box(100)) });
        assert!(!bytes.is_null(), "100 bytes are available");
        // SAFETY: 1. allocated above, with this size.
        unsafe { probe_bytes_free(bytes, black_box(100)) };
        let (size, align) = black_box((100, 8));
        // SAFETY: 1. not zero. 2. a power of two. 3. small.
        let block = black_box(unsafe { probe_alloc(size, align) });
        assert!(!block.is_null(), "100 bytes are available");
        // SAFETY: 1. allocated above, with this size and alignment.
        unsafe { probe_free(block, size, align) };
    }
}
