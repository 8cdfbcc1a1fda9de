//! Operation programs against a shadow of the heap: what libFuzzer and `soak` share.
//!
//! An operation is a word of bits, so that whoever makes up bits, a mutator or a generator of random
//! numbers, makes up operations. [`Run`] carries them out on the allocator and checks every answer: no
//! overlap with any live block of any thread, alignment, zeroing, contents.
//!
//! The allocator under test is [`HEAP`], called directly. This crate's own memory is the system's, so
//! that at the end nothing at all may be live in [`HEAP`].

mod block;
mod exchange;
mod op;
mod run;
mod shadow;

pub use exchange::Exchange;
pub use op::Op;
pub use run::{Run, Turn, expect_nothing_live};
pub use shadow::Shadow;

/// The allocator under test.
pub static HEAP: flagstone::Flagstone = flagstone::Flagstone::new();

/// All live blocks of this process.
pub static SHADOW: Shadow = Shadow::new();
