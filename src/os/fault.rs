//! Where a thread is, and what happens when it faults: for the reports about sampled blocks.
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;

use crate::sync::{AtomicPtr, AtomicUsize, Ordering};

/// What [`watch_faults`] was given; null before.
static REPORT: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Times that a handler is installed: Rust's std may be about to install its own when the first
/// allocation comes, and would take the place of ours.
const INSTALLS: usize = 2;

/// What was done about faults before each: written once, before the handler is installed.
struct Previous([UnsafeCell<MaybeUninit<libc::sigaction>>; INSTALLS]);

// SAFETY: 1. the cells are what blocks the auto impl; each is written before anything reads it.
unsafe impl Sync for Previous {}

static PREVIOUS: Previous = Previous([const { UnsafeCell::new(MaybeUninit::zeroed()) }; INSTALLS]);
/// How often a handler was installed.
static INSTALLED: AtomicUsize = AtomicUsize::new(0);

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// A handler for each time, so that each goes on with what it took the place of: who installed the handler
/// between the two may call the first from it.
const HANDLERS: [Handler; INSTALLS] = [handle::<0>, handle::<1>];

fn action() -> libc::sigaction {
    // SAFETY: 1. all zero is an action.
    unsafe { core::mem::zeroed() }
}

/// Has `report` called with the address of each access that faults, then goes on as before: by the handler
/// that was there, or by ending the process. Called again, sees to it that this still holds, once; for one
/// thread at a time.
pub(crate) fn watch_faults(report: fn(usize)) {
    let mut current = action();
    // SAFETY: 1. `current` is writable.
    unsafe { libc::sigaction(libc::SIGSEGV, ptr::null(), &raw mut current) };
    // ORDERING: one thread at a time gets here, under a lock.
    let times = INSTALLED.load(Ordering::Relaxed);
    let (Some(cell), Some(handler)) = (PREVIOUS.0.get(times), HANDLERS.get(times)) else {
        return;
    };
    if HANDLERS
        .iter()
        .any(|ours| current.sa_sigaction == *ours as usize)
    {
        return;
    }
    // SAFETY: 1. nobody reads this cell before its handler is installed.
    unsafe { &mut *cell.get() }.write(current);
    // ORDERING: the system call below orders these before the first call of the handler.
    REPORT.store(report as *mut (), Ordering::Relaxed);
    INSTALLED.store(times + 1, Ordering::Relaxed);
    let mut ours = action();
    ours.sa_sigaction = *handler as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    // SAFETY: 1. a valid action, whose handler does as the signal demands.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const ours, ptr::null_mut()) };
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
    // SAFETY: 1. as above.
    let previous = unsafe { previous.assume_init_ref() };
    let next = previous.sa_sigaction;
    if next == libc::SIG_IGN && !is_fault {
        return;
    }
    if next == libc::SIG_DFL || next == libc::SIG_IGN {
        let mut default = action();
        default.sa_sigaction = libc::SIG_DFL;
        // An access faults again when this returns, and ends the process.
        // SAFETY: 1. a valid action.
        unsafe { libc::sigaction(signal, &raw const default, ptr::null_mut()) };
        if !is_fault {
            // SAFETY: 1. no precondition.
            unsafe { libc::raise(signal) };
        }
    } else if previous.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: 1. the program installed a handler of this type.
        let next = unsafe { core::mem::transmute::<usize, Handler>(next) };
        next(signal, info, context);
    } else {
        // SAFETY: 1. as above.
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
