//! Allocation traces: what a real program asked of its allocator, recorded once and replayed over
//! any allocator.
//!
//! 1. A program with a [`Recorder`] around its global allocator, run with `ALLOC_TRACE=FILE`, writes
//!    a raw file. `examples/` holds the programs of `compare/traces`.
//! 2. `trace pack RAW OUT` ([`pack`]) checks it and makes it small; `trace info OUT` ([`Summary`])
//!    says what is in it.
//! 3. [`Trace::open`] decodes it into memory that is not from the global allocator; a replay walks
//!    [`Trace::ops`].
//!
//! # What a replay cannot tell
//!
//! * **One order.** The operations of all threads are one sequence, that of the recorder's lock. A
//!   replay on one thread has no contention and no block that crosses threads; a replay on several
//!   has to enforce the order and then measures mostly that. In the program, another allocator would
//!   have led to another order.
//! * **No think time.** What the program did between two operations is gone, and with it the cache
//!   misses that the program and the allocator inflict on each other. A replay overstates the
//!   allocator's share: differences between allocators come out larger than in the program.
//! * **No contents.** Nobody knows which bytes the program wrote or read. A block that a replay does
//!   not touch costs no page fault; one that it touches throughout may cost too many.
//! * **Only requests.** Addresses are gone, so the locality that an allocator gave the program's own
//!   accesses is not measured. A reallocation that failed is left out, and so is whatever the program
//!   asked of the C library directly.
//! * **One input.** Three programs with one input each are three points, not a population.

mod column;
#[cfg(test)]
mod damaged;
mod encode;
mod format;
mod mapped;
mod op;
mod pack;
mod raw;
mod read;
mod recorder;
mod summary;

pub use op::{Kind, Op};
pub use pack::{PackError, pack};
pub use read::{Trace, TraceError};
pub use recorder::Recorder;
pub use summary::Summary;
