//! Opening and walking a trace leaves the global allocator alone: without this a replay could begin
//! with a heap that the reader warmed up.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use trace::Trace;

struct Counting;

thread_local! {
    /// Of this thread alone: the test harness has threads of its own.
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    CALLS.with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: 1. every call is answered by `System`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: 1. the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count();
        // SAFETY: 1. the caller's promise.
        unsafe { System.dealloc(block, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_trace_is_opened_without_the_global_allocator() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/doc_site.trace");
    assert!(
        path.as_os_str().len() < 384,
        "std allocates for such a path"
    );
    let before = CALLS.get();
    assert!(before > 0, "the path was allocated");
    let trace = Trace::open(&path);
    let bytes = trace.map(|trace| trace.ops().iter().map(|op| op.size()).sum::<usize>());
    let calls = CALLS.get() - before;
    assert!(bytes.is_ok_and(|bytes| bytes > 0));
    assert_eq!(calls, 0);
}
