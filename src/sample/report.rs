//! What is said about a sampled block: what happened, and where it was allocated and freed.

use core::fmt;

use super::{Place, State, offset_of, place_of};
use crate::os;
use crate::sync::{AtomicUsize, GuardedU8, GuardedUsize, Ordering};

/// The unwinder may hold a lock of its own, as libgcc's does in static programs, which a fork leaves held.
struct Unwinder {
    /// Threads that are recording where they are.
    inside: AtomicUsize,
    /// 1 in a child of a fork that met one inside, and in its children.
    is_lost: GuardedU8,
}

static UNWINDER: Unwinder = Unwinder {
    inside: AtomicUsize::new(0),
    is_lost: GuardedU8::new(0),
};

/// In a forked child: whoever was inside the unwinder is gone.
pub(super) fn recover() {
    // ORDERING: pairs with the changes in `record`; the child's memory is a copy of what they left.
    if UNWINDER.inside.load(Ordering::Relaxed) != 0 {
        UNWINDER.is_lost.set(1);
    }
}

/// Return addresses that are kept.
const FRAMES: usize = 24;
/// The allocator's own frames, which say nothing.
const OWN: usize = 2;

/// Where a thread was.
pub(super) struct Trace {
    thread: GuardedUsize,
    frames: [GuardedUsize; FRAMES],
}

impl Trace {
    /// Notes where the calling thread is.
    pub(super) fn record(&self) {
        self.thread.set(os::thread_id());
        let mut known = 0;
        if UNWINDER.is_lost.get() == 0 {
            // ORDERING: not for another thread but for a fork, whose copy must not have the unwinder's
            // stores without this one: pairs with the load in `recover`.
            UNWINDER.inside.fetch_add(1, Ordering::SeqCst);
            os::backtrace(|address| {
                if let Some(frame) = self.frames.get(known) {
                    frame.set(address);
                }
                known += 1;
                known < FRAMES
            });
            // ORDERING: as above, after the unwinder's stores.
            UNWINDER.inside.fetch_sub(1, Ordering::Release);
        }
        for frame in self.frames.iter().skip(known) {
            frame.set(0);
        }
    }

    fn is_known(&self) -> bool {
        self.thread.get() != 0
    }

    pub(super) fn clear(&self) {
        self.thread.set(0);
    }

    fn print(&self, what: &str) {
        let thread = self.thread.get();
        if thread == 0 {
            return;
        }
        os::complain(format_args!("{what} by thread {thread}:"));
        let known = self.frames.iter().map(GuardedUsize::get);
        for (number, address) in known.take_while(|address| *address != 0).enumerate() {
            if number >= OWN {
                os::complain(format_args!("  #{} {}", number - OWN, Frame(address)));
            }
        }
    }
}

/// A call with its offset in the object that it lies in, for `addr2line -Cfe OBJECT OFFSET`; in a program
/// without relocation the address itself is wanted.
struct Frame(usize);

impl fmt::Display for Frame {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The call is before the address that it returns to.
        let call = self.0.wrapping_sub(1);
        let Some((path, base)) = os::object_at(self.0) else {
            return write!(out, "{call:#x}");
        };
        // A long path may be cut off, so it comes last.
        let (offset, path) = (call.wrapping_sub(base), path.to_str().unwrap_or("?"));
        write!(out, "{call:#x} {offset:#x} {path}")
    }
}

impl Place {
    fn print(&self) {
        let (address, size) = (self.address.get(), self.size.get());
        os::complain(format_args!("a block of {size} bytes at {address:#x}"));
        self.allocated_by.print("allocated");
        self.freed_by.print("freed");
    }
}

/// Says what happened to a place, and ends the process.
#[cold]
pub(super) fn die(fault: impl fmt::Display, address: usize, place: Option<&Place>) -> ! {
    let thread = os::thread_id();
    let line = format_args!("{fault}: {address:#x}, sampled, thread {thread}");
    match place {
        Some(place) => {
            os::complain(line);
            place.print();
            os::abort()
        }
        None => os::die(line),
    }
}

/// Prints where the calling thread is, without keeping it.
fn print_here() {
    os::complain(format_args!("accessed by thread {}:", os::thread_id()));
    let mut number = 0;
    os::backtrace(|address| {
        os::complain(format_args!("  #{number} {}", Frame(address)));
        number += 1;
        number < FRAMES
    });
}

/// Called by the handler of faults: says what it knows if `address` is in the pool.
pub(super) fn fault(address: usize) {
    if let Some((what, place)) = explain(address) {
        let thread = os::thread_id();
        os::complain(format_args!(
            "{what}: {address:#x}, sampled, thread {thread}"
        ));
        place.print();
        print_here();
    }
}

/// What an access to `address` in the pool was, and to which block.
fn explain(address: usize) -> Option<(&'static str, &'static Place)> {
    let offset = offset_of(address)?;
    let page = offset / os::page_size();
    if let Some(place) = place_of(page) {
        // One on its way from live to freed knows who frees it.
        let what = if place.state() == State::Freed || place.freed_by.is_known() {
            "use after free"
        } else {
            "access beside a block"
        };
        return Some((what, place));
    }
    // Between two places: what lies nearer, if it was ever used.
    let used = |page: usize| place_of(page).filter(|place| place.state() != State::Unused);
    let before = page.checked_sub(1).and_then(used);
    let after = used(page + 1);
    let is_near_end = offset % os::page_size() >= os::page_size() / 2;
    match (before, after) {
        (Some(before), Some(_)) if !is_near_end => Some(("overflow", before)),
        (_, Some(after)) => Some(("underflow", after)),
        (Some(before), None) => Some(("overflow", before)),
        (None, None) => None,
    }
}
