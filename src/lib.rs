//! A memory allocator in pure Rust: per-thread magazines over out-of-band bitmaps.
#![no_std]

// In layer order: a module names only what stands below it here.
mod arena; // chunks of units, spans, owner map, metadata, purging
mod cache; // magazines of each thread, fast and slow paths, threads' lives
mod config; // run-time options
mod error; // violations and misuse in one line
mod global; // `Flagstone`, the `GlobalAlloc`
mod heap; // the slabs of each class; refill, flush, page holes
mod large; // a mapping for each large allocation, and spans handed out whole
mod os; // the only callers of libc
mod ptr; // offsets to pointers
mod size_class; // layout to class
mod slab; // blocks of one class in a span, a bitmap elsewhere
mod stats; // the snapshot
mod sync; // atomics and guarded cells
mod units; // geometry

#[cfg(test)]
extern crate std;

pub use config::{Config, HugePages};
pub use error::Violation;
pub use global::Flagstone;
#[cfg(feature = "failpoints")]
#[doc(hidden)]
pub use os::failpoints;
pub use stats::Stats;
