//! Where a thread is, and what happens when it faults: for the reports about sampled blocks.
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;

use super::linux::{send, thread_id};
use super::posix::Signals;
use super::syscall::{call, word};
use crate::sync::{AtomicPtr, AtomicUsize, Ordering};

/// What [`watch_faults`] was given; null before.
static REPORT: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Times that a handler is installed: Rust's std may be about to install its own when the first
/// allocation comes, and would take the place of ours.
const INSTALLS: usize = 2;

/// What to do about a signal, as the kernel takes it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Action {
    handler: usize,
    flags: usize,
    restorer: usize,
    blocked: Signals,
}

const DEFAULT: Action = Action {
    handler: libc::SIG_DFL,
    flags: 0,
    restorer: 0,
    blocked: 0,
};

/// Changes what is done about a signal, if there is a `next`, and says what was done before. Under a lock: not by the C
/// library's name.
fn act(signal: c_int, next: Option<Action>) -> Action {
    let mut before = DEFAULT;
    let next = next.as_ref().map_or(ptr::null(), ptr::from_ref);
    let arguments = [
        word(signal as usize),
        next.cast_mut().cast(),
        (&raw mut before).cast(),
        word(size_of::<Signals>()),
    ];
    // SAFETY: 1. the one action is null or valid, with a handler that does as the signal demands; the other is writable.
    let _ = unsafe { call(libc::SYS_rt_sigaction, arguments) };
    before
}

/// With what a handler returns to: this processor's kernel has no such code of its own.
#[cfg(target_arch = "x86_64")]
const SA_RESTORER: usize = 0x0400_0000;

/// Unwinders and debuggers know the frame of a signal by the last two instructions. They look at the byte before as well:
/// it must not be another function's.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
extern "C" fn restore() {
    core::arch::naked_asm!("nop", "mov rax, {}", "syscall", const libc::SYS_rt_sigreturn)
}

/// Where a handler returns to, and the flag that says so.
#[cfg(target_arch = "x86_64")]
fn restorer() -> (usize, usize) {
    (restore as *const () as usize + 1, SA_RESTORER)
}

/// The kernel's own code.
#[cfg(target_arch = "aarch64")]
fn restorer() -> (usize, usize) {
    (0, 0)
}

/// Catches a signal; a fault in the handler is one more.
fn caught_by(handler: Handler) -> Action {
    let (restorer, has_restorer) = restorer();
    let flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    Action {
        handler: handler as *const () as usize,
        flags: flags as usize | has_restorer,
        restorer,
        blocked: 0,
    }
}

/// What was done about faults before each: written once, before the handler is installed.
struct Previous([UnsafeCell<MaybeUninit<Action>>; INSTALLS]);

// SAFETY: 1. the cells are what blocks the auto impl; each is written before anything reads it.
unsafe impl Sync for Previous {}

static PREVIOUS: Previous = Previous([const { UnsafeCell::new(MaybeUninit::zeroed()) }; INSTALLS]);
/// How often a handler was installed.
static INSTALLED: AtomicUsize = AtomicUsize::new(0);

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// A handler for each time, so that each goes on with what it took the place of: who installed the handler
/// between the two may call the first from it.
const HANDLERS: [Handler; INSTALLS] = [handle::<0>, handle::<1>];

/// Has `report` called with the address of each access that faults, then goes on as before: by the handler
/// that was there, or by ending the process. Called again, sees to it that this still holds, once; for one
/// thread at a time.
pub(crate) fn watch_faults(report: fn(usize)) {
    let current = act(libc::SIGSEGV, None);
    // ORDERING: one thread at a time gets here, under a lock.
    let times = INSTALLED.load(Ordering::Relaxed);
    let (Some(cell), Some(handler)) = (PREVIOUS.0.get(times), HANDLERS.get(times)) else {
        return;
    };
    if HANDLERS
        .iter()
        .any(|ours| current.handler == *ours as usize)
    {
        return;
    }
    // SAFETY: 1. nobody reads this cell before its handler is installed.
    unsafe { &mut *cell.get() }.write(current);
    // ORDERING: the system call below orders these before the first call of the handler.
    REPORT.store(report as *mut (), Ordering::Relaxed);
    INSTALLED.store(times + 1, Ordering::Relaxed);
    act(libc::SIGSEGV, Some(caught_by(*handler)));
}

extern "C" fn handle<const TIME: usize>(
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    // SAFETY: 1. the kernel passes a valid description.
    let known = unsafe { &*info };
    // Others are sent by a process, and have no address.
    let is_fault = known.si_code > 0;
    if is_fault {
        // SAFETY: 1. a fault has an address.
        let address = unsafe { known.si_addr() }.addr();
        // ORDERING: written before the handler was installed.
        let report = REPORT.load(Ordering::Relaxed);
        // SAFETY: 1. `watch_faults` stored a function of this type.
        let report = unsafe { core::mem::transmute::<*mut (), fn(usize)>(report) };
        report(address);
    }
    // SAFETY: 1. written by `watch_faults` before it installed this handler, and never again.
    let previous = unsafe { &*PREVIOUS.0[TIME].get() };
    // SAFETY: 1. `watch_faults` has written the cell of this handler.
    let previous = unsafe { previous.assume_init_ref() };
    let next = previous.handler;
    if next == libc::SIG_IGN && !is_fault {
        return;
    }
    if next == libc::SIG_DFL || next == libc::SIG_IGN {
        // An access faults again when this returns, and ends the process.
        act(signal, Some(DEFAULT));
        if !is_fault {
            let _ = send(thread_id(), signal);
        }
    } else if previous.flags & libc::SA_SIGINFO as usize != 0 {
        // SAFETY: 1. the program installed a handler of this type.
        let next = unsafe { core::mem::transmute::<usize, Handler>(next) };
        next(signal, info, context);
    } else {
        // SAFETY: 1. without that flag, the program installed a handler of this type.
        let next = unsafe { core::mem::transmute::<usize, extern "C" fn(c_int)>(next) };
        next(signal);
    }
}

type GetIp = unsafe extern "C" fn(*mut c_void) -> usize;
type Step = extern "C" fn(*mut c_void, *mut c_void) -> c_int;
type Backtrace = unsafe extern "C" fn(Step, *mut c_void) -> c_int;

/// Calls `visit` with each return address of the calling thread, innermost first, until it says `false`.
pub(crate) fn backtrace(mut visit: impl FnMut(usize) -> bool) {
    // Programs without the unwinder of libgcc or LLVM, which Rust's std brings, have no backtraces.
    let (walk, get) = (weak!("_Unwind_Backtrace"), weak!("_Unwind_GetIP"));
    if walk == 0 || get == 0 {
        return;
    }
    // SAFETY: 1. the unwinder's function of that name has this type.
    let walk = unsafe { core::mem::transmute::<usize, Backtrace>(walk) };
    let mut visitor: &mut dyn FnMut(usize) -> bool = &mut visit;
    // SAFETY: 1. `step` gets what it expects, for as long as this runs.
    unsafe { walk(step, (&raw mut visitor).cast()) };
}

extern "C" fn step(context: *mut c_void, visitor: *mut c_void) -> c_int {
    const GO_ON: c_int = 0;
    const STOP: c_int = 5;
    let get = weak!("_Unwind_GetIP");
    // SAFETY: 1. the unwinder's function of that name has this type.
    let get = unsafe { core::mem::transmute::<usize, GetIp>(get) };
    // SAFETY: 1. the context that the unwinder passed.
    let address = unsafe { get(context) };
    // SAFETY: 1. `backtrace` passes this.
    let visitor = unsafe { &mut *visitor.cast::<&mut dyn FnMut(usize) -> bool>() };
    if address != 0 && visitor(address) {
        GO_ON
    } else {
        STOP
    }
}

/// The path of the object that holds `address`, and where it begins.
pub(crate) fn object_at(address: usize) -> Option<(&'static CStr, usize)> {
    // SAFETY: 1. all zero is such a description.
    let mut info: libc::Dl_info = unsafe { core::mem::zeroed() };
    let place = ptr::without_provenance::<c_void>(address);
    // SAFETY: 1. `info` is writable; `place` is only compared.
    let found = unsafe { libc::dladdr(place, &raw mut info) } != 0;
    if !found || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: 1. a string of the loader's, which lives as long as the object.
    let path = unsafe { CStr::from_ptr(info.dli_fname) };
    Some((path, info.dli_fbase.addr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    static CAUGHT: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn count(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
        // ORDERING: this thread's own signal.
        CAUGHT.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn a_handler_returns_and_what_was_before_comes_back() {
        let signal = libc::SIGURG;
        let before = act(signal, Some(caught_by(count)));
        for times in 1..3 {
            send(thread_id(), signal).expect("a signal");
            // ORDERING: as above.
            assert_eq!(CAUGHT.load(Ordering::Relaxed), times);
        }
        let ours = act(signal, Some(before));
        assert_eq!(ours.handler, count as *const () as usize);
        assert_eq!(act(signal, None).handler, before.handler);
    }

    /// By these bytes unwinders know where a signal came in.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_code_that_handlers_return_to_is_the_known_one() {
        let (place, _) = restorer();
        let code = ptr::with_exposed_provenance::<[u8; 9]>(place);
        // SAFETY: 1. code of this program, which is readable.
        let code = unsafe { code.read() };
        assert_eq!(code, *b"\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05");
    }
}
