//! What memory can be, beside readable and writable.

use core::ptr::NonNull;

use super::told::{advise, map_gigantic, set_node};
use super::{Access, PageLen};
use crate::config::HugePages;

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

    /// Gives them to a range. Huge pages are a wish; whether all else was granted.
    pub(crate) fn give_to(self, base: NonNull<u8>, length: PageLen) -> bool {
        match self.huge_pages {
            HugePages::Advise => super::advise_huge(base, length),
            HugePages::Off => super::refuse_huge(base, length),
            HugePages::Auto => {}
        }
        let is_as_dumped = self.is_dumped || advise(base, length, libc::MADV_DONTDUMP);
        let is_as_merged = !self.is_merged || advise(base, length, libc::MADV_MERGEABLE);
        let is_at_node = self.node.is_none() || set_node(base, length, self.node);
        is_as_dumped && is_as_merged && is_at_node
    }

    /// Whether the kernel and the machine have such memory: asked with a page that is mapped for that.
    pub(crate) fn are_supported(self) -> bool {
        let page = PageLen::pages(1);
        let mapped = if self.is_gigantic {
            map_gigantic(1)
        } else {
            let base = super::map(page, page.bytes(), Access::Committed);
            base.map(|base| (base, page))
        };
        let Some((base, length)) = mapped else {
            return false;
        };
        let is_granted = self.give_to(base, length);
        // SAFETY: 1. our own, just mapped, and in nobody's use. What the kernel refuses to take is lost.
        let _ = unsafe { super::unmap(base, length) };
        // The kernel says that it merges these, and does not.
        is_granted && !(self.is_gigantic && self.is_merged)
    }

    /// Takes them from a range again that the engine goes on with, but for a wish. Where the kernel refuses, it keeps some,
    /// which changes nothing that is stored there.
    pub(crate) fn take_from(self, base: NonNull<u8>, length: PageLen) {
        let _ = self.is_dumped || advise(base, length, libc::MADV_DODUMP);
        let _ = !self.is_merged || advise(base, length, libc::MADV_UNMERGEABLE);
        let _ = self.node.is_none() || set_node(base, length, None);
    }
}
