//! Arrays for the harness' own bookkeeping, mapped directly: the allocator under test never sees
//! them, and every page of them is resident, so that they can be subtracted to the byte.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::slice;

use super::block::Block;

/// Types for which memory filled with zeros is a valid value, and which need no drop.
///
/// # Safety
/// 1. All bytes zero is a value of the type. 2. Its alignment is at most a page.
pub(crate) unsafe trait Zeroed: Copy {}

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
        Ok(Self {
            start,
            length,
            _owns: PhantomData,
        })
    }

    /// What the array adds to the resident size, but for the rounding up to a page.
    pub(crate) fn resident_kb(&self) -> u64 {
        (self.length * size_of::<T>()).div_ceil(1024) as u64
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

impl<T: Zeroed> Drop for MappedArray<T> {
    fn drop(&mut self) {
        // SAFETY: 1. the whole of a mapping that we own and nobody uses any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length * size_of::<T>()) };
    }
}
