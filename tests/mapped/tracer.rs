//! Children that are stopped and killed at an instruction of a call.
//!
//! The way of one child through the call is walked instruction by instruction. Others are sent to a point of it by a
//! breakpoint, as a step costs some tens of microseconds; where there are none, by as many steps.

use core::ffi::c_long;
use core::ptr;
use std::collections::HashMap;

/// An instruction on the way through a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    /// How many come before it.
    pub(crate) index: usize,
    address: usize,
    /// How often it was come to before.
    pub(crate) visit: usize,
    /// Whether it is not come to again.
    pub(crate) is_last: bool,
}

#[cfg(target_arch = "x86_64")]
const RIP: Option<usize> = Some(core::mem::offset_of!(libc::user_regs_struct, rip));
#[cfg(not(target_arch = "x86_64"))]
const RIP: Option<usize> = None;

const TRAP: c_long = 0xcc;

/// Waits for a change of a child; whether it ended.
fn has_ended(child: libc::pid_t) -> bool {
    let mut status = 0;
    // SAFETY: the status is writable.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    assert!(
        !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) == 0,
        "status {status:#x}"
    );
    !libc::WIFSTOPPED(status)
}

/// A word as the kernel tells it.
fn address_of(word: c_long) -> usize {
    usize::try_from(word.cast_unsigned()).expect("64 bits")
}

/// Where a child is.
fn place(child: libc::pid_t, rip: usize) -> usize {
    address_of(trace(libc::PTRACE_PEEKUSER, child, rip, 0))
}

fn trace(request: libc::c_uint, child: libc::pid_t, place: usize, data: c_long) -> c_long {
    let place = ptr::without_provenance_mut::<libc::c_void>(place);
    let data = ptr::without_provenance_mut::<libc::c_void>(address_of(data));
    // SAFETY: requests that touch no memory of this process.
    unsafe { libc::ptrace(request, child, place, data) }
}

/// A child that has prepared and is stopped before its call; `None` where nobody may trace.
pub(crate) fn stopped<T>(prepare: impl FnOnce() -> T, call: impl FnOnce(T)) -> Option<libc::pid_t> {
    // SAFETY: the child uses this thread and those that it starts.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork refused");
    if child == 0 {
        let prepared = prepare();
        let may = trace(libc::PTRACE_TRACEME, 0, 0, 0) == 0;
        // SAFETY: no preconditions, here and below.
        unsafe { libc::raise(if may { libc::SIGSTOP } else { libc::SIGKILL }) };
        call(prepared);
        // SAFETY: as above.
        unsafe { libc::_exit(0) };
    }
    (!has_ended(child)).then_some(child)
}

/// Whether this process may trace its children.
pub(crate) fn may_trace() -> bool {
    stopped(|| (), |()| ()).map(run).is_some()
}

fn step(child: libc::pid_t) -> bool {
    assert_eq!(trace(libc::PTRACE_SINGLESTEP, child, 0, 0), 0);
    !has_ended(child)
}

/// Has a child go to its end.
pub(crate) fn run(child: libc::pid_t) {
    assert_eq!(trace(libc::PTRACE_CONT, child, 0, 0), 0);
    assert!(has_ended(child), "stopped on its way");
}

/// All points on the way of a child, which goes it to its end.
pub(crate) fn walk(child: libc::pid_t) -> Vec<Point> {
    let mut visits = HashMap::new();
    let mut points = Vec::new();
    loop {
        let address = RIP.map_or(0, |rip| place(child, rip));
        let visit: &mut usize = visits.entry(address).or_default();
        points.push(Point {
            index: points.len(),
            address,
            visit: *visit,
            is_last: false,
        });
        *visit += 1;
        if !step(child) {
            break;
        }
    }
    for point in &mut points {
        point.is_last = visits[&point.address] == point.visit + 1;
    }
    points
}

/// Has a child go on to a point; whether it came there. Else it has ended.
fn go_to(child: libc::pid_t, point: Point) -> bool {
    let Some(rip) = RIP else {
        return (0..point.index).all(|_| step(child));
    };
    let text = trace(libc::PTRACE_PEEKTEXT, child, point.address, 0);
    let set = |word| trace(libc::PTRACE_POKETEXT, child, point.address, word) == 0;
    let with_trap = text & !0xff | TRAP;
    let mut left = point.visit;
    // The child is there from the first.
    if place(child, rip) == point.address {
        if left == 0 {
            return true;
        }
        left -= 1;
        if !step(child) {
            return false;
        }
    }
    if !set(with_trap) {
        // The kernel's own code.
        return (0..point.index).all(|_| step(child));
    }
    loop {
        assert_eq!(trace(libc::PTRACE_CONT, child, 0, 0), 0);
        if has_ended(child) {
            return false;
        }
        let at = place(child, rip);
        assert_eq!(at, point.address + 1, "stopped elsewhere");
        let address = point.address.cast_signed() as c_long;
        assert_eq!(trace(libc::PTRACE_POKEUSER, child, rip, address), 0);
        if left == 0 {
            return true;
        }
        left -= 1;
        assert!(set(text));
        if !step(child) {
            return false;
        }
        assert!(set(with_trap));
    }
}

/// Kills a child at a point; whether it came there.
pub(crate) fn kill_at(child: libc::pid_t, point: Point) -> bool {
    if !go_to(child, point) {
        return false;
    }
    // SAFETY: our own child, not yet waited for.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
    while !has_ended(child) {}
    true
}
