//! Memory of this process, for a while: the library has no allocator of its own.

use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::error::MappedError;
use super::source::no_memory;
use crate::os::{self, Access, PageLen};

/// Words, zero at first.
pub(super) struct Buffer(&'static mut [u64]);

impl Buffer {
    /// One of so many bytes, whole pages.
    pub(super) fn new(bytes: usize) -> Result<Self, MappedError> {
        let page = PageLen::pages(1).bytes();
        let base = os::map(PageLen::kept(bytes), page, Access::Committed).ok_or(no_memory())?;
        let (base, length) = (base.cast().as_ptr(), bytes / size_of::<u64>());
        // SAFETY: 1. just mapped, aligned, zero, and the buffer's until that is dropped.
        Ok(Self(unsafe {
            core::slice::from_raw_parts_mut(base, length)
        }))
    }

    /// The same as bytes.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        let length = size_of_val(self.0);
        let mut bytes = NonNull::slice_from_raw_parts(NonNull::from(&mut *self.0).cast(), length);
        // SAFETY: 1. as long, and borrowed as long as this is. Any bytes are words.
        unsafe { bytes.as_mut() }
    }
}

impl Deref for Buffer {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u64] {
        self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let length = PageLen::kept(size_of_val(self.0));
        // SAFETY: 1. our own mapping, which nobody uses any more.
        let _ = unsafe { os::unmap(NonNull::from(&mut *self.0).cast(), length) };
    }
}
