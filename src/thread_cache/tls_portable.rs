//! As `tls`, by the standard library's means: for Miri, which runs no assembly, and for checks of all
//! that lies above. An indirect call in some profiles, hence not for programs.

extern crate std;

use core::ptr::{self, null_mut};

pub(crate) use super::tls_words::{EMPTY, Words};
use crate::sync::{AtomicPtr, Ordering};

std::thread_local! {
    // Constant and without a destructor: there from the thread's first instruction to its last.
    static WORDS: Words = const {
        Words {
            alloc: AtomicPtr::new((&raw const EMPTY).cast::<u8>().cast_mut()),
            free: AtomicPtr::new((&raw const EMPTY).cast::<u8>().cast_mut()),
            own: AtomicPtr::new(null_mut()),
            hardened: AtomicPtr::new((&raw const EMPTY).cast::<u8>().cast_mut()),
            #[cfg(feature = "heaps")]
            heaps: super::tls_words::HeapWords::new(),
        }
    };
}

/// The thread's `alloc` word plus `offset`.
pub(crate) fn alloc_at(offset: usize) -> *mut u8 {
    // ORDERING: this thread's own word.
    words().alloc.load(Ordering::Relaxed).wrapping_add(offset)
}

/// The thread's `free` word plus `offset`.
pub(crate) fn free_at(offset: usize) -> *mut u8 {
    // ORDERING: this thread's own word.
    words().free.load(Ordering::Relaxed).wrapping_add(offset)
}

/// The thread's words. They stay where they are until the thread ends.
pub(crate) fn words() -> &'static Words {
    let words = WORDS.with(ptr::from_ref);
    // SAFETY: 1. static storage of this thread; the reference is used by this thread, or under the
    // registry's lock while the thread is in the registry.
    unsafe { &*words }
}
