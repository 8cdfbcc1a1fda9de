//! The options, as on Linux: nothing reads them.
#![forbid(unsafe_code)]

#[cfg(feature = "heaps")]
#[path = "../config/attributes.rs"]
mod attributes;
#[path = "../config/options.rs"]
mod options;

#[cfg(feature = "heaps")]
pub(crate) use attributes::Attributes;
pub use options::{Background, Config, HugePages, OptionError};
