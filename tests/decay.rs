//! Without this, two threads that purge one chunk at the same time may lose units or give them away twice.

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use flagstone::failpoints::{self, Callback, Point};
use flagstone::{Background, Config, Flagstone};

/// Purges whenever something is freed.
#[global_allocator]
static ALLOC: Flagstone =
    Flagstone::with_config(Config::new().purge_delay_ms(0).background(Background::Off));

/// The next purge is to stop on its way.
static IS_ARMED: AtomicBool = AtomicBool::new(false);
static HAS_STOPPED: AtomicBool = AtomicBool::new(false);
static MAY_GO_ON: AtomicBool = AtomicBool::new(false);

static STOP_ONE: Callback = |point| {
    if point == Point::Purge && IS_ARMED.swap(false, Ordering::SeqCst) {
        HAS_STOPPED.store(true, Ordering::SeqCst);
        wait_for(&MAY_GO_ON);
    }
};

fn wait_for(flag: &AtomicBool) {
    while !flag.load(Ordering::SeqCst) {
        thread::yield_now();
    }
}

fn span() -> Layout {
    Layout::from_size_align(300 << 10, 8).expect("a layout")
}

fn alloc() -> usize {
    // SAFETY: the layout is not of size 0.
    let block = unsafe { ALLOC.alloc(span()) };
    assert!(!block.is_null());
    // SAFETY: the block is as long as its layout.
    unsafe { block.write_bytes(1, span().size()) };
    block.expose_provenance()
}

/// Whether a block from [`alloc`] still holds what it was filled with.
fn is_filled(block: usize) -> bool {
    let start = core::ptr::with_exposed_provenance::<u8>(block);
    // SAFETY: as long as its layout, and written by `alloc`.
    let bytes = unsafe { core::slice::from_raw_parts(start, span().size()) };
    bytes.iter().all(|byte| *byte == 1)
}

fn free(block: usize) {
    // SAFETY: from `alloc`, and each is freed once.
    unsafe { ALLOC.dealloc(core::ptr::with_exposed_provenance_mut(block), span()) };
}

#[test]
fn purgers_of_one_chunk_keep_apart() {
    // The last stays, so that the chunk does.
    let [first, second, last] = [alloc(), alloc(), alloc()];
    failpoints::at_points(Some(&STOP_ONE));
    IS_ARMED.store(true, Ordering::SeqCst);
    let other = thread::spawn(move || free(first));
    wait_for(&HAS_STOPPED);
    // The lowest free units, were those not taken out that are being purged.
    let taken = alloc();
    free(second);
    Flagstone::verify().expect("every invariant while one purge is under way");
    MAY_GO_ON.store(true, Ordering::SeqCst);
    other.join().expect("the span is freed");
    failpoints::at_points(None);
    Flagstone::verify().expect("every invariant after both purges");
    assert!(is_filled(taken), "a span in use was purged");
    free(taken);
    free(last);
}
