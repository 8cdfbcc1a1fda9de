//! What the rows use: heaps that forked children share, by one interface.

use core::alloc::Layout;
use core::ptr::NonNull;

use flagstone::allocator_api2::alloc::Allocator;
use flagstone::{Handle, Mapped};

/// Bytes of a heap.
const CAPACITY: usize = 1 << 30;

/// A heap that processes share.
pub(crate) trait Contestant: Sized {
    /// Its name in the table.
    const NAME: &'static str;

    fn new() -> Self;
    fn alloc(&self, size: usize) -> *mut u8;
    /// # Safety
    /// 1. The block is live, of this heap and so long, and not used any more.
    unsafe fn free(&self, block: *mut u8, size: usize);
}

/// Ours.
pub(crate) struct Flagstone {
    heap: Mapped,
    handle: Handle,
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

impl Contestant for Flagstone {
    const NAME: &'static str = "flagstone";

    fn new() -> Self {
        let heap = Mapped::create(CAPACITY).expect("a heap");
        let handle = heap.handle();
        Self { heap, handle }
    }

    #[inline]
    fn alloc(&self, size: usize) -> *mut u8 {
        let block = self.handle.allocate(layout(size)).expect("memory");
        block.cast().as_ptr()
    }

    #[inline]
    unsafe fn free(&self, block: *mut u8, size: usize) {
        let block = NonNull::new(block).expect("a block");
        // SAFETY: 1. our own.
        unsafe { self.handle.deallocate(block, layout(size)) }
    }
}

impl Drop for Flagstone {
    fn drop(&mut self) {
        // SAFETY: 1. a row's children are gone, and this process has one thread.
        unsafe { self.heap.close() }.expect("not closed yet");
    }
}

/// A segment of Boost.Interprocess.
#[cfg(boost)]
pub(crate) struct Boost(NonNull<core::ffi::c_void>);

#[cfg(boost)]
mod boost {
    use core::ffi::{c_char, c_void};

    unsafe extern "C" {
        pub(super) fn boost_create(name: *const c_char, bytes: usize) -> *mut c_void;
        pub(super) fn boost_allocate(segment: *mut c_void, bytes: usize) -> *mut u8;
        pub(super) fn boost_deallocate(segment: *mut c_void, block: *mut u8);
        pub(super) fn boost_destroy(segment: *mut c_void);
    }
}

#[cfg(boost)]
impl Contestant for Boost {
    const NAME: &'static str = "boost";

    fn new() -> Self {
        let name = format!("flagstone-compare-{}\0", std::process::id());
        let name = core::ffi::CStr::from_bytes_with_nul(name.as_bytes()).expect("one zero");
        // SAFETY: 1. a C string.
        let segment = unsafe { boost::boost_create(name.as_ptr(), CAPACITY / 4) };
        Self(NonNull::new(segment).expect("a segment"))
    }

    #[inline]
    fn alloc(&self, size: usize) -> *mut u8 {
        // SAFETY: 1. the segment is there.
        let block = unsafe { boost::boost_allocate(self.0.as_ptr(), size) };
        assert!(!block.is_null(), "memory");
        block
    }

    #[inline]
    unsafe fn free(&self, block: *mut u8, _: usize) {
        // SAFETY: 1. our own.
        unsafe { boost::boost_deallocate(self.0.as_ptr(), block) }
    }
}

#[cfg(boost)]
impl Drop for Boost {
    fn drop(&mut self) {
        // SAFETY: 1. the segment is there, and nobody uses it any more.
        unsafe { boost::boost_destroy(self.0.as_ptr()) }
    }
}
