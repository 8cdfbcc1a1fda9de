//! The same for a first-class heap that all threads share.

use core::alloc::Layout;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};

use flagstone::Heap;
use flagstone::allocator_api2::alloc::Allocator;

use crate::{Random, expect};

/// Blocks between threads.
static MAIL: [AtomicPtr<u8>; 64] = [const { AtomicPtr::new(ptr::null_mut()) }; 64];
/// Blocks that a thread holds.
const HELD: usize = 48;

/// A block that says in its first bytes how long it is.
fn alloc(heap: &Heap, random: &mut Random) -> *mut u8 {
    let size = match random.below(50) {
        0 => 16 + random.below(100_000),
        1..5 => 16 + random.below(8_000),
        _ => 16 + random.below(400),
    };
    let block = (&heap).allocate(layout(size)).expect("memory").cast::<u8>();
    // SAFETY: 1. of 16 bytes at least, aligned to 8.
    unsafe { block.cast::<usize>().write(size) };
    // SAFETY: 1. inside.
    let last = unsafe { block.add(size - 1) };
    // SAFETY: 1. the block's.
    unsafe { last.write(7) };
    block.as_ptr()
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

fn free(heap: &Heap, block: *mut u8, random: &mut Random) {
    let Some(block) = NonNull::new(block) else {
        return;
    };
    // SAFETY: 1. as `alloc` left it.
    let size = unsafe { block.cast::<usize>().read() };
    // SAFETY: 1. inside.
    let last = unsafe { block.add(size - 1) };
    // SAFETY: 1. the block's.
    expect(unsafe { last.read() } == 7, c"a block changed");
    if random.below(4) == 0 {
        // SAFETY: 1. live, of this heap. 2. not used any more.
        unsafe { heap.raw_free(block.as_ptr()) };
    } else {
        // SAFETY: 1. live, of this heap and layout. 2. not used any more.
        unsafe { (&heap).deallocate(block, layout(size)) };
    }
}

/// Allocates, frees, exchanges blocks with other threads, and looks; frees all it has.
pub(crate) fn work(heap: &Heap, random: &mut Random, steps: usize) {
    let mut held = [ptr::null_mut::<u8>(); HELD];
    for step in 0..steps {
        let place = &mut held[random.below(HELD)];
        if place.is_null() {
            *place = alloc(heap, random);
        } else if random.below(2) == 0 {
            // ORDERING: publishes the block's contents to who takes it, and shows those of the one taken.
            *place = MAIL[random.below(MAIL.len())].swap(*place, Ordering::AcqRel);
        } else {
            free(heap, *place, random);
            *place = ptr::null_mut();
        }
        if step % 1_000 == 0 {
            expect(heap.stats().held >= 4096, c"a heap without a page");
        }
    }
    held.into_iter().for_each(|block| free(heap, block, random));
}

/// Frees what nobody took, when the threads are gone; then nothing is left.
pub(crate) fn end(heap: &mut Heap) {
    let mut random = Random(1);
    for place in &MAIL {
        // ORDERING: as in `work`.
        free(heap, place.load(Ordering::Acquire), &mut random);
    }
    expect(heap.stats().blocks == 0, c"blocks of the heap are lost");
    expect(heap.verify().is_ok(), c"the heap is not sound");
    heap.reset();
}
