//! Linux: each function is one system call or one question to libc, but for mappings that are aligned.

use core::ffi::{c_char, c_int, c_ulong, c_void};
use core::ptr::{self, NonNull};

use super::posix::keeping_errno;
use super::syscall::{Word, call, word};
use super::{Access, PageLen, failpoints};
use crate::units::round_up;
use crate::valgrind;

pub(super) fn map(length: PageLen, align: usize, access: Access) -> Option<NonNull<u8>> {
    let mut place = 0;
    // The kernel puts new mappings below the others: the second time most likely where the alignment wants it, and
    // no address more is asked for than the process may need to have under its limit.
    for _ in 0..2 {
        let base = map_near(place, length, access)?;
        if base.addr().get().is_multiple_of(align) {
            return Some(base);
        }
        place = base.addr().get() & !(align - 1);
        // SAFETY: 1. mapped above, not shared.
        if !unsafe { unmap(base, length) } {
            return None;
        }
    }
    // Padding is reserved only: an alignment of many GiB must not count as memory.
    let padding = PageLen::within(align.checked_sub(super::page_size())?);
    let padded = length.plus(padding)?;
    let base = map_near(0, padded, Access::Reserved)?;
    let head = PageLen::within(round_up(base.addr().get(), align)? - base.addr().get());
    // SAFETY: 1. aligning takes at most the padding, which is in front of `length` bytes more.
    let start = unsafe { crate::ptr::advance::<u8>(base, head.bytes()) };
    // SAFETY: 1. `length` bytes are left behind the padding.
    let end = unsafe { crate::ptr::advance::<u8>(start, length.bytes()) };
    // SAFETY: 1. the head of the range mapped above, not shared.
    let headless = head == PageLen::NONE || unsafe { unmap(base, head) };
    let tail = PageLen::within(padding.bytes() - head.bytes());
    // SAFETY: 1. the tail of the range mapped above, not shared.
    let tailless = tail == PageLen::NONE || unsafe { unmap(end, tail) };
    // SAFETY: 1. the middle of the range mapped above.
    let usable = access == Access::Reserved || unsafe { commit(start, length) };
    if headless && tailless && usable {
        return Some(start);
    }
    // At the limit of mappings or memory. What cannot be unmapped was never touched and costs none.
    // SAFETY: 1. the middle of the range mapped above, not shared.
    let _ = unsafe { unmap(start, length) };
    None
}

/// A mapping at `place`, if that is not 0 and is free there, or anywhere.
fn map_near(place: usize, length: PageLen, access: Access) -> Option<NonNull<u8>> {
    if failpoints::refuses() {
        return None;
    }
    let (protection, flags) = match access {
        // A reservation must not count as memory, nor be faulted in by `mlockall`.
        Access::Reserved => (libc::PROT_NONE, libc::MAP_NORESERVE),
        Access::Committed => (libc::PROT_READ | libc::PROT_WRITE, 0),
    };
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let no_file = usize::MAX;
    let arguments = [
        place,
        length.bytes(),
        protection as usize,
        flags as usize,
        no_file,
        0,
    ]
    .map(word);
    // SAFETY: 1. a fresh anonymous mapping replaces nothing.
    let base = unsafe { call(libc::SYS_mmap, arguments) }.ok()?;
    NonNull::new(base.cast()).map(valgrind::hidden)
}

/// # Safety
/// 1. The range is the caller's own mapping.
pub(super) unsafe fn commit(base: NonNull<u8>, length: PageLen) -> bool {
    if failpoints::refuses() {
        return false;
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let arguments = [
        base.as_ptr().cast(),
        word(length.bytes()),
        word(protection as usize),
    ];
    // SAFETY: 1. makes pages of the caller's own mapping accessible, and changes no byte.
    unsafe { call(libc::SYS_mprotect, arguments) }.is_ok()
}

/// # Safety
/// 1. The range is the caller's own mapping, and nothing in it is in use.
pub(super) unsafe fn protect(base: NonNull<u8>, length: PageLen) -> bool {
    if failpoints::refuses() {
        return false;
    }
    let arguments = [
        base.as_ptr().cast(),
        word(length.bytes()),
        word(libc::PROT_NONE as usize),
    ];
    // SAFETY: 1. makes pages inaccessible that are the caller's own and not in use.
    unsafe { call(libc::SYS_mprotect, arguments) }.is_ok()
}

/// Since Linux 6.13: costs no mapping, as `mprotect` does.
const MADV_GUARD_INSTALL: c_int = 102;
const MADV_GUARD_REMOVE: c_int = 103;

/// `false` before 6.13, in locked memory, or in memory that is not ordinary.
///
/// # Safety
/// 1. The range is the caller's own mapping, and nothing in it is in use.
pub(super) unsafe fn guard(base: NonNull<u8>, length: PageLen) -> bool {
    if failpoints::refuses() {
        return false;
    }
    // SAFETY: 1. drops contents that nobody uses, of pages that are the caller's own; they fault
    // from then on.
    unsafe { madvise(base, length, MADV_GUARD_INSTALL) }.is_ok()
}

/// Takes guards away, if there are any. `true` as well where the kernel has none.
///
/// # Safety
/// 1. The range is the caller's own mapping.
pub(super) unsafe fn unguard(base: NonNull<u8>, length: PageLen) -> bool {
    if failpoints::refuses() {
        return false;
    }
    // SAFETY: 1. makes pages of the caller's own mapping accessible; without a guard they stay as
    // they are.
    let done = unsafe { madvise(base, length, MADV_GUARD_REMOVE) };
    matches!(done, Ok(_) | Err(libc::EINVAL))
}

/// # Safety
/// 1. The range is the caller's own mapping, and nothing in it is in use.
pub(super) unsafe fn purge(base: NonNull<u8>, length: PageLen) -> bool {
    if failpoints::refuses() {
        return false;
    }
    // SAFETY: 1. drops contents that nobody uses, of pages that are the caller's own.
    unsafe { madvise(base, length, libc::MADV_DONTNEED) }.is_ok()
}

/// # Safety
/// 1. The range is the caller's own mapping, and nothing in it is in use.
pub(super) unsafe fn unmap(base: NonNull<u8>, length: PageLen) -> bool {
    if failpoints::refuses() {
        return false;
    }
    let arguments = [base.as_ptr().cast(), word(length.bytes())];
    // SAFETY: 1. unmaps addresses that nobody uses, of a mapping that is the caller's own.
    unsafe { call(libc::SYS_munmap, arguments) }.is_ok()
}

/// # Safety
/// 1. The old range is the caller's own mapping.
/// 2. On success nobody uses the old addresses any more.
pub(super) unsafe fn remap(base: NonNull<u8>, old: PageLen, new: PageLen) -> Option<NonNull<u8>> {
    if failpoints::refuses() {
        return None;
    }
    let [old, new] = [old, new].map(|length| word(length.bytes()));
    let flags = word(libc::MREMAP_MAYMOVE as usize);
    // SAFETY: 1. moves the caller's own mapping, whose old addresses nobody uses once it succeeds.
    let moved = unsafe { call(libc::SYS_mremap, [base.as_ptr().cast(), old, new, flags]) };
    NonNull::new(moved.ok()?.cast()).map(valgrind::hidden)
}

pub(super) fn advise_huge(base: NonNull<u8>, length: PageLen) {
    advise(base, length, libc::MADV_HUGEPAGE);
}

pub(super) fn refuse_huge(base: NonNull<u8>, length: PageLen) {
    advise(base, length, libc::MADV_NOHUGEPAGE);
}

/// Advice that changes no byte, given in vain or not.
fn advise(base: NonNull<u8>, length: PageLen, advice: c_int) {
    if failpoints::refuses() {
        return;
    }
    // SAFETY: 1. changes no byte, whatever is mapped there.
    let _ = unsafe { madvise(base, length, advice) };
}

pub(super) fn wipe_on_fork(base: NonNull<u8>, length: PageLen) -> bool {
    if failpoints::refuses() {
        return false;
    }
    // SAFETY: 1. changes no byte of this process.
    unsafe { madvise(base, length, libc::MADV_WIPEONFORK) }.is_ok()
}

/// # Safety
/// 1. What the advice does to memory, the caller may do.
unsafe fn madvise(base: NonNull<u8>, length: PageLen, advice: c_int) -> Result<Word, c_int> {
    let arguments = [
        base.as_ptr().cast(),
        word(length.bytes()),
        word(advice as usize),
    ];
    // SAFETY: 1. the call does what the advice does, which the caller may do.
    unsafe { call(libc::SYS_madvise, arguments) }
}

/// Whether parts of a mapping of this length can be unmapped.
pub(crate) const fn can_cut(_: usize) -> bool {
    true
}

/// Three numbers that cannot be foreseen from outside. If the kernel has none, two are those that it left the program
/// at its start, of which the C library makes the canaries of the stack, and the third is the time.
pub(crate) fn random() -> [u64; 3] {
    let mut numbers = [0_u64; 3];
    let length = size_of_val(&numbers);
    let place = numbers.as_mut_ptr().cast();
    let arguments = [place, word(length), word(libc::GRND_NONBLOCK as usize)];
    // SAFETY: 1. `numbers` is writable for that length.
    let got = unsafe { call(libc::SYS_getrandom, arguments) };
    if failpoints::refuses() || got != Ok(word(length)) {
        let bytes = ptr::with_exposed_provenance::<[u64; 2]>(auxiliary(libc::AT_RANDOM));
        if !bytes.is_null() {
            // SAFETY: 1. the kernel left sixteen random bytes there.
            let [first, second] = unsafe { bytes.read_unaligned() };
            numbers = [first, second, 0];
        }
        // Not one of the other two: what follows from it is no secret.
        numbers[2] = super::now_ms();
    }
    numbers
}

/// Has `handler` run in each forked child.
pub(super) fn at_fork_in_child(handler: extern "C" fn()) -> bool {
    if failpoints::refuses() {
        return false;
    }
    // May allocate, by libc's own means.
    // SAFETY: 1. the handler takes no lock and calls nothing.
    keeping_errno(|| unsafe { libc::pthread_atfork(None, None, Some(handler)) }) == 0
}

const MEMBARRIER_PRIVATE_EXPEDITED: usize = 1 << 3;
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED: usize = 1 << 4;

/// A full barrier on every thread of this process between the caller's accesses before and after.
/// `false` where the kernel cannot (before 4.14, or forbidden).
#[must_use]
pub(crate) fn process_barrier() -> bool {
    let is_done = |command: usize| {
        if failpoints::refuses() {
            return false;
        }
        // SAFETY: 1. touches no memory.
        unsafe { call(libc::SYS_membarrier, [command, 0, 0].map(word)) }.is_ok()
    };
    // Registering twice is allowed and cheap; a forked child has to register anew.
    is_done(MEMBARRIER_REGISTER_PRIVATE_EXPEDITED) && is_done(MEMBARRIER_PRIVATE_EXPEDITED)
}

/// The calling thread's number in the kernel.
pub(crate) fn thread_id() -> usize {
    // SAFETY: 1. no precondition.
    unsafe { call(libc::SYS_gettid, []) }.map_or(0, Word::addr)
}

pub(super) fn process_id() -> usize {
    // SAFETY: 1. no precondition.
    unsafe { call(libc::SYS_getpid, []) }.map_or(0, Word::addr)
}

/// Sends a signal to a thread of this process.
pub(super) fn send(thread: usize, signal: c_int) -> Result<(), c_int> {
    let arguments = [process_id(), thread, signal as usize].map(word);
    // SAFETY: 1. touches no memory.
    unsafe { call(libc::SYS_tgkill, arguments) }.map(|_| ())
}

/// What the kernel told this process of `kind` as it began, 0 if nothing.
fn auxiliary(kind: c_ulong) -> usize {
    // SAFETY: 1. no precondition.
    usize::try_from(unsafe { libc::getauxval(kind) }).unwrap_or(0)
}

pub(super) fn page_size() -> usize {
    match auxiliary(libc::AT_PAGESZ) {
        0 => 4096,
        page => page,
    }
}

/// The object that the kernel maps into each process, which has functions of its own; null if there is none.
#[cfg(not(flagstone_tsan))]
pub(super) fn kernel_object() -> *const u8 {
    ptr::with_exposed_provenance(auxiliary(libc::AT_SYSINFO_EHDR))
}

/// The environment before the C library knows it: behind the arguments, where the stack began. glibc's loader tells;
/// with others there is no such moment.
pub(crate) fn early_environment() -> Option<NonNull<*const c_char>> {
    let start = NonNull::new(weak!("__libc_stack_end") as *mut *const usize)?;
    // SAFETY: 1. the loader's variable of this name, written before any code of a library runs.
    let count = NonNull::new(unsafe { start.read() }.cast_mut())?;
    // SAFETY: 1. the number of arguments stands there.
    let arguments = unsafe { count.read() };
    // SAFETY: 1. then the arguments, then null, then the environment.
    let environment = unsafe { count.add(arguments + 2) };
    Some(environment.cast())
}

/// Leaves the processor alone for a while: to threads of lower priority, too, which a yield does not let run.
pub(crate) fn pause() {
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 50_000,
    };
    // SAFETY: 1. `time` is readable, and nobody asks for the rest.
    let _ = unsafe {
        call(
            libc::SYS_nanosleep,
            [(&raw const time).cast_mut().cast(), word(0)],
        )
    };
}

/// Whether the calling thread is the one that its process began with: in a forked child, the one that
/// forked.
pub(crate) fn is_first_thread() -> bool {
    process_id() == thread_id()
}

/// Whether a thread of this process with that number exists; `true` if the kernel does not tell.
pub(crate) fn is_alive(thread: usize) -> bool {
    send(thread, 0) != Err(libc::ESRCH)
}

/// Whether the process runs with more rights than who started it.
pub(crate) fn is_privileged() -> bool {
    auxiliary(libc::AT_SECURE) != 0
}

/// Has the loader keep the object that `own` lies in until the process ends: the destructor of a
/// [`ThreadKey`] must not be unmapped before the last thread. In a library that takes the loader's lock;
/// the program itself is never unloaded, and musl unloads nothing.
pub(crate) fn stay_loaded(own: *const c_void) {
    #[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
    keeping_errno(|| {
        // SAFETY: 1. all zero is a description of nothing.
        let mut found: libc::Dl_info = unsafe { core::mem::zeroed() };
        // SAFETY: 1. `found` is writable.
        if unsafe { libc::dladdr(own, &raw mut found) } == 0 {
            return;
        }
        let program = auxiliary(libc::AT_PHDR);
        // The program headers stand in the first page of their object.
        if program.wrapping_sub(found.dli_fbase.addr()) < super::page_size() {
            return;
        }
        let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
        // A refusal leaves things as they are.
        // SAFETY: 1. the name is a C string of the loader's. Nothing new is loaded, no constructor runs.
        let _ = unsafe { libc::dlopen(found.dli_fname, flags) };
    });
    #[cfg(not(all(target_env = "gnu", not(target_feature = "crt-static"))))]
    let _ = own;
}
