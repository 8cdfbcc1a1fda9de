//! What the examples share.

pub(crate) mod human;
pub(crate) mod interrupt;
pub(crate) mod rss;
pub(crate) mod say;
