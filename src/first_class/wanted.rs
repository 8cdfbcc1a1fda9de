//! What is asked of a heap, and why it is refused.
#![forbid(unsafe_code)]

use core::fmt;

use crate::config::Attributes;

/// What is said of a heap when it is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) limit: usize,
    pub(super) panics: bool,
    pub(super) attributes: Attributes,
}

/// Why a request was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The heap would hold more than it may.
    Limit,
    NoMemory,
    /// There is no memory of that kind here.
    Unsupported,
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Limit => "the heap's limit is reached",
            Self::NoMemory => "out of memory",
            Self::Unsupported => "no memory of that kind",
        })
    }
}
