//! What the rows use: heaps of several makers, by one interface.

use core::alloc::Layout;
use std::alloc::{alloc, dealloc, handle_alloc_error};
use std::hint::black_box;

use bumpalo::Bump;
use flagstone::allocator_api2::alloc::Allocator;
use flagstone::{Handle, Heap, Mapped};
use libmimalloc_sys as mi;

/// A heap that a row makes, uses and drops.
pub(crate) trait Contestant: Sync + Sized {
    /// Its name in the table.
    const NAME: &'static str;
    /// Whether blocks go back one by one.
    const FREES: bool = true;
    /// Whether several threads may use one.
    const SHARES: bool = true;
    /// Whether a drop takes what is left in it.
    const TAKES_ALL: bool = true;
    /// Whether blocks go back one by one, and heaps are made and dropped by the thousand: those over mappings keep their
    /// addresses.
    const REMAKES: bool = Self::FREES;
    /// For rows that any can run.
    const ANY: bool = true;

    fn new() -> Self;
    fn alloc(&self, layout: Layout) -> *mut u8;
    /// # Safety
    /// 1. The block is live, of this heap and this layout, and not used any more.
    unsafe fn free(&self, block: *mut u8, layout: Layout);
}

/// Ends the program: a row without memory measures nothing.
fn expect(block: *mut u8, layout: Layout) -> *mut u8 {
    if block.is_null() {
        handle_alloc_error(layout);
    }
    block
}

/// The layout of so many bytes.
pub(crate) fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

impl Contestant for Heap {
    const NAME: &'static str = "heap";

    fn new() -> Self {
        Heap::new().expect("memory")
    }

    #[inline]
    fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = (&self).allocate(layout).expect("memory");
        block.cast().as_ptr()
    }

    #[inline]
    unsafe fn free(&self, block: *mut u8, layout: Layout) {
        let block = core::ptr::NonNull::new(block).expect("a block");
        // SAFETY: 1. our own.
        unsafe { (&self).deallocate(block, layout) }
    }
}

/// A heap in memory that processes share, of which this is the only one here.
pub(crate) struct Shared {
    heap: Mapped,
    handle: Handle,
}

impl Contestant for Shared {
    const NAME: &'static str = "mapped";
    const TAKES_ALL: bool = false;
    const REMAKES: bool = false;
    const ANY: bool = false;

    fn new() -> Self {
        let heap = Mapped::create(4 << 30).expect("a heap");
        let handle = heap.handle();
        Self { heap, handle }
    }

    #[inline]
    fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = self.handle.allocate(layout).expect("memory");
        block.cast().as_ptr()
    }

    #[inline]
    unsafe fn free(&self, block: *mut u8, layout: Layout) {
        let block = core::ptr::NonNull::new(block).expect("a block");
        // SAFETY: 1. our own.
        unsafe { self.handle.deallocate(block, layout) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: 1. a row's threads are gone, and nobody uses its blocks any more.
        unsafe { self.heap.close() }.expect("not closed yet");
    }
}

/// The global allocator, which is flagstone.
pub(crate) struct Global;

impl Contestant for Global {
    const NAME: &'static str = "global";
    const TAKES_ALL: bool = false;

    fn new() -> Self {
        Self
    }

    #[inline]
    fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: 1. no row asks for 0 bytes.
        expect(unsafe { alloc(layout) }, layout)
    }

    #[inline]
    unsafe fn free(&self, block: *mut u8, layout: Layout) {
        // SAFETY: 1. our own.
        unsafe { dealloc(block, layout) }
    }
}

/// A heap of mimalloc 3.
pub(crate) struct MiHeap(*mut mi::mi_heap_t);

// SAFETY: 1. any thread may allocate in a heap of mimalloc 3, and free.
unsafe impl Sync for MiHeap {}

impl Contestant for MiHeap {
    const NAME: &'static str = "mimalloc";

    fn new() -> Self {
        // SAFETY: 1. no preconditions.
        let heap = unsafe { mi::mi_heap_new() };
        assert!(!heap.is_null(), "memory");
        Self(heap)
    }

    #[inline]
    fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: 1. the heap is there; blocks are aligned to 8 bytes at least.
        expect(
            unsafe { mi::mi_heap_malloc(self.0, layout.size()) }.cast(),
            layout,
        )
    }

    #[inline]
    unsafe fn free(&self, block: *mut u8, _: Layout) {
        // SAFETY: 1. our own.
        unsafe { mi::mi_free(block.cast()) }
    }
}

impl Drop for MiHeap {
    fn drop(&mut self) {
        // SAFETY: 1. the heap is there, and nobody uses its blocks any more.
        unsafe { mi::mi_heap_destroy(self.0) }
    }
}

/// An arena, which takes nothing back before it is dropped.
pub(crate) struct Arena(Bump);

// SAFETY: 1. no row shares it: `SHARES` is false.
unsafe impl Sync for Arena {}

impl Contestant for Arena {
    const NAME: &'static str = "bumpalo";
    const FREES: bool = false;
    const SHARES: bool = false;

    fn new() -> Self {
        Self(Bump::new())
    }

    #[inline]
    fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.alloc_layout(layout).as_ptr()
    }

    #[inline]
    unsafe fn free(&self, block: *mut u8, _: Layout) {
        black_box(block);
    }
}
