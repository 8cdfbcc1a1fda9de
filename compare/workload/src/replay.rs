//! t_: recorded programs played back: the allocations of a real program in their order, on one thread.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error, realloc};
use std::ptr::NonNull;

use trace::{Kind, Op, Trace};

use super::mapped::{MappedArray, Zeroed};
use super::meter::{Meter, Reading};

/// The traces, in the programs: one file to run, wherever it is.
macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../traces/",
            $name,
            ".trace"
        ))
    };
}

const PAGE: usize = 4096;

/// A block of the recorded program.
#[derive(Clone, Copy)]
struct Slot {
    block: NonNull<u8>,
    layout: Layout,
}

// SAFETY: 1. an address is a `NonNull`, so zero is `None`. 2. aligned to 8.
unsafe impl Zeroed for Option<Slot> {}

/// `syn` reads the sources of a crate.
pub(crate) fn rust_sources(meter: &Meter) -> Reading {
    replay(meter, recorded!("rust_sources"), 4)
}

/// Markdown made into a site.
pub(crate) fn doc_site(meter: &Meter) -> Reading {
    replay(meter, recorded!("doc_site"), 15)
}

/// A server of searches, its threads' operations in the order in which they came.
pub(crate) fn search_server(meter: &Meter) -> Reading {
    replay(meter, recorded!("search_server"), 8)
}

/// An operation is one of the program's calls.
fn replay(meter: &Meter, file: &[u8], rounds: u64) -> Reading {
    let trace = Trace::from_bytes(file).expect("the trace was checked when it was recorded");
    let mut slots =
        MappedArray::<Option<Slot>>::new(trace.slots().max(1)).expect("memory for the slots");
    let ops = trace.ops();
    meter.run(rounds, ops.len(), |rounds| {
        (0..rounds).fold(0, |sum: u64, _| sum.wrapping_add(pass(ops, &mut slots)))
    })
}

fn pass(ops: &[Op], slots: &mut [Option<Slot>]) -> u64 {
    let mut sum = 0_u64;
    for op in ops {
        let slot = &mut slots[op.slot()];
        match op.kind() {
            Kind::Alloc | Kind::AllocZeroed => *slot = Some(Slot::new(*op)),
            Kind::Realloc => {
                let old = slot.as_mut().expect("a trace reallocates what is live");
                sum = sum.wrapping_add(old.resize(op.size()));
            }
            Kind::Free => {
                let old = slot.take().expect("a trace frees what is live");
                sum = sum.wrapping_add(old.free());
            }
        }
    }
    // what the program had when it ended
    for slot in slots {
        sum = sum.wrapping_add(slot.take().map_or(0, Slot::free));
    }
    sum
}

impl Slot {
    #[inline]
    fn new(op: Op) -> Self {
        let layout = op.layout();
        let block = if op.kind() == Kind::AllocZeroed {
            // SAFETY: 1. a trace has no size 0.
            unsafe { alloc_zeroed(layout) }
        } else {
            // SAFETY: 1. as above.
            unsafe { alloc(layout) }
        };
        let block = NonNull::new(block).unwrap_or_else(|| handle_alloc_error(layout));
        let slot = Self { block, layout };
        slot.write_from(0);
        slot
    }

    /// The first byte is the size's, and every page from `start` on gets a byte: the program wrote its blocks.
    #[inline]
    fn write_from(self, start: usize) {
        // SAFETY: 1. at least a byte.
        unsafe { self.block.write(self.layout.size() as u8) };
        let mut offset = start.next_multiple_of(PAGE).max(PAGE);
        while offset < self.layout.size() {
            // SAFETY: 1. inside the block.
            let page = unsafe { self.block.add(offset) };
            // SAFETY: 1. as above.
            unsafe { page.write(1) };
            offset += PAGE;
        }
    }

    fn first_byte(self) -> u64 {
        // SAFETY: 1. written by `new`.
        u64::from(unsafe { self.block.read() })
    }

    fn resize(&mut self, size: usize) -> u64 {
        let before = self.layout;
        // SAFETY: 1. live. 2. its layout. 3. not 0, and with this alignment a layout (`Op`).
        let moved = unsafe { realloc(self.block.as_ptr(), before, size) };
        // SAFETY: 1. and 2. as above.
        self.layout = unsafe { Layout::from_size_align_unchecked(size, before.align()) };
        self.block = NonNull::new(moved).unwrap_or_else(|| handle_alloc_error(self.layout));
        let kept = self.first_byte();
        self.write_from(before.size());
        kept
    }

    #[inline]
    fn free(self) -> u64 {
        let first = self.first_byte();
        // SAFETY: 1. live, and taken out of its place. 2. its layout.
        unsafe { dealloc(self.block.as_ptr(), self.layout) };
        first
    }
}
