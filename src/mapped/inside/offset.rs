//! Places in a heap that do not depend on its address.

use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::marker::PhantomData;
use core::num::NonZeroU64;
use core::ptr::NonNull;

use crate::mapped::{Mapped, MappedError};

/// The place of a `T` in a heap, in bytes from the heap's base: what stands in records that must not depend on the
/// address. It owns nothing. `Option<Off<T>>` has eight bytes, too.
///
/// ```
/// use flagstone::mapped::{Box, Off};
/// use flagstone::Mapped;
///
/// let heap = Mapped::create(16 << 20)?;
/// let number = Box::leak(Box::new_in(7_u32, heap.handle()));
/// let place = Off::new(&heap, number)?;
/// // SAFETY: made from such a number, which nobody changes.
/// assert_eq!(unsafe { *place.resolve(&heap)?.as_ptr() }, 7);
/// # Ok::<(), flagstone::MappedError>(())
/// ```
#[repr(transparent)]
pub struct Off<T> {
    distance: NonZeroU64,
    /// Neither a `T` nor a reference to one.
    of: PhantomData<fn() -> T>,
}

static_assertions::assert_eq_size!(Option<Off<[u64; 100]>>, u64);

impl<T> Off<T> {
    /// The place that a pointer leads to.
    ///
    /// # Errors
    ///
    /// [`MappedError::Foreign`] if a `T` there is not wholly in the heap, behind its tables, or not aligned.
    pub fn new(heap: &Mapped, place: *const T) -> Result<Self, MappedError> {
        let area = &heap.attachment.area;
        // OVERFLOW: what lies before the base wraps to more than the heap has, which `check` sees.
        let distance = place.addr().wrapping_sub(area.base().addr().get());
        let found = NonZeroU64::new(distance as u64).ok_or(MappedError::Foreign)?;
        let off = Self {
            distance: found,
            of: PhantomData,
        };
        off.resolve(heap).map(|_| off)
    }

    /// Bytes from the heap's base.
    #[must_use]
    pub fn distance(self) -> u64 {
        self.distance.get()
    }

    /// Where that is in this process. Whether there is a `T` the caller has to know: the heap keeps no record of types.
    ///
    /// # Errors
    ///
    /// [`MappedError::Foreign`] as for [`new`](Self::new): it was made for another heap, or overwritten.
    pub fn resolve(self, heap: &Mapped) -> Result<NonNull<T>, MappedError> {
        let area = &heap.attachment.area;
        area.place_of::<T>(self.distance.get())
            .ok_or(MappedError::Foreign)
    }
}

impl<T> Clone for Off<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Off<T> {}

impl<T> PartialEq for Off<T> {
    fn eq(&self, other: &Self) -> bool {
        self.distance == other.distance
    }
}

impl<T> Eq for Off<T> {}

impl<T> PartialOrd for Off<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Off<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance.cmp(&other.distance)
    }
}

impl<T> Hash for Off<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.distance.hash(state);
    }
}

impl<T> fmt::Debug for Off<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Off({:#x})", self.distance)
    }
}
