//! A value that processes share, and that goes with the last who has it.

use core::fmt;
use core::marker::PhantomData;
use core::mem::offset_of;
use core::ops::Deref;
use core::ptr::{self, NonNull};

use super::Box;
use super::count::Count;
use super::persist::{Persist, Visit, shape_behind};
use super::shape::Shape;
use crate::mapped::{Handle, MappedError};

/// A value in a heap over a mapping, with a count of those who have it, in any process. It has eight bytes, and can lie in
/// the heap itself. The last that is dropped frees the value, there.
///
/// What a process had that was killed stays counted: its values stay. A forked child has copies of its parent's that nobody
/// counted: it must not drop them, nor use them once the parent may have.
///
/// ```
/// use flagstone::mapped::Arc;
/// use flagstone::Mapped;
///
/// let heap = Mapped::create(16 << 20)?;
/// let words = Arc::try_new_in([1, 2, 3], heap.handle())?;
/// let same = Arc::clone(&words);
/// assert_eq!((same[2], Arc::count(&words)), (3, 2));
/// # Ok::<(), flagstone::MappedError>(())
/// ```
#[repr(transparent)]
pub struct Arc<T> {
    inner: NonNull<Inner<T>>,
    /// It may drop one.
    owns: PhantomData<Inner<T>>,
}

#[repr(C)]
struct Inner<T> {
    count: Count,
    handle: Handle,
    value: T,
}

// SAFETY: 1. `inner` is shared, and dropped by any one of those who have it: the value is both sent and shared.
unsafe impl<T: Send + Sync> Send for Arc<T> {}
// SAFETY: 1. as above.
unsafe impl<T: Send + Sync> Sync for Arc<T> {}

impl<T> Arc<T> {
    /// Moves a value into the heap.
    ///
    /// # Errors
    ///
    /// [`MappedError::NoSpace`]. The value is dropped.
    pub fn try_new_in(value: T, handle: Handle) -> Result<Self, MappedError> {
        let inner = Inner {
            count: Count::one(),
            handle,
            value,
        };
        let inner = Box::try_new_in(inner, handle).map_err(|_| MappedError::NoSpace)?;
        Ok(Self {
            inner: NonNull::from(Box::leak(inner)),
            owns: PhantomData,
        })
    }

    fn inner(&self) -> &Inner<T> {
        // SAFETY: 1. there until the last is dropped; nothing of it but the value changes, by `get_mut`.
        unsafe { self.inner.as_ref() }
    }

    /// How many have the value, those of killed processes included.
    #[must_use]
    pub fn count(this: &Self) -> u64 {
        this.inner().count.get()
    }

    /// Whether two are of one value.
    #[must_use]
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        ptr::eq(this.inner.as_ptr(), other.inner.as_ptr())
    }

    /// The value, if nobody else has it.
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        if !this.inner().count.is_one() {
            return None;
        }
        // SAFETY: 1. nobody else has it, and this one is borrowed.
        Some(unsafe { &mut this.inner.as_mut().value })
    }
}

impl<T> Clone for Arc<T> {
    /// Counts one more.
    fn clone(&self) -> Self {
        self.inner().count.add();
        Self {
            inner: self.inner,
            owns: PhantomData,
        }
    }
}

impl<T> Drop for Arc<T> {
    fn drop(&mut self) {
        if self.inner().count.sub() {
            let handle = self.inner().handle;
            // SAFETY: 1. the last: nobody else has it, nor will.
            drop(unsafe { Box::from_raw_in(self.inner.as_ptr(), handle) });
        }
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner().value
    }
}

impl<T: fmt::Debug> fmt::Debug for Arc<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, out)
    }
}

// SAFETY: 1. the address of a block of the heap. 2. where the value lies there, and its shape. 3. the block, and those of the
// value.
unsafe impl<T: Persist> Persist for Arc<T> {
    fn shape(depth: u32) -> u64 {
        let shape = Shape::of::<Self>("Arc").with(offset_of!(Inner<T>, value) as u64);
        shape.with(shape_behind::<T>(depth)).number()
    }

    unsafe fn visit(&self, visit: &mut Visit<'_>) {
        if visit(self.inner.cast()) {
            // SAFETY: 1. the caller's.
            unsafe { (**self).visit(visit) };
        }
    }
}
