//! A process with as many mappings as it may have.

use core::ptr;

use crate::common::process::page_size;

/// Mappings of the test's own, as many as the kernel lets a process have.
pub(crate) struct Filler {
    base: *mut libc::c_void,
    length: usize,
}

#[expect(
    clippy::disallowed_methods,
    reason = "mappings that the allocator does not own"
)]
impl Filler {
    /// Every other page of a long mapping becomes readable, until no page can any more.
    pub(crate) fn new(most: usize) -> Self {
        let page = page_size();
        let length = (most + 2) * 2 * page;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping, at an address that the kernel chooses.
        let base = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_NONE, kind, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED, "mmap refused");
        let last = length - page;
        let offsets = [0, last]
            .into_iter()
            .chain((2 * page..last).step_by(2 * page));
        let mut refused = false;
        for offset in offsets {
            let start = base.wrapping_byte_add(offset);
            // SAFETY: a page of the mapping above, which nobody uses.
            if unsafe { libc::mprotect(start, page, libc::PROT_READ) } != 0 {
                refused = true;
                break;
            }
        }
        assert!(refused, "{most} mappings were not the limit");
        Self { base, length }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "mappings that the allocator does not own"
)]
impl Drop for Filler {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody uses it.
        let result = unsafe { libc::munmap(self.base, self.length) };
        assert_eq!(result, 0, "munmap refused");
    }
}
