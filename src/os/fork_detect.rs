//! A word that a fork changes: it lies on a page that the kernel wipes in children.
//!
//! | value | means | who writes it |
//! |---|---|---|
//! | `CHILD` | forked, not yet repaired | the kernel, by wiping the page |
//! | `RECOVERING` | one thread repairs, the others wait | the thread that changed it from `CHILD` |
//! | `OWN` | go on | the initialisation; the thread that repaired |
#![cfg_attr(not(loom), forbid(unsafe_code))]

use crate::sync::{AtomicU32, Ordering};

const CHILD: u32 = 0;
const OWN: u32 = 1;
const RECOVERING: u32 = 2;

/// The word. All zero is that of a child.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct ForkWord(AtomicU32);

impl ForkWord {
    /// This process is no child, or a child repaired.
    pub(crate) fn own(&self) {
        // ORDERING: publishes the repairs to threads that wait in `pass`, or have yet to pass.
        self.0.store(OWN, Ordering::Release);
    }

    /// What the kernel does in a child, where it can.
    pub(crate) fn wipe(&self) {
        // ORDERING: the child has one thread.
        self.0.store(CHILD, Ordering::Relaxed);
    }

    /// In a child that is not repaired, runs `recover` on one thread and has the others wait with
    /// `rest`; then, and otherwise, goes on.
    #[inline]
    pub(crate) fn pass(&self, recover: impl FnOnce(), rest: impl Fn()) {
        // ORDERING: pairs with the release in `own`.
        if self.0.load(Ordering::Acquire) != OWN {
            self.repair(recover, rest);
        }
    }

    #[cold]
    fn repair(&self, recover: impl FnOnce(), rest: impl Fn()) {
        // ORDERING: the winner is alone until its release in `own`; losers wait for that.
        let won = self
            .0
            .compare_exchange(CHILD, RECOVERING, Ordering::Relaxed, Ordering::Relaxed);
        if won.is_ok() {
            recover();
            return self.own();
        }
        // ORDERING: pairs with the release in `own`.
        while self.0.load(Ordering::Acquire) != OWN {
            rest();
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use std::vec::Vec;

    /// Proves: of threads that enter a child at once, one repairs, and none goes on before it sees
    /// all of the repair. Fails with `Relaxed` in `own` or in either load of `pass`.
    #[test]
    fn loom_one_thread_repairs_and_all_see_it() {
        loom::model(|| {
            let word = Arc::new(ForkWord(AtomicU32::new(CHILD)));
            let repaired = Arc::new(UnsafeCell::new(0));
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let (word, repaired) = (word.clone(), repaired.clone());
                    loom::thread::spawn(move || {
                        // SAFETY: 1. the model checks the access, here and below.
                        let repair = || repaired.with_mut(|count| unsafe { *count += 1 });
                        word.pass(repair, loom::thread::yield_now);
                        assert_eq!(repaired.with(|count| unsafe { *count }), 1);
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }
}
