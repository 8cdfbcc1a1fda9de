//! Forks: whether this process is a child that is not repaired yet, and how many forks there were before it.

use core::num::NonZeroU32;

use super::fork_detect::ForkWord;
use super::lock_word::Token;
use super::{Access, PageLen, imp, unmap};
use crate::sync::{AtomicPtr, AtomicU32, Ordering};

/// The word that tells a forked child, on a page of its own; null before [`watch_forks`].
static FORK_WORD: AtomicPtr<ForkWord> = AtomicPtr::new(core::ptr::null_mut());

/// Makes [`after_fork`] work; `false` without memory for it. Threads may do this at the same time.
#[must_use]
pub(crate) fn watch_forks() -> bool {
    let page = PageLen::pages(1);
    let Some(base) = imp::map(page, page.bytes(), Access::Committed) else {
        return false;
    };
    let word = base.cast::<ForkWord>();
    // SAFETY: 1. a page mapped above, zero, which is a fork word.
    unsafe { word.as_ref() }.own();
    // Where the kernel does not wipe pages, a handler that does nothing else does.
    let watched = imp::wipe_on_fork(base, page) || imp::at_fork_in_child(wipe);
    let is_first = || {
        // ORDERING: pairs with the acquire in `fork_word`.
        let (none, publish) = (core::ptr::null_mut(), Ordering::Release);
        FORK_WORD
            .compare_exchange(none, word.as_ptr(), publish, Ordering::Relaxed)
            .is_ok()
    };
    if watched && is_first() {
        return true;
    }
    // SAFETY: 1. mapped above, and nobody knows it.
    let _ = unsafe { unmap(base, page) };
    watched
}

extern "C" fn wipe() {
    if let Some(word) = fork_word() {
        word.wipe();
    }
}

fn fork_word() -> Option<&'static ForkWord> {
    // ORDERING: pairs with the release in `watch_forks`.
    let word = FORK_WORD.load(Ordering::Acquire);
    // SAFETY: 1. null, or a page that is never unmapped.
    unsafe { word.as_ref() }
}

/// Counts the forks between the first process and this one, from 1; 0 is left out.
static GENERATION: AtomicU32 = AtomicU32::new(1);

/// Names this process among those that have inherited memory from each other. What remembers another
/// generation is of a process that this one is not.
#[inline(always)]
pub(crate) fn fork_generation() -> Token {
    // ORDERING: written by the one thread of a child, before `ForkWord` lets others pass.
    let generation = GENERATION.load(Ordering::Relaxed);
    Token(NonZeroU32::new(generation).unwrap_or(NonZeroU32::MIN))
}

fn next_generation() {
    let next = fork_generation()
        .0
        .checked_add(1)
        .unwrap_or(NonZeroU32::MIN);
    // ORDERING: see `fork_generation`.
    GENERATION.store(next.get(), Ordering::Relaxed);
}

/// In a forked child, begins a new generation and lets one thread run `recover` before any other goes
/// on; nothing otherwise.
#[inline]
pub(crate) fn after_fork(recover: impl FnOnce()) {
    let repair = || {
        next_generation();
        recover();
    };
    if let Some(word) = fork_word() {
        word.pass(repair, imp::pause);
    }
}
