//! A vector in a mapping of its own: the allocator under test never sees it.

use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::slice;

const PAGE: usize = 4096;

/// A vector of fixed capacity. Elements are not dropped: they are `Copy`.
#[derive(Debug)]
pub(crate) struct MappedVec<T: Copy> {
    start: NonNull<T>,
    length: usize,
    capacity: usize,
    _owns: PhantomData<T>,
}

// SAFETY: 1. the pointer is what blocks the auto trait; the mapping is this vector's alone.
unsafe impl<T: Copy + Send> Send for MappedVec<T> {}
// SAFETY: 1. as above; a shared vector is only read.
unsafe impl<T: Copy + Sync> Sync for MappedVec<T> {}

impl<T: Copy> MappedVec<T> {
    /// An empty vector; a page becomes resident when it is written.
    pub(crate) fn with_capacity(capacity: usize) -> io::Result<Self> {
        const { assert!(align_of::<T>() <= PAGE && size_of::<T>() > 0) };
        let bytes = capacity
            .checked_mul(size_of::<T>())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let start = if bytes == 0 {
            NonNull::dangling()
        } else {
            map(bytes)?.cast()
        };
        Ok(Self {
            start,
            length: 0,
            capacity,
            _owns: PhantomData,
        })
    }

    /// Adds an element. Panics when the vector is full.
    pub(crate) fn push(&mut self, value: T) {
        assert!(self.length < self.capacity, "a mapped vector does not grow");
        // SAFETY: 1. within the mapping, by the check above.
        let place = unsafe { self.start.add(self.length) };
        // SAFETY: 1. writable and aligned: the mapping begins at a page.
        unsafe { place.write(value) };
        self.length += 1;
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let last = self.last().copied()?;
        self.length -= 1;
        Some(last)
    }

    /// The mapping's bytes, in whole pages.
    pub(crate) fn mapped_bytes(&self) -> usize {
        (self.capacity * size_of::<T>()).next_multiple_of(PAGE)
    }
}

impl MappedVec<u8> {
    /// `length` zeros.
    pub(crate) fn zeroed(length: usize) -> io::Result<Self> {
        let mut bytes = Self::with_capacity(length)?;
        // A fresh mapping is zero.
        bytes.length = length;
        Ok(bytes)
    }
}

fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: 1. a fresh anonymous mapping, placed by the kernel, touches nothing else.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

impl<T: Copy> Deref for MappedVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: 1. the first `length` elements were written (or are zero bytes), and are owned by
        // `self`; when there are none the pointer is aligned.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T: Copy> DerefMut for MappedVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: 1. as in `deref`, and `self` is borrowed by nobody else.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl<T: Copy> Drop for MappedVec<T> {
    fn drop(&mut self) {
        let bytes = self.capacity * size_of::<T>();
        if bytes > 0 {
            // SAFETY: 1. the whole of a mapping that we own and nobody uses any more.
            unsafe { libc::munmap(self.start.as_ptr().cast(), bytes) };
        }
    }
}
