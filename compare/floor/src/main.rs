//! The workload rows over the least that can be called an allocator: a stack of free blocks for each size, for
//! one thread, nothing checked, nothing given back, memory cut from one mapping. It shows how much of a row is
//! the row itself.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::env;
use std::process::ExitCode;
use std::ptr;

#[cfg(feature = "in_binary")]
#[path = "../../workload/src/lib.rs"]
#[expect(unreachable_pub, reason = "public where it is a library")]
mod workload;

/// Stacks up to here are one for each multiple of [`STEP`], above one for each power of two. Blocks aligned to
/// more have stacks of their own, one for each power of two.
const FINE_MAX: usize = 32 << 10;
const STEP: usize = 16;
const FINE: usize = FINE_MAX / STEP + 1;
const STACKS: usize = FINE + 2 * 64;
/// Blocks of a stack.
const DEPTH: usize = 1 << 21;
/// Addresses for blocks, reserved at once; pages are there when they are touched.
const SPACE: usize = 64 << 30;

/// The free blocks of one size. The newest lies here, as stores to a stack and loads from it take their time.
#[derive(Clone, Copy)]
struct Stack {
    newest: *mut u8,
    /// The place of the one before it; below the oldest lies a null.
    top: *mut *mut u8,
}

struct Floor {
    stacks: UnsafeCell<[Stack; STACKS]>,
    /// All stacks' places.
    places: UnsafeCell<*mut *mut u8>,
    /// What is left of the blocks' addresses.
    next: UnsafeCell<*mut u8>,
}

// SAFETY: 1. the cells block the auto impl; `main` runs no row with more than one thread.
unsafe impl Sync for Floor {}

/// The stack that serves a layout, and the bytes of its blocks.
#[inline]
fn stack_of(layout: Layout) -> (usize, usize) {
    let (size, align) = (layout.size(), layout.align());
    if size <= FINE_MAX && align <= STEP {
        let index = size.div_ceil(STEP);
        (index, index * STEP)
    } else {
        let rounded = size.max(align).next_power_of_two();
        let first = if align <= STEP { FINE } else { FINE + 64 };
        (first + rounded.trailing_zeros() as usize, rounded)
    }
}

fn map(bytes: usize) -> *mut u8 {
    // SAFETY: 1. a fresh anonymous mapping, placed by the kernel.
    let space = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    assert!(
        space != libc::MAP_FAILED,
        "the floor needs {bytes} bytes of addresses"
    );
    space.cast()
}

impl Floor {
    const fn new() -> Self {
        let unused = Stack {
            newest: ptr::null_mut(),
            top: ptr::null_mut(),
        };
        Self {
            stacks: UnsafeCell::new([unused; STACKS]),
            places: UnsafeCell::new(ptr::null_mut()),
            next: UnsafeCell::new(ptr::null_mut()),
        }
    }

    #[expect(clippy::mut_from_ref, reason = "one thread, and nobody keeps it")]
    #[inline]
    fn stack(&self, index: usize) -> &mut Stack {
        // SAFETY: 1. `stack_of` gives indices within the array.
        let stack = unsafe { self.stacks.get().cast::<Stack>().add(index) };
        // SAFETY: 1. one thread, and no other reference to this stack.
        unsafe { &mut *stack }
    }

    /// A block that was never used; makes the stack that it will come back to.
    #[cold]
    #[inline(never)]
    fn cut(&self, index: usize, bytes: usize) -> *mut u8 {
        // SAFETY: 1. one thread, and no other reference.
        let places = unsafe { &mut *self.places.get() };
        // SAFETY: 1. as above.
        let next = unsafe { &mut *self.next.get() };
        if places.is_null() {
            *places = map(STACKS * DEPTH * size_of::<*mut u8>()).cast();
            *next = map(SPACE);
        }
        let stack = self.stack(index);
        if stack.top.is_null() {
            stack.top = places.wrapping_add(index * DEPTH);
        }
        let align = if index < FINE + 64 { STEP } else { bytes };
        let start = next.wrapping_add(next.align_offset(align));
        *next = start.wrapping_add(bytes);
        start
    }
}

// SAFETY: 1. a stack's blocks are as long and as aligned as every layout that it serves.
unsafe impl GlobalAlloc for Floor {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (index, bytes) = stack_of(layout);
        let stack = self.stack(index);
        let block = stack.newest;
        if block.is_null() {
            return self.cut(index, bytes);
        }
        // SAFETY: 1. a place on the stack, or the null below.
        stack.newest = unsafe { *stack.top };
        stack.top = stack.top.wrapping_sub(1);
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let (index, _) = stack_of(layout);
        let stack = self.stack(index);
        stack.top = stack.top.wrapping_add(1);
        // SAFETY: 1. the stacks are deeper than any row has blocks.
        unsafe { *stack.top = stack.newest };
        stack.newest = block;
    }
}

#[global_allocator]
static GLOBAL: Floor = Floor::new();

/// Where this is a floor: one thread, and blocks that neither grow nor have to be zero.
const ROWS: [&str; 8] = ["--list", "a_", "b_", "c_", "f_ws1", "i_", "j_", "t_"];

fn main() -> ExitCode {
    let row = env::args().nth(1).unwrap_or_default();
    if !ROWS.iter().any(|prefix| row.starts_with(prefix)) {
        eprintln!("not applicable: no floor of such a row");
        return ExitCode::FAILURE;
    }
    workload::main(|| {}, None)
}
