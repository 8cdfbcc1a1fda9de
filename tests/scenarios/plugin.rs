//! A library with an allocator of its own. `library.rs` compiles and loads it.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

use flagstone::Flagstone;

#[global_allocator]
static ALLOC: Flagstone = Flagstone::new();

/// Makes and drops `count` strings and a long array; how many bytes the strings had.
#[unsafe(no_mangle)]
pub extern "C" fn work(count: usize) -> usize {
    let words: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    let long = vec![1_u8; count << 10];
    assert_eq!(
        long.iter().map(|byte| usize::from(*byte)).sum::<usize>(),
        count << 10
    );
    words.iter().map(String::len).sum()
}

/// A block of the library's, filled with `byte`, that outlives the call.
#[unsafe(no_mangle)]
pub extern "C" fn lend(length: usize, byte: u8) -> *mut u8 {
    Box::into_raw(vec![byte; length].into_boxed_slice()).cast()
}

/// Takes back what [`lend`] gave.
///
/// # Safety
/// 1. `block` came from `lend` with this length and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn give_back(block: *mut u8, length: usize) {
    let block = core::ptr::slice_from_raw_parts_mut(block, length);
    // SAFETY: 1. the caller's.
    drop(unsafe { Box::from_raw(block) });
}

/// Doubles each number so many times and adds them up. Allocations come in between, while the
/// numbers are in registers.
#[unsafe(no_mangle)]
pub extern "C" fn double(numbers: &[f64; 8], times: usize) -> f64 {
    let layout = Layout::new::<u64>();
    let mut numbers = *numbers;
    for _ in 0..times {
        // SAFETY: 1. eight bytes.
        let block = black_box(unsafe { ALLOC.alloc(layout) });
        numbers = numbers.map(|number| number * 2.0);
        // SAFETY: 1. allocated above.
        unsafe { ALLOC.dealloc(block, layout) };
    }
    numbers.iter().sum()
}

/// Whether the library's allocator keeps its invariants.
#[unsafe(no_mangle)]
pub extern "C" fn is_sound() -> bool {
    Flagstone::verify().is_ok()
}
