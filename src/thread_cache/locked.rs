//! The gate of a thread's cache. What needs the gate is a method of [`LockedCache`], which only the
//! gate's holder has.

use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr;

use static_assertions::const_assert;

use super::ThreadCache;
use super::tls::{self, EMPTY};
use crate::size_class::{CLASSES, SizeClass};

/// A cache whose gate is held: nobody else changes it, or reads what the gate guards, during `'a`.
#[derive(Clone, Copy)]
pub(crate) struct LockedCache<'a> {
    pub(super) cache: &'static ThreadCache,
    gate: PhantomData<&'a ()>,
}

/// Holds a cache's gate until it is dropped.
#[must_use]
pub(crate) struct CacheGuard(&'static ThreadCache);

/// [`ThreadCache::busy`] when no slow path runs.
const NO_CLASS: u8 = u8::MAX;
const_assert!(CLASSES < NO_CLASS as usize);

impl ThreadCache {
    /// Takes the gate.
    #[inline]
    pub(crate) fn lock(&'static self) -> CacheGuard {
        // The guard unlocks by itself: one word, not two.
        let _held = ManuallyDrop::new(self.gate.lock());
        CacheGuard(self)
    }

    /// Whether some thread holds the gate.
    pub(crate) fn is_locked(&self) -> bool {
        self.gate.is_locked()
    }

    /// Lets the gate go.
    ///
    /// # Safety
    /// 1. This thread holds it, by a guard that it [kept locked](CacheGuard::keep_locked).
    pub(crate) unsafe fn unlock(&self) {
        // SAFETY: 1. `lock` forgets the lock's own guard, and `keep_locked` ours.
        unsafe { self.gate.force_unlock() };
    }

    /// In a child of `fork`: opens the gate if a thread of the parent held it.
    pub(crate) fn break_gate(&self) {
        self.gate.break_inherited();
    }

    /// The cache as the holder of its gate has it, without the gate.
    ///
    /// # Safety
    /// 1. While the value is used, no other thread changes the cache: this thread keeps it locked,
    ///    or no thread has the cache and this one holds the registry's lock or took it out of the
    ///    registry.
    pub(crate) unsafe fn assume_locked<'a>(&'static self) -> LockedCache<'a> {
        LockedCache {
            cache: self,
            gate: PhantomData,
        }
    }

    /// The class whose magazine may be half changed.
    pub(crate) fn busy_with(&self) -> Option<SizeClass> {
        let busy = usize::from(self.busy.get());
        (busy < CLASSES).then(|| SizeClass::new(busy))
    }
}

impl CacheGuard {
    /// What only the holder may do.
    #[inline]
    pub(crate) fn cache(&self) -> LockedCache<'_> {
        LockedCache {
            cache: self.0,
            gate: PhantomData,
        }
    }

    /// Does not let the gate go.
    pub(crate) fn keep_locked(self) {
        let _held = ManuallyDrop::new(self);
    }
}

impl Drop for CacheGuard {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: 1. `lock` took the gate for this guard, which nothing else lets go.
        unsafe { self.0.unlock() };
    }
}

impl Deref for LockedCache<'_> {
    type Target = ThreadCache;

    #[inline]
    fn deref(&self) -> &ThreadCache {
        self.cache
    }
}

impl LockedCache<'_> {
    /// The cache itself, for who lets the gate go and comes back to it.
    pub(crate) fn whole(self) -> &'static ThreadCache {
        self.cache
    }

    /// Notes which magazine may be half changed from here on.
    pub(crate) fn work_on(self, class: SizeClass) {
        #[expect(clippy::cast_possible_truncation, reason = "CLASSES is below NO_CLASS")]
        self.busy.set(class.index() as u8);
    }

    /// Notes that all magazines are whole.
    pub(crate) fn end_work(self) {
        self.busy.set(NO_CLASS);
    }

    /// Brings the calling thread, whose cache this is, back to its fast paths, if it was diverted.
    pub(crate) fn come_back(self) {
        self.stir();
        // Others write the words under the gate.
        tls::words().lead_to(ptr::from_ref(self.cache).cast_mut().cast());
    }

    /// Sends the calling thread, whose cache this is, to the slow paths from here on.
    pub(crate) fn step_aside(self) {
        self.stir();
        let empty = (&raw const EMPTY).cast::<u8>().cast_mut();
        // Others write the words under the gate.
        tls::words().lead_to(empty);
    }
}
