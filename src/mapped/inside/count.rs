//! How many share a value.

use crate::sync::{AtomicU64, Ordering};

/// More than there can be: a count beyond it stays there, and the value, too, instead of beginning again at 0.
const MOST: u64 = 1 << 62;
/// As far from both ends as can be.
const STUCK: u64 = MOST + MOST / 2;

#[repr(transparent)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn one() -> Self {
        Self(AtomicU64::new(1))
    }

    /// One more.
    pub(super) fn add(&self) {
        // ORDERING: who adds has one already, so that the count is not 0.
        if self.0.fetch_add(1, Ordering::Relaxed) >= MOST {
            self.0.store(STUCK, Ordering::Relaxed);
        }
    }

    /// One less; whether that was the last, to whom the value is left.
    pub(super) fn sub(&self) -> bool {
        // ORDERING: release: what this one did with the value comes before its end. Acquire: what all others did.
        self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Whether there is but one.
    pub(super) fn is_one(&self) -> bool {
        // ORDERING: acquire: pairs with `sub` of the others.
        self.0.load(Ordering::Acquire) == 1
    }

    pub(super) fn get(&self) -> u64 {
        // ORDERING: a look.
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_count_does_not_begin_again() {
        let count = Count(AtomicU64::new(MOST - 1));
        count.add();
        assert_eq!(count.get(), MOST);
        count.add();
        assert_eq!(count.get(), STUCK);
        assert!((0..100).all(|_| !count.sub()));
        count.add();
        assert_eq!(count.get(), STUCK);
        let count = Count::one();
        count.add();
        assert!(!count.sub() && count.is_one() && count.sub());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use std::boxed::Box;

    struct Model {
        count: Count,
        value: UnsafeCell<u32>,
    }

    // SAFETY: 1. the model checks the accesses to the cell.
    unsafe impl Sync for Model {}

    /// Proves: of those who share a value one is the last, after all others have looked at it. Fails with a release in `sub`
    /// that does not acquire, or an acquire that does not release.
    #[test]
    fn loom_the_last_has_the_value_alone() {
        loom::model(|| {
            let model: &Model = Box::leak(Box::new(Model {
                count: Count::one(),
                value: UnsafeCell::new(0),
            }));
            let end = move || {
                // SAFETY: 1. the model checks the access, here and below.
                model.value.with(|value| unsafe { *value });
                let is_last = model.count.sub();
                if is_last {
                    model.value.with_mut(|value| unsafe { *value = 1 });
                }
                u32::from(is_last)
            };
            model.count.add();
            let other = loom::thread::spawn(end);
            let last = end() + other.join().unwrap();
            assert_eq!(last, 1);
        });
    }
}
