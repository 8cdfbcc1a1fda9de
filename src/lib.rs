//! A memory allocator in pure Rust: per-thread magazines over out-of-band bitmaps.
#![no_std]
#![cfg_attr(
    all(test, loom),
    expect(dead_code, reason = "the models use parts of their modules")
)]

cfg_if::cfg_if! {
    if #[cfg(all(test, loom))] {
        // The models' build: the lock-free protocols alone, each with its model beside it.
        #[path = "os/canary.rs"]
        mod canary;
        #[path = "cache/magazine.rs"]
        mod magazine;
        mod sync;
    } else {
        // In layer order: a module names only what stands below it here.
        mod global; // `Flagstone`, the `GlobalAlloc`
        mod cache; // magazines of each thread, fast and slow paths, threads' lives
        mod heap; // the slabs of each class; refill, flush, page holes
        mod large; // a mapping for each large allocation, and spans handed out whole
        mod slab; // blocks of one class in a span, a bitmap elsewhere
        mod arena; // chunks of units, spans, owner map, metadata, purging
        mod os; // the only callers of libc
        mod config; // run-time options
        mod size_class; // layout to class
        mod stats; // the snapshot
        mod error; // violations and misuse in one line
        mod ptr; // offsets to pointers
        mod sync; // atomics and guarded cells
        mod units; // geometry

        pub use config::{Config, HugePages};
        pub use error::Violation;
        pub use global::Flagstone;
        #[cfg(feature = "failpoints")]
        #[doc(hidden)]
        pub use os::failpoints;
        pub use stats::Stats;
    }
}

#[cfg(test)]
extern crate std;
