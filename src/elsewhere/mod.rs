//! Systems for which there is no `os` layer: the same calls, passed through to the system's allocator.
//!
//! Nothing of the engine is compiled here, and nothing of this where the engine is; `lib.rs` chooses. Safeguards, samples,
//! statistics and purging are the engine's: what a program must know is missing, it learns by a value.
//! `global` is the `GlobalAlloc`; `heap` the first-class heaps, a list of blocks under a lock.

extern crate std;

mod global;
#[cfg(feature = "heaps")]
mod heap;

pub use global::Flagstone;
#[cfg(feature = "heaps")]
pub use heap::{Heap, HeapError, HeapOptions, HeapStats};
