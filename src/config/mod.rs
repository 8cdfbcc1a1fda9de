//! Run-time options: compile-time defaults, then `FLAGSTONE_*`, read once.
#![forbid(unsafe_code)]

mod active;
#[cfg(feature = "heaps")]
mod attributes;
mod options;

pub(crate) use active::*;
#[cfg(feature = "heaps")]
pub(crate) use attributes::Attributes;
pub use options::{Background, Config, HugePages, OptionError};
