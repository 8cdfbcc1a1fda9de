//! How a heap's slabs and runs go from one to another: exchanges of one word, which races decide.
#![cfg_attr(not(loom), forbid(unsafe_code))]

use crate::sync::{AtomicU64, Ordering};

/// Takes a slab over whose owner gave it up or is gone, by its unit's word; `false` if another did.
pub(super) fn adopt(word: &AtomicU64, seen: u64, own: u64) -> bool {
    // ORDERING: acquire: pairs with `give_up`: what the last owner did to its bitmap is seen. Release: with `lives`, should
    // this one go soon.
    let adopted = word.compare_exchange(seen, own, Ordering::AcqRel, Ordering::Relaxed);
    adopted.is_ok()
}

/// Gives a slab up that is the caller's.
pub(super) fn give_up(word: &AtomicU64, nobodys: u64) {
    // ORDERING: release: pairs with `adopt`.
    word.store(nobodys, Ordering::Release);
}

/// Has a run, by the word of its head, be the caller's to give back; `false` for the second of two frees.
pub(super) fn take_run(word: &AtomicU64, head: u64, going: u64) -> bool {
    // ORDERING: acquire: pairs with the store of the head, before which its length was written.
    let taken = word.compare_exchange(head, going, Ordering::Acquire, Ordering::Relaxed);
    taken.is_ok()
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use std::vec::Vec;

    /// Words, and what they guard.
    struct Model {
        unit: AtomicU64,
        guarded: UnsafeCell<usize>,
    }

    // SAFETY: 1. the model checks the accesses.
    unsafe impl Sync for Model {}

    impl Model {
        fn new(unit: u64) -> Arc<Self> {
            Arc::new(Self {
                unit: AtomicU64::new(unit),
                guarded: UnsafeCell::new(0),
            })
        }

        fn add(&self) {
            // SAFETY: 1. the model checks the access.
            self.guarded.with_mut(|count| unsafe { *count += 1 });
        }
    }

    /// How often two threads that try at once come through, in all.
    fn try_both(
        model: &Arc<Model>,
        attempt: fn(&Model, u64) -> bool,
        meanwhile: impl FnOnce(),
    ) -> usize {
        let threads: Vec<_> = [2, 3]
            .map(|own| {
                let model = model.clone();
                loom::thread::spawn(move || attempt(&model, own))
            })
            .into();
        meanwhile();
        let came = threads.into_iter().map(|thread| thread.join().unwrap());
        came.filter(|came| *came).count()
    }

    fn expect_count(model: &Model, count: usize) {
        // SAFETY: 1. the model checks the access.
        assert_eq!(model.guarded.with(|count| unsafe { *count }), count);
    }

    /// Proves: a slab that its owner gives up while others look is one's at a time, who sees what the last one did. Fails
    /// with `Relaxed` in `give_up` or for `AcqRel` in `adopt`, and when `adopt` stores what it has to exchange.
    #[test]
    fn loom_a_slab_is_adopted_by_one() {
        const NOBODY: u64 = 0;
        loom::model(|| {
            let model = Model::new(1);
            let attempt = |model: &Model, own| {
                let adopted = adopt(&model.unit, NOBODY, own);
                if adopted {
                    model.add();
                    give_up(&model.unit, NOBODY);
                }
                adopted
            };
            let owner = || {
                model.add();
                give_up(&model.unit, NOBODY);
            };
            let count = try_both(&model, attempt, owner);
            assert!(adopt(&model.unit, NOBODY, 4));
            expect_count(&model, count + 1);
        });
    }

    /// Proves: of two frees of a block at once one gives its run back, and knows how long it is. Fails with `Relaxed` in
    /// `take_run`, and when that stores what it has to exchange.
    #[test]
    fn loom_a_run_is_given_back_once() {
        const HEAD: u64 = 1;
        loom::model(|| {
            let model = Model::new(0);
            let attempt = |model: &Model, own| {
                let taken = take_run(&model.unit, HEAD, own);
                if taken {
                    model.add();
                }
                taken
            };
            let user = || {
                model.add();
                // As a claim of units has it.
                model.unit.store(HEAD, Ordering::Release);
            };
            let count = try_both(&model, attempt, user);
            let last = take_run(&model.unit, HEAD, 4);
            assert_eq!(count + usize::from(last), 1);
            expect_count(&model, 1 + count);
        });
    }
}
