//! The sub-slabs of a part to which others gave blocks back: a stack that any thread pushes to and the owner takes
//! whole, so that it need not look at those that nobody touched.
//!
//! | the link of a sub-slab | means | who writes it |
//! |---|---|---|
//! | null | in no stack | the owner who took it from one |
//! | [`end`], or another | in a stack, or about to be | who changed it from null, alone |
//!
//! Who frees first sets the block's bit, then pushes the sub-slab if it is in no stack. The owner first takes it from
//! the stack, then writes null, then looks at its bits by a read-modify-write, as who sets one does. So the two come one
//! after the other: either the owner finds the bit, or who sets it comes after the null, finds that, and pushes again.
//!
//! A sub-slab may have become another part's, or unused, before it is pushed, as a block that is back is any owner's:
//! it is then in a stack of the part that it was read to belong to. Descriptors stay where they are as long as the
//! heap, so that this is a hint to the wrong one: who finds it there pushes it on.

use core::ptr::{self, NonNull};

use crate::sync::{AtomicPtr, Ordering};

/// What can lie in a stack.
pub(super) trait Linked: Sized {
    /// See above.
    fn link(&self) -> &AtomicPtr<Self>;
}

/// All zero is empty.
pub(super) struct Returned<T>(AtomicPtr<T>);

/// Behind the last of a stack.
fn end<T>() -> *mut T {
    ptr::without_provenance_mut(align_of::<T>())
}

impl<T: Linked> Returned<T> {
    /// Pushes a sub-slab unless it is in a stack.
    pub(super) fn push(&self, slab: &T) {
        let place = slab.link();
        // ORDERING: after the bit, which was set by an acquire: see above. Most often it is in a stack already, of which a
        // look alone tells. Acquire: who takes the link after the owner wrote null writes to it after that.
        if !place.load(Ordering::Relaxed).is_null()
            || place
                .compare_exchange(ptr::null_mut(), end(), Ordering::Acquire, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        let mut first = self.0.load(Ordering::Relaxed);
        loop {
            let next = if first.is_null() { end() } else { first };
            // ORDERING: this thread's alone until the exchange, which publishes it to `take_all`.
            place.store(next, Ordering::Relaxed);
            let pushed = ptr::from_ref(slab).cast_mut();
            match self
                .0
                .compare_exchange_weak(first, pushed, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(other) => first = other,
            }
        }
    }

    #[cfg(not(all(test, loom)))]
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        // ORDERING: a hint.
        self.0.load(Ordering::Relaxed).is_null()
    }

    /// Takes all from the stack, and shows each once it is in none. By the owner.
    pub(super) fn take_all(&self, mut show: impl FnMut(&T)) {
        // ORDERING: pairs with the release in `push`: the links are seen.
        let mut first = self.0.swap(ptr::null_mut(), Ordering::Acquire);
        while let Some(slab) = NonNull::new(first).filter(|slab| slab.as_ptr() != end()) {
            // SAFETY: 1. pushed as a descriptor, which lives as long as the heap's memory.
            let slab = unsafe { slab.as_ref() };
            // ORDERING: release: before what `show` does to its bits; pairs with the exchange in `push`. Acquire: the
            // store of the link in `push`, by way of `first`.
            first = slab.link().swap(ptr::null_mut(), Ordering::AcqRel);
            show(slab);
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::AtomicU32;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use std::boxed::Box;

    /// A sub-slab of two blocks, with their memory.
    struct Slab {
        link: AtomicPtr<Self>,
        returned: AtomicU32,
        memory: [UnsafeCell<u32>; 2],
    }

    // SAFETY: 1. the model checks the accesses to the memory.
    unsafe impl Sync for Slab {}
    // SAFETY: 1. as above.
    unsafe impl Send for Slab {}

    impl Linked for Slab {
        fn link(&self) -> &AtomicPtr<Self> {
            &self.link
        }
    }

    fn slab() -> &'static Slab {
        Box::leak(Box::new(Slab {
            link: AtomicPtr::new(ptr::null_mut()),
            returned: AtomicU32::new(0),
            memory: [UnsafeCell::new(0), UnsafeCell::new(0)],
        }))
    }

    /// As a user that is done with a block: writes, and gives it back.
    fn give_back(stack: &Returned<Slab>, slab: &Slab, block: usize) {
        // SAFETY: 1. the model checks the access.
        slab.memory[block].with_mut(|word| unsafe { *word += 1 });
        let before = slab.returned.fetch_or(1 << block, Ordering::AcqRel);
        assert_eq!(before & 1 << block, 0);
        stack.push(slab);
    }

    /// As the owner, which uses what it collects; how many blocks.
    fn collect(stack: &Returned<Slab>) -> u32 {
        let mut count = 0;
        stack.take_all(|slab| {
            let bits = slab.returned.fetch_or(0, Ordering::AcqRel);
            for block in (0..2).filter(|block| bits >> block & 1 != 0) {
                // SAFETY: 1. the model checks the access.
                slab.memory[block].with_mut(|word| unsafe { *word += 1 });
            }
            slab.returned.fetch_and(!bits, Ordering::Relaxed);
            count += bits.count_ones();
        });
        count
    }

    /// Proves: what others give back is found by the owner, each block once, and what its last user wrote is seen.
    /// Fails when the bit is set after the push, and when it is read before the null is written.
    #[test]
    fn loom_what_comes_back_is_found_once() {
        loom::model(|| {
            let stack = Arc::new(Returned(AtomicPtr::new(ptr::null_mut())));
            let (one, two) = (slab(), slab());
            let other: Arc<Returned<Slab>> = stack.clone();
            let thread = loom::thread::spawn(move || {
                give_back(&other, one, 0);
                give_back(&other, two, 0);
            });
            let early = collect(&stack);
            give_back(&stack, one, 1);
            thread.join().unwrap();
            assert_eq!(early + collect(&stack), 3);
        });
    }

    /// Proves the same for two that give back at once. Fails, too, when the bits are read by a load, or set or read with
    /// less than `AcqRel`.
    #[test]
    fn loom_of_two_at_once_one_pushes() {
        loom::model(|| {
            let stack = Arc::new(Returned(AtomicPtr::new(ptr::null_mut())));
            let one = slab();
            let threads = [0, 1].map(|block| {
                let stack: Arc<Returned<Slab>> = stack.clone();
                loom::thread::spawn(move || give_back(&stack, one, block))
            });
            let early = collect(&stack);
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(early + collect(&stack), 2);
        });
    }
}
