//! The only callers of libc. Verbs over address ranges: reserve, commit, map, remap, purge, unmap.
//!
//! Every verb reports failure by its value and leaves `errno` as it was. Ranges are whole pages,
//! see [`PageLen`].

use core::fmt;
use core::ptr::NonNull;

use cfg_if::cfg_if;

use crate::error::Line;
use crate::sync::{AtomicUsize, Ordering};

cfg_if! {
    if #[cfg(any(miri, flagstone_portable))] {
        #[path = "fault_off.rs"]
        mod fault;
        mod portable;
        use portable as imp;
        use portable as pages_in_memory;
    } else {
        #[macro_use]
        mod weak;
        mod fault;
        mod linux;
        mod presence;
        use linux as imp;
        use presence as pages_in_memory;
    }
}

cfg_if! {
    if #[cfg(any(miri, flagstone_portable, flagstone_tsan))] {
        #[path = "clock_libc.rs"]
        mod clock;
        #[path = "syscall_libc.rs"]
        mod syscall;
    } else {
        mod clock;
        mod syscall;
        mod vdso;
    }
}

#[cfg(feature = "heaps")]
mod attributes;
mod background;
mod cgroup;
mod fork;
mod fork_detect;
mod lock;
mod lock_word;
mod pages;
mod posix;
cfg_if! {
    if #[cfg(all(feature = "mapped", not(any(miri, flagstone_portable))))] {
        mod copies;
        pub(crate) mod durable;
        pub(crate) mod files;
        pub(crate) mod maps;
        pub(crate) mod pagemap;
        pub(crate) mod paths;
        pub(crate) mod shared;
    }
}

cfg_if! {
    if #[cfg(feature = "failpoints")] {
        pub mod failpoints;
    } else {
        #[path = "failpoints_off.rs"]
        pub(crate) mod failpoints;
    }
}

cfg_if! {
    if #[cfg(not(feature = "heaps"))] {
    } else if #[cfg(any(miri, flagstone_portable))] {
        #[path = "told_off.rs"]
        mod told;
    } else {
        mod told;
    }
}

cfg_if! {
    if #[cfg(flagstone_tsan)] {
        mod tsan;
    } else {
        #[path = "tsan_off.rs"]
        mod tsan;
    }
}

#[cfg(feature = "heaps")]
pub(crate) use attributes::NotGranted;
pub(crate) use background::{
    name_thread, prepare_threads, sleep_ms, start_thread, wait, wait_at_most, wait_ms, wake,
};
pub(crate) use cgroup::memory_limit;
pub(crate) use fault::{backtrace, object_at, watch_faults};
pub(crate) use fork::{after_fork, fork_generation, watch_forks};
#[cfg(feature = "counters")]
pub use lock::counters;
pub(crate) use lock::{Held, Lock};
pub(crate) use pages::PageLen;

pub(crate) use imp::{
    can_cut, early_environment, is_alive, is_first_thread, is_privileged, pause, process_barrier,
    random, stay_loaded, thread_id,
};
pub(crate) use pages_in_memory::{InMemory, about_resident, resident};
pub(crate) use posix::{ThreadKey, abort, cpus, env, write};
#[cfg(feature = "heaps")]
pub(crate) use told::map_gigantic;

/// The process that the memory belongs to.
static HOME: AtomicUsize = AtomicUsize::new(0);

/// Notes that this is it.
pub(crate) fn be_at_home() {
    // ORDERING: a number, here and below; nothing is published through it.
    HOME.store(imp::process_id(), Ordering::Relaxed);
}

/// Whether this is the process that the memory belongs to, not a child that shares it.
pub(crate) fn is_at_home() -> bool {
    HOME.load(Ordering::Relaxed) == imp::process_id()
}

/// The number of this process, for people.
#[cfg(all(feature = "mapped", not(any(miri, flagstone_portable))))]
pub(crate) fn process_number() -> u32 {
    u32::try_from(imp::process_id()).unwrap_or(0)
}

/// Bytes of a page, or 0 before the first call of [`page_size`].
static PAGE: AtomicUsize = AtomicUsize::new(0);

/// Bytes of a page, read from the kernel once.
#[inline(never)]
pub(crate) fn page_size() -> usize {
    // ORDERING: every thread that finds 0 stores the same value.
    match PAGE.load(Ordering::Relaxed) {
        0 => {
            let page = imp::page_size();
            PAGE.store(page, Ordering::Relaxed);
            page
        }
        page => page,
    }
}

/// Milliseconds of a clock that never goes back, a few milliseconds coarse.
pub(crate) fn now_ms() -> u64 {
    let now = clock::read();
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

/// Nanoseconds of a fine clock that never goes back.
pub(crate) fn now_ns() -> u64 {
    let now = clock::read_fine();
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Has the kernel bring in the page at `place`, as a write does, and changes no byte.
///
/// # Safety
/// 1. The byte there can be written, and whoever else reaches it does so by atomic accesses.
pub(crate) unsafe fn touch(place: NonNull<u8>) {
    // SAFETY: 1. this function's own 1., word for word.
    let byte = unsafe { core::sync::atomic::AtomicU8::from_ptr(place.as_ptr()) };
    // An exchange of nothing for nothing is a write to the processor; where the byte is another, on
    // some no write.
    // ORDERING: publishes nothing.
    let _ = byte.compare_exchange(0, 0, Ordering::Relaxed, Ordering::Relaxed);
}

/// What a fresh range may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Address space only, until [`commit`].
    Reserved,
    /// Readable and writable, zero.
    Committed,
}

/// A fresh range of this length aligned to `align`, a power of two, or `None`. Nothing beyond
/// `length` stays mapped, whatever the alignment.
pub(crate) fn map(length: PageLen, align: usize, access: Access) -> Option<NonNull<u8>> {
    debug_assert!(length != PageLen::NONE && align.is_power_of_two());
    imp::map(length, align, access)
}

/// Makes a reserved range readable and writable. `false`: it is still reserved.
///
/// # Safety
/// 1. The range is the caller's own mapping.
#[must_use]
pub(crate) unsafe fn commit(base: NonNull<u8>, length: PageLen) -> bool {
    // SAFETY: 1. the same range of the caller's own mapping.
    unsafe { imp::commit(base, length) }
}

/// Gives the pages of a range back; it reads as zero afterwards. `false`: contents are unknown.
///
/// # Safety
/// 1. The range is the caller's own mapping, and nothing in it is in use.
#[must_use]
pub(crate) unsafe fn purge(base: NonNull<u8>, length: PageLen) -> bool {
    tsan::will_be_written(base, length.bytes());
    // SAFETY: 1. the same range: the caller's own mapping, of which nothing is in use.
    unsafe { imp::purge(base, length) }
}

/// [`purge`] for words that are read with stale links, as atomics, by who takes either value: that is no
/// use of them, and no race with the kernel's zeros.
///
/// # Safety
/// 1. The range is the caller's own mapping, and nobody writes to it.
#[must_use]
pub(crate) unsafe fn discard(base: NonNull<u8>, length: PageLen) -> bool {
    // SAFETY: 1. the same range: the caller's own mapping; a reader finds what stood there, or zeros.
    unsafe { imp::purge(base, length) }
}

/// Makes a range read as zero: writes to what is in memory of it, and leaves the rest to the kernel. How much is in
/// memory then.
///
/// # Safety
/// 1. The range is the caller's own mapping, and nothing in it is in use.
pub(crate) unsafe fn zero(base: NonNull<u8>, length: PageLen) -> InMemory {
    // SAFETY: 1. that range, as asked for here.
    let done = unsafe { pages_in_memory::zero(base, length) };
    done.unwrap_or_else(|| {
        // SAFETY: 1. that range, which is accessible, and which nobody uses.
        unsafe { base.write_bytes(0, length.bytes()) };
        InMemory::All
    })
}

/// Gives the addresses of a range back. `false` at the limit of mappings: the range is unchanged.
///
/// # Safety
/// 1. The range is the caller's own mapping, and nothing in it is in use.
#[must_use]
pub(crate) unsafe fn unmap(base: NonNull<u8>, length: PageLen) -> bool {
    // SAFETY: 1. the same range: the caller's own mapping, of which nothing is in use.
    unsafe { imp::unmap(base, length) }
}

/// Changes the length of a mapping, which moves where it has to. New pages are zero.
///
/// # Safety
/// 1. The old range is the caller's own mapping.
/// 2. On success nobody uses the old addresses any more.
pub(crate) unsafe fn remap(base: NonNull<u8>, old: PageLen, new: PageLen) -> Option<NonNull<u8>> {
    // SAFETY: 1. the same old range of the caller's own mapping. 2. as promised here, if it
    // succeeds there.
    unsafe { imp::remap(base, old, new) }
}

/// Makes a range inaccessible; its contents are lost. `false`: it is as it was, or its contents are
/// lost and it is accessible still.
///
/// # Safety
/// 1. The range is the caller's own mapping, and nothing in it is in use.
#[must_use]
pub(crate) unsafe fn guard(base: NonNull<u8>, length: PageLen) -> bool {
    // SAFETY: 1. the same range: the caller's own mapping, of which nothing is in use.
    let guarded = unsafe { imp::guard(base, length) };
    // SAFETY: 1. the same range still: a refused guard unmaps nothing.
    guarded || unsafe { imp::protect(base, length) }
}

/// Makes a range accessible again that [`guard`] or [`protect`] made inaccessible, or a part of it.
/// What was guarded reads as zero.
///
/// # Safety
/// 1. The range is the caller's own mapping.
#[must_use]
pub(crate) unsafe fn expose(base: NonNull<u8>, length: PageLen) -> bool {
    // SAFETY: 1. the same range of the caller's own mapping.
    let unguarded = unsafe { imp::unguard(base, length) };
    // SAFETY: 1. the same range still: to take guards away unmaps nothing.
    unguarded && unsafe { imp::commit(base, length) }
}

/// Makes a range inaccessible; its contents stay. `false`: it is as it was.
///
/// # Safety
/// 1. The range is the caller's own mapping, and nothing in it is in use.
#[must_use]
pub(crate) unsafe fn protect(base: NonNull<u8>, length: PageLen) -> bool {
    // SAFETY: 1. the same range: the caller's own mapping, of which nothing is in use.
    unsafe { imp::protect(base, length) }
}

/// Has the processor fetch the line at `place`; any address will do.
#[inline(always)]
pub(crate) fn prefetch(place: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: 1. touches no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = place;
}

/// Asks for huge pages in a range; a wish, so failure says nothing.
pub(crate) fn advise_huge(base: NonNull<u8>, length: PageLen) {
    imp::advise_huge(base, length);
}

/// Asks for no huge pages in a range; a wish, too.
pub(crate) fn refuse_huge(base: NonNull<u8>, length: PageLen) {
    imp::refuse_huge(base, length);
}

/// Writes one line to standard error.
#[cold]
#[inline(never)]
pub(crate) fn complain(message: fmt::Arguments<'_>) {
    posix::write(libc::STDERR_FILENO, Line::new(message).as_bytes());
}

/// Writes one line to standard error and aborts. No lock is held: a handler of `SIGABRT` may call the allocator.
#[cold]
#[inline(never)]
pub(crate) fn die(message: fmt::Arguments<'_>) -> ! {
    complain(message);
    posix::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_ranges_are_aligned_zero_and_exact() {
        let page = PageLen::pages(1);
        // Miri's memory is memory, padding too.
        for shift in 12..=if cfg!(miri) { 22 } else { 30 } {
            let align = 1 << shift;
            let base = map(page, align, Access::Committed).expect("a page of memory");
            assert_eq!(base.addr().get() % align, 0);
            // SAFETY: 1. mapped above.
            assert_eq!(unsafe { base.read() }, 0);
            // SAFETY: 1. mapped above, not used again.
            assert!(unsafe { unmap(base, page) });
        }
    }

    #[test]
    fn a_purged_page_reads_zero() {
        let (page, bytes) = (PageLen::pages(1), page_size());
        let base = map(page, bytes, Access::Committed).expect("a page of memory");
        // SAFETY: 1. mapped above.
        unsafe { base.write(7) };
        assert_eq!(resident(base, page), bytes);
        // SAFETY: 1. mapped above.
        assert!(unsafe { purge(base, page) });
        // SAFETY: 1. mapped above.
        assert_eq!(unsafe { base.read() }, 0);
        // SAFETY: 1. mapped above, not used again.
        assert!(unsafe { unmap(base, page) });
    }

    #[test]
    fn zeroed_ranges_are_zero_whoever_zeroes_them() {
        let length = PageLen::pages(256);
        let base = map(length, 1, Access::Committed).expect("memory");
        let page = page_size();
        let fill = |pages: core::ops::Range<usize>| {
            for index in pages {
                // SAFETY: 1. inside the range, mapped above.
                let start = unsafe { crate::ptr::advance::<u8>(base, index * page) };
                // SAFETY: 1. as above, a page.
                unsafe { start.write_bytes(7, page) };
            }
        };
        let check = || {
            // SAFETY: 1. mapped above.
            let bytes = unsafe { core::slice::from_raw_parts(base.as_ptr(), length.bytes()) };
            assert!(bytes.iter().all(|byte| *byte == 0));
        };
        // All, the beginning, a little of it, what the beginning does not tell of.
        for pages in [0..256, 0..100, 0..1, 255..256] {
            fill(pages.clone());
            // SAFETY: 1. mapped above, not in use.
            unsafe { zero(base, length) };
            #[cfg(not(any(miri, flagstone_portable)))]
            assert_eq!(
                resident(base, length),
                if pages.len() == 1 {
                    0
                } else {
                    pages.len() * page
                }
            );
            check();
            #[cfg(feature = "failpoints")]
            for calls in 0..3 {
                fill(pages.clone());
                failpoints::refuse_after(calls, true);
                // SAFETY: 1. mapped above, not in use.
                unsafe { zero(base, length) };
                failpoints::refuse_none();
                check();
            }
            // SAFETY: 1. mapped above, not in use.
            assert!(unsafe { purge(base, length) });
        }
        // SAFETY: 1. mapped above, not used again.
        assert!(unsafe { unmap(base, length) });
    }

    #[test]
    fn an_impossible_range_is_refused() {
        assert_eq!(map(PageLen::kept(1 << 60), 1, Access::Reserved), None);
    }
}
