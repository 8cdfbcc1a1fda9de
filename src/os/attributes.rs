//! Memory that is more than readable and writable.

use core::ffi::c_int;
use core::ptr::NonNull;

use super::told::{advise, map_gigantic, set_node};
use super::{Access, PageLen};
use crate::config::{Attributes, HugePages};

/// Why memory cannot have attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotGranted {
    NoMemory,
    /// The kernel or the machine has no such memory.
    Unknown,
}

impl Attributes {
    /// Gives them to a range. Huge pages are a wish; all else may be refused, by the kernel's number.
    pub(crate) fn give_to(self, base: NonNull<u8>, length: PageLen) -> Result<(), c_int> {
        match self.huge_pages {
            HugePages::Advise => super::advise_huge(base, length),
            HugePages::Off => super::refuse_huge(base, length),
            HugePages::Auto => {}
        }
        if !self.is_dumped {
            advise(base, length, libc::MADV_DONTDUMP)?;
        }
        if self.is_merged {
            advise(base, length, libc::MADV_MERGEABLE)?;
        }
        if self.node.is_some() {
            set_node(base, length, self.node)?;
        }
        Ok(())
    }

    /// Tries them on a page that is mapped for that.
    pub(crate) fn try_out(self) -> Result<(), NotGranted> {
        let page = PageLen::pages(1);
        let (base, length) = if self.is_gigantic {
            // The kernel does not tell a machine without such pages from one that has none to spare.
            map_gigantic(1).ok_or(NotGranted::Unknown)?
        } else {
            let base = super::map(page, page.bytes(), Access::Committed);
            (base.ok_or(NotGranted::NoMemory)?, page)
        };
        let granted = self.give_to(base, length);
        // SAFETY: 1. our own, just mapped, and in nobody's use. What the kernel refuses to take is lost.
        let _ = unsafe { super::unmap(base, length) };
        match granted {
            Err(libc::ENOMEM | libc::EAGAIN) => Err(NotGranted::NoMemory),
            Err(_) => Err(NotGranted::Unknown),
            // The kernel says that it merges these, and does not.
            Ok(()) if self.is_gigantic && self.is_merged => Err(NotGranted::Unknown),
            Ok(()) => Ok(()),
        }
    }

    /// Takes them from a range again that the engine goes on with, but for a wish. Where the kernel refuses, it keeps some,
    /// which changes nothing that is stored there.
    pub(crate) fn take_from(self, base: NonNull<u8>, length: PageLen) {
        if !self.is_dumped {
            let _ = advise(base, length, libc::MADV_DODUMP);
        }
        if self.is_merged {
            let _ = advise(base, length, libc::MADV_UNMERGEABLE);
        }
        if self.node.is_some() {
            let _ = set_node(base, length, None);
        }
    }
}
