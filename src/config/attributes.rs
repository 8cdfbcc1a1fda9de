//! What memory can be, beside readable and writable.
#![forbid(unsafe_code)]

use super::options::HugePages;

/// What memory is to be, beside readable and writable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) huge_pages: HugePages,
    /// Pages of a GiB, set aside by who runs the machine.
    pub(crate) is_gigantic: bool,
    /// Whether it stands in core dumps.
    pub(crate) is_dumped: bool,
    /// Whether the kernel may keep equal pages once.
    pub(crate) is_merged: bool,
    /// The node of memory that it is to come from, while that has some.
    pub(crate) node: Option<u32>,
}

impl Attributes {
    /// Those of any memory.
    pub(crate) const NONE: Self = Self {
        huge_pages: HugePages::Auto,
        is_gigantic: false,
        is_dumped: true,
        is_merged: false,
        node: None,
    };
}
