//! Memory from a kernel that maps readable and writable memory and unmaps what it mapped, and does
//! nothing else: Miri is one. For checks of all that lies above; slow, and not for programs.
//!
//! Each mapping has a page of its own in front, which says how far it reaches. There are no
//! reservations, no pages that go back, no moves, no barrier on other threads, no forks, and no
//! threads that vanish without running their destructors. A purge is a write here: who reads the
//! descriptor of a slab that is gone, which is allowed, may race with that of a chunk's tables.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the layer that the ban points to"
)]

use core::ffi::{c_char, c_void};
use core::ptr::{self, NonNull};

use spin::mutex::SpinMutex;

use super::posix::keeping_errno;
use super::{Access, PageLen, failpoints};
use crate::sync::Link;
use crate::units::{ADDRESS_BITS, CHUNK, round_up};
use crate::valgrind;

/// What stands in front of a mapping.
struct Front {
    next: Link<Self>,
    /// What the kernel knows.
    whole: NonNull<u8>,
    whole_length: usize,
    /// What the caller knows.
    address: usize,
    length: PageLen,
}

// SAFETY: 1. the pointer is what blocks the auto impl; who takes the front out of the list owns what
// it points to.
unsafe impl Sync for Front {}

/// Every mapping, newest first.
static FRONTS: SpinMutex<Link<Front>> = SpinMutex::new(Link::none());

pub(super) fn page_size() -> usize {
    // SAFETY: 1. no precondition.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).unwrap_or(4096)
}

pub(super) fn map(length: PageLen, align: usize, access: Access) -> Option<NonNull<u8>> {
    // Reserved addresses cost memory here: who wants many gets few, a chunk's worth.
    if failpoints::refuses() || (access == Access::Reserved && length.bytes() > CHUNK) {
        return None;
    }
    let page = super::page_size();
    let padding = align.max(page).checked_add(page)?;
    let whole_length = length.bytes().checked_add(padding)?;
    if whole_length >> ADDRESS_BITS != 0 {
        return None;
    }
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: 1. a fresh anonymous mapping replaces nothing.
    let map = || unsafe { libc::mmap(ptr::null_mut(), whole_length, protection, flags, -1, 0) };
    let whole = keeping_errno(map);
    if whole == libc::MAP_FAILED {
        return None;
    }
    let whole = valgrind::hidden(NonNull::new(whole.cast::<u8>())?);
    let start = whole.addr().get();
    let skipped = round_up(start + page, align)? - start;
    // SAFETY: 1. the padding is at least a page and what aligning takes.
    let base = unsafe { crate::ptr::advance::<u8>(whole, skipped) };
    let front = whole.cast::<Front>();
    // SAFETY: 1. mapped above, longer than a page and aligned to one; the block begins a page later.
    unsafe {
        front.write(Front {
            next: Link::none(),
            whole,
            whole_length,
            address: base.addr().get(),
            length,
        });
    }
    // SAFETY: 1. written above; unmapped only by who takes it out of the list.
    let front: &'static Front = unsafe { front.as_ref() };
    let first = FRONTS.lock();
    front.next.set(first.get());
    first.set(Some(front));
    Some(base)
}

/// # Safety
/// 1. The range is the caller's own mapping.
pub(super) unsafe fn commit(_: NonNull<u8>, _: PageLen) -> bool {
    !failpoints::refuses()
}

/// Nothing can be made inaccessible.
///
/// # Safety
/// 1. The range is the caller's own mapping, and nothing in it is in use.
pub(super) unsafe fn protect(_: NonNull<u8>, _: PageLen) -> bool {
    let _ = failpoints::refuses();
    false
}

/// As [`protect`].
///
/// # Safety
/// 1. The range is the caller's own mapping, and nothing in it is in use.
pub(super) unsafe fn guard(_: NonNull<u8>, _: PageLen) -> bool {
    false
}

/// Everything is accessible.
///
/// # Safety
/// 1. The range is the caller's own mapping.
pub(super) unsafe fn unguard(_: NonNull<u8>, _: PageLen) -> bool {
    !failpoints::refuses()
}

/// # Safety
/// 1. The range is the caller's own mapping, and nothing in it is in use.
pub(super) unsafe fn purge(base: NonNull<u8>, length: PageLen) -> bool {
    if failpoints::refuses() {
        return false;
    }
    // SAFETY: 1. the caller's own mapping, all of which is writable here, and nothing of it is in
    // use.
    unsafe { base.write_bytes(0, length.bytes()) };
    true
}

/// `false` for less or more than one mapping.
///
/// # Safety
/// 1. The range is the caller's own mapping, and nothing in it is in use.
pub(super) unsafe fn unmap(base: NonNull<u8>, length: PageLen) -> bool {
    if failpoints::refuses() {
        return false;
    }
    let Some((whole, whole_length)) = take_out(base.addr().get(), length) else {
        return false;
    };
    // SAFETY: 1. all of a mapping, by its front, of which nothing is in use; the front is in no
    // list any more.
    keeping_errno(|| unsafe { libc::munmap(whole.as_ptr().cast(), whole_length) }) == 0
}

/// Takes the front of a mapping out of the list; what the kernel knows of it.
fn take_out(address: usize, length: PageLen) -> Option<(NonNull<u8>, usize)> {
    let first = FRONTS.lock();
    let mut link = &*first;
    while let Some(front) = link.get() {
        if front.address == address && front.length == length {
            link.set(front.next.get());
            return Some((front.whole, front.whole_length));
        }
        link = &front.next;
    }
    None
}

/// # Safety
/// 1. The old range is the caller's own mapping.
/// 2. On success nobody uses the old addresses any more.
pub(super) unsafe fn remap(_: NonNull<u8>, _: PageLen, _: PageLen) -> Option<NonNull<u8>> {
    let _ = failpoints::refuses();
    None
}

pub(super) fn advise_huge(_: NonNull<u8>, _: PageLen) {}

pub(super) fn refuse_huge(_: NonNull<u8>, _: PageLen) {}

/// Nobody forks here.
pub(super) fn wipe_on_fork(_: NonNull<u8>, _: PageLen) -> bool {
    !failpoints::refuses()
}

/// Never called: [`wipe_on_fork`] needs no help.
pub(super) fn at_fork_in_child(_: extern "C" fn()) -> bool {
    false
}

/// All that is mapped is in memory.
pub(crate) fn about_resident(_: NonNull<u8>, length: PageLen) -> usize {
    length.bytes()
}

pub(crate) fn resident(_: NonNull<u8>, length: PageLen) -> usize {
    length.bytes()
}

/// Whether parts of a mapping of this length can be unmapped: they are written instead, which is
/// endured for short ones.
pub(crate) const fn can_cut(length: usize) -> bool {
    length <= 32 << 20
}

/// Zeroes a range, all of which is in memory.
///
/// # Safety
/// 1. The range is the caller's own mapping, and nothing in it is in use.
#[must_use]
pub(crate) unsafe fn zero(base: NonNull<u8>, length: PageLen) -> Option<InMemory> {
    // SAFETY: 1. the caller's own mapping, which is accessible.
    unsafe { base.write_bytes(0, length.bytes()) };
    Some(InMemory::All)
}

/// As that of the kernel's layer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum InMemory {
    All,
    #[expect(dead_code, reason = "there is no other memory")]
    Part,
}

/// The clock and an address: enough to tell the safeguards' paths apart, not for secrets.
pub(crate) fn random() -> [u64; 3] {
    let address = (&raw const FRONTS).addr() as u64;
    let time = super::now_ms();
    [time, address.rotate_left(32), time]
}

/// Nothing is unloaded.
pub(crate) fn stay_loaded(_: *const c_void) {}

/// No barrier: what sleeping threads keep stays with them.
#[must_use]
pub(crate) fn process_barrier() -> bool {
    false
}

/// Threads have no number.
pub(crate) fn thread_id() -> usize {
    0
}

pub(crate) fn early_environment() -> Option<NonNull<*const c_char>> {
    None
}

pub(crate) fn pause() {
    // SAFETY: 1. no precondition.
    let _ = unsafe { libc::sched_yield() };
}

/// Nobody shares memory here with a process that is another.
pub(super) fn process_id() -> usize {
    1
}

pub(crate) fn is_first_thread() -> bool {
    false
}

pub(crate) fn is_alive(_: usize) -> bool {
    true
}

pub(crate) fn is_privileged() -> bool {
    false
}
