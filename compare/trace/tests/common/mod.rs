//! What the tests share: replaying a trace for real, with every promise checked.

use std::alloc::{self, Layout};
use std::path::Path;

use trace::{Kind, Trace};

/// A block of the replay.
struct Block {
    address: *mut u8,
    layout: Layout,
    /// In its first and last byte.
    mark: u8,
}

impl Block {
    fn last(&self) -> *mut u8 {
        self.address.wrapping_add(self.layout.size() - 1)
    }

    fn write(&self) {
        // SAFETY: 1. the block is live and has at least one byte.
        unsafe { self.address.write(self.mark) };
        // SAFETY: 1. as above.
        unsafe { self.last().write(self.mark) };
    }

    /// Nobody else wrote there.
    fn check(&self) {
        // SAFETY: 1. the block is live and has at least one byte, which `write` initialised.
        assert_eq!(unsafe { self.address.read() }, self.mark);
        // SAFETY: 1. as above.
        assert_eq!(unsafe { self.last().read() }, self.mark);
    }
}

fn alloc(layout: Layout, kind: Kind, mark: u8) -> Block {
    let address = match kind {
        // SAFETY: 1. no operation has size 0.
        Kind::AllocZeroed => unsafe { alloc::alloc_zeroed(layout) },
        // SAFETY: 1. as above.
        _ => unsafe { alloc::alloc(layout) },
    };
    assert!(!address.is_null() && address.addr().is_multiple_of(layout.align()));
    let block = Block {
        address,
        layout,
        mark,
    };
    if kind == Kind::AllocZeroed {
        Block { mark: 0, ..block }.check();
    }
    block.write();
    block
}

/// Runs all operations over the global allocator and checks them against what went before: only
/// slots that hold a block are freed, sizes agree, live bytes are as the trace says.
pub(crate) fn replay(trace: &Trace) {
    let mut slots: Vec<Option<Block>> = Vec::new();
    slots.resize_with(trace.slots(), || None);
    let (mut live, mut peak) = (0, 0);
    for (number, op) in trace.ops().iter().enumerate() {
        let mark = number as u8 | 1;
        let slot = &mut slots[op.slot()];
        match op.kind() {
            Kind::Alloc | Kind::AllocZeroed => {
                assert!(slot.is_none(), "operation {number}: the slot is in use");
                live += op.size();
                *slot = Some(alloc(op.layout(), op.kind(), mark));
            }
            Kind::Realloc => {
                let old = slot.take().expect("a reallocation of nothing");
                assert_eq!(old.layout.align(), op.align(), "operation {number}");
                old.check();
                // SAFETY: 1. the block is live and of this layout. 2. the new size is not 0 and makes
                // a layout: an `Op` has both.
                let address = unsafe { alloc::realloc(old.address, old.layout, op.size()) };
                assert!(!address.is_null());
                // SAFETY: 1. reallocation keeps the first byte.
                assert_eq!(unsafe { address.read() }, old.mark);
                live = live - old.layout.size() + op.size();
                let layout = op.layout();
                let block = Block {
                    address,
                    layout,
                    mark,
                };
                block.write();
                *slot = Some(block);
            }
            Kind::Free => {
                let old = slot.take().expect("a free of nothing");
                assert_eq!(old.layout, op.layout(), "operation {number}");
                old.check();
                live -= op.size();
                // SAFETY: 1. the block is live and of this layout; the slot forgot it.
                unsafe { alloc::dealloc(old.address, old.layout) };
            }
        }
        peak = peak.max(live);
    }
    let kept: usize = slots.iter().flatten().map(|it| it.layout.size()).sum();
    assert_eq!(kept, live);
    assert_eq!(
        (live as u64, peak as u64),
        (trace.end_live_bytes(), trace.peak_live_bytes())
    );
    for block in slots.into_iter().flatten() {
        block.check();
        // SAFETY: 1. the block is live and of this layout.
        unsafe { alloc::dealloc(block.address, block.layout) };
    }
}

/// Packs a recording with the program, as a user would, and opens the result.
pub(crate) fn pack(raw: &Path) -> Result<Trace, Box<dyn std::error::Error>> {
    let out = raw.with_extension("trace");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_trace"))
        .args(["pack".as_ref(), raw, &out])
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    Ok(Trace::open(out)?)
}
