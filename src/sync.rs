//! Atomics, cells that a lock guards, and links. The models' builds swap the atomics for the model
//! checker's; nothing else in the crate names an atomic by another path.

use core::ops::Deref;
use core::ptr::{self, NonNull};

#[cfg(not(all(test, loom)))]
pub(crate) use core::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(all(test, loom))]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// A place that holds a block's address or null: a slot of a magazine.
pub(crate) type Slot = AtomicPtr<u8>;

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
    GuardedU32: AtomicU32 = u32,
    GuardedU64: AtomicU64 = u64,
    GuardedUsize: AtomicUsize = usize,
}

#[cfg(feature = "heaps")]
in_statics! {
    GuardedU16: AtomicU16 = u16,
}

guarded! {
    GuardedU8: AtomicU8 = u8,
    GuardedU16: AtomicU16 = u16,
    GuardedU32: AtomicU32 = u32,
    GuardedU64: AtomicU64 = u64,
    GuardedUsize: AtomicUsize = usize,
}

/// What threads write often, on lines of its own: each write takes the line from the caches of all others, with whatever
/// lies beside. Processors fetch lines in pairs.
#[repr(align(128))]
pub(crate) struct OwnLines<T>(pub(crate) T);

impl<T> Deref for OwnLines<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// A pointer that a lock guards, as the cells above.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct GuardedPtr<T>(core::sync::atomic::AtomicPtr<T>);

impl<T> GuardedPtr<T> {
    pub(crate) const fn null() -> Self {
        Self(core::sync::atomic::AtomicPtr::new(ptr::null_mut()))
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> Option<NonNull<T>> {
        // ORDERING: the guarding lock orders it.
        NonNull::new(self.0.load(core::sync::atomic::Ordering::Relaxed))
    }

    #[inline(always)]
    pub(crate) fn set(&self, target: Option<NonNull<T>>) {
        let target = target.map_or(ptr::null_mut(), NonNull::as_ptr);
        // ORDERING: as in `get`.
        self.0.store(target, core::sync::atomic::Ordering::Relaxed);
    }
}

/// A link to something that is never unmapped. Written under a lock, or once; a reader without the
/// lock sees the target's contents as they were when the link was set.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Link<T: 'static>(AtomicPtr<T>);

impl<T: Sync> Link<T> {
    #[cfg(not(all(test, loom)))]
    pub(crate) const fn none() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    pub(crate) fn get(&self) -> Option<&'static T> {
        // ORDERING: pairs with the releases in `set` and `set_first`: what the target held then is
        // visible.
        let target = self.0.load(Ordering::Acquire);
        // SAFETY: 1. the setters store only null and what was a `&'static T`.
        unsafe { target.as_ref() }
    }

    pub(crate) fn set(&self, target: Option<&'static T>) {
        let target = target.map_or(ptr::null_mut(), |target| ptr::from_ref(target).cast_mut());
        // ORDERING: publishes the target's contents to `get`.
        self.0.store(target, Ordering::Release);
    }

    /// Sets the link if it leads nowhere yet; whether it did.
    pub(crate) fn set_first(&self, target: &'static T) -> bool {
        let target = ptr::from_ref(target).cast_mut();
        // ORDERING: publishes the target's contents to `get`, by which a loser reads the winner's.
        self.0
            .compare_exchange(
                ptr::null_mut(),
                target,
                Ordering::Release,
                Ordering::Relaxed,
            )
            .is_ok()
    }
}

/// Whether a link leads to `right`.
pub(crate) fn same<T>(left: Option<&T>, right: &T) -> bool {
    left.is_some_and(|left| ptr::eq(left, right))
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use std::boxed::Box;
    use std::vec::Vec;

    struct Table(UnsafeCell<usize>);

    // SAFETY: 1. the model checks the accesses to the cell.
    unsafe impl Sync for Table {}

    /// Proves: who follows a link finds its target as it was when the link was set. Fails with `Relaxed`
    /// in `get` or `set`.
    #[test]
    fn loom_what_a_link_leads_to_is_whole() {
        loom::model(|| {
            let link = Arc::new(Link(AtomicPtr::new(ptr::null_mut())));
            let other: Arc<Link<Table>> = link.clone();
            let writer = loom::thread::spawn(move || {
                let table = Box::leak(Box::new(Table(UnsafeCell::new(0))));
                // SAFETY: 1. the model checks the access, here and below.
                table.0.with_mut(|value| unsafe { *value = 1 });
                other.set(Some(table));
            });
            if let Some(table) = link.get() {
                assert_eq!(table.0.with(|value| unsafe { *value }), 1);
            }
            writer.join().unwrap();
        });
    }

    /// Proves: threads that make the same table at once agree on one, and each sees all of it.
    /// Fails with `Relaxed` in `get`, or for the success of `set_first`.
    #[test]
    fn loom_one_table_is_first_and_whole() {
        loom::model(|| {
            let link = Arc::new(Link(AtomicPtr::new(ptr::null_mut())));
            let threads: Vec<_> = (1..3)
                .map(|mark| {
                    let link: Arc<Link<Table>> = link.clone();
                    loom::thread::spawn(move || {
                        if link.get().is_none() {
                            let table = Box::leak(Box::new(Table(UnsafeCell::new(0))));
                            // SAFETY: 1. the model checks the access, here and below.
                            table.0.with_mut(|value| unsafe { *value = mark });
                            link.set_first(table);
                        }
                        let table = link.get().expect("set by one of the two");
                        table.0.with(|value| unsafe { *value })
                    })
                })
                .collect();
            let marks: Vec<_> = threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect();
            assert!(marks[0] == marks[1] && marks[0] != 0);
        });
    }
}
