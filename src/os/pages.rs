//! Lengths of what the kernel maps: whole pages. The verbs take nothing else.
#![forbid(unsafe_code)]

use super::page_size;
use crate::units::{CHUNK, UNIT, round_up};

/// Bytes of whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct PageLen(usize);

impl PageLen {
    /// No page.
    pub(crate) const NONE: Self = Self(0);
    /// A chunk.
    pub(crate) const CHUNK: Self = Self::units(CHUNK / UNIT);

    /// The least that holds `bytes`; `None` past the end of memory.
    pub(crate) fn holding(bytes: usize) -> Option<Self> {
        round_up(bytes, page_size()).map(Self)
    }

    /// The most that `bytes` hold.
    pub(crate) fn within(bytes: usize) -> Self {
        Self(bytes & !(page_size() - 1))
    }

    /// Bytes that are whole pages already: a length that was kept as a number, or the sum of some.
    pub(crate) fn kept(bytes: usize) -> Self {
        debug_assert!(bytes.is_multiple_of(page_size()));
        Self(bytes)
    }

    /// So many pages: few.
    pub(crate) fn pages(count: usize) -> Self {
        Self(count * page_size())
    }

    /// So many units, each of whole pages: as many as there can be addresses for.
    pub(crate) const fn units(count: usize) -> Self {
        Self(count * UNIT)
    }

    /// So many chunks, as many as there can be addresses for.
    pub(crate) const fn chunks(count: usize) -> Self {
        Self(count * CHUNK)
    }

    /// Both lengths together; `None` past the end of memory.
    pub(crate) fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    pub(crate) const fn bytes(self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_whole_pages_or_none() {
        let page = page_size();
        let bytes = |length: Option<PageLen>| length.map(PageLen::bytes);
        assert_eq!(bytes(PageLen::holding(1)), Some(page));
        assert_eq!(bytes(PageLen::holding(page)), Some(page));
        assert_eq!(PageLen::holding(usize::MAX - page + 2), None);
        assert_eq!(PageLen::within(2 * page - 1), PageLen::pages(1));
        assert_eq!(PageLen::within(page - 1), PageLen::NONE);
        let most = PageLen::within(usize::MAX);
        assert_eq!(most.plus(PageLen::pages(1)), None);
        assert_eq!(bytes(most.plus(PageLen::NONE)), Some(usize::MAX - page + 1));
        assert_eq!(PageLen::CHUNK, PageLen::kept(CHUNK));
    }
}
