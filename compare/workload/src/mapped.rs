//! Arrays for the harness' own bookkeeping, mapped directly: the allocator under test never sees
//! them, and every page of them is resident, so that they can be subtracted to the byte.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::block::Block;

const PAGE: usize = 4096;

/// Bytes of all arrays there are, in whole pages.
// ORDERING: relaxed everywhere; a count that publishes nothing.
static TOTAL: AtomicUsize = AtomicUsize::new(0);

/// What all arrays add to the resident size and to the committed size of the process.
pub(crate) fn total_kb() -> u64 {
    (TOTAL.load(Ordering::Relaxed) / 1024) as u64
}

/// Types for which memory filled with zeros is a valid value. Elements are not dropped.
///
/// # Safety
/// 1. All bytes zero is a value of the type. 2. Its alignment is at most a page.
pub(crate) unsafe trait Zeroed {}

// SAFETY: 1. every pattern is a u64. 2. aligned to 8.
unsafe impl Zeroed for u64 {}

// SAFETY: 1. a block is a `NonNull`, so zero is `None`. 2. aligned to 8.
unsafe impl Zeroed for Option<Block> {}

pub(crate) struct MappedArray<T: Zeroed> {
    start: NonNull<T>,
    length: usize,
    _owns: PhantomData<T>,
}

impl<T: Zeroed> MappedArray<T> {
    /// An array of zeros, all its pages resident.
    pub(crate) fn new(length: usize) -> Result<Self, &'static str> {
        assert!(length > 0, "a mapping is not empty");
        // SAFETY: 1. a fresh anonymous mapping, placed by the kernel, touches nothing else.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length * size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err("no memory for the harness' own array");
        }
        let start = NonNull::new(address.cast::<T>()).ok_or("the mapping is at address zero")?;
        // SAFETY: 1. the mapping has this length. 2. zeros are a value (`Zeroed`).
        unsafe { start.write_bytes(0, length) };
        let array = Self {
            start,
            length,
            _owns: PhantomData,
        };
        TOTAL.fetch_add(array.whole_pages(), Ordering::Relaxed);
        Ok(array)
    }

    fn whole_pages(&self) -> usize {
        (self.length * size_of::<T>()).next_multiple_of(PAGE)
    }
}

impl<T: Zeroed> Deref for MappedArray<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: 1. `length` values, all initialised, owned by `self`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T: Zeroed> DerefMut for MappedArray<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: 1. `length` values, all initialised, owned by `self` alone.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl<T: Zeroed> AsMut<[T]> for MappedArray<T> {
    fn as_mut(&mut self) -> &mut [T] {
        self
    }
}

impl<T: Zeroed> Drop for MappedArray<T> {
    fn drop(&mut self) {
        TOTAL.fetch_sub(self.whole_pages(), Ordering::Relaxed);
        // SAFETY: 1. the whole of a mapping that we own and nobody uses any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length * size_of::<T>()) };
    }
}
