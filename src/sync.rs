//! Atomics, cells that a lock guards, and once-written links. `cfg(loom)` swaps the atomics for the
//! model checker's; nothing else in the crate names an atomic by another path.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// Cells whose reads and writes a lock orders; the field that holds one names the lock. They are
/// atomics only so that a reader without the lock (statistics, a child after `fork`, a check of an
/// untrusted pointer) reads some value instead of racing.
macro_rules! guarded {
    ($($name:ident: $atomic:ident = $value:ty),* $(,)?) => {$(
        #[doc = concat!("A `", stringify!($value), "` that a lock guards.")]
        #[derive(Debug)]
        #[repr(transparent)]
        pub(crate) struct $name(core::sync::atomic::$atomic);

        impl $name {
            #[inline(always)]
            pub(crate) fn get(&self) -> $value {
                // ORDERING: the guarding lock orders it; without the lock any value will do.
                self.0.load(core::sync::atomic::Ordering::Relaxed)
            }

            #[inline(always)]
            pub(crate) fn set(&self, value: $value) {
                // ORDERING: as in `get`.
                self.0.store(value, core::sync::atomic::Ordering::Relaxed);
            }
        }
    )*};
}

/// Cells that stand in statics; the others begin as zeroed metadata.
macro_rules! in_statics {
    ($($name:ident: $atomic:ident = $value:ty),* $(,)?) => {$(
        impl $name {
            pub(crate) const fn new(value: $value) -> Self {
                Self(core::sync::atomic::$atomic::new(value))
            }
        }
    )*};
}

in_statics! {
    GuardedU8: AtomicU8 = u8,
    GuardedU64: AtomicU64 = u64,
    GuardedUsize: AtomicUsize = usize,
}

guarded! {
    GuardedU8: AtomicU8 = u8,
    GuardedU16: AtomicU16 = u16,
    GuardedU64: AtomicU64 = u64,
    GuardedUsize: AtomicUsize = usize,
}

/// A link to something that is never unmapped. Written under a lock; a reader without it sees the
/// target's contents as they were when the link was set.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Link<T: 'static>(core::sync::atomic::AtomicPtr<T>);

impl<T: Sync> Link<T> {
    pub(crate) const fn none() -> Self {
        Self(core::sync::atomic::AtomicPtr::new(core::ptr::null_mut()))
    }

    pub(crate) fn get(&self) -> Option<&'static T> {
        // ORDERING: pairs with the release in `set`: what the target held then is visible.
        let target = self.0.load(core::sync::atomic::Ordering::Acquire);
        // SAFETY: 1. `set` stores only null and what was a `&'static T`.
        unsafe { target.as_ref() }
    }

    /// Sets the link if it leads nowhere yet; whether it did.
    pub(crate) fn set_first(&self, target: &'static T) -> bool {
        let none = core::ptr::null_mut();
        let target = core::ptr::from_ref(target).cast_mut();
        use core::sync::atomic::Ordering;
        // ORDERING: publishes the target's contents to `get`; a loser reads the winner's by `get`.
        self.0
            .compare_exchange(none, target, Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }

    pub(crate) fn set(&self, target: Option<&'static T>) {
        let target = target.map_or(core::ptr::null_mut(), |target| {
            core::ptr::from_ref(target).cast_mut()
        });
        // ORDERING: publishes the target's contents to `get`.
        self.0.store(target, core::sync::atomic::Ordering::Release);
    }
}

/// Whether two links lead to the same thing.
pub(crate) fn same<T>(left: Option<&T>, right: &T) -> bool {
    left.is_some_and(|left| core::ptr::eq(left, right))
}
