//! Lists of mappings.

use super::Mapping;
use crate::sync::Link;

/// Mappings linked by `next`, newest first. Whoever has one holds the lock that it lies behind.
/// Each change is a store after which the list is whole, so that a child of a fork finds it whole.
pub(super) struct List(Link<Mapping>);

/// A mapping in a list, and the link that leads to it.
pub(super) struct Found<'a> {
    link: &'a Link<Mapping>,
    pub(super) mapping: &'static Mapping,
}

impl List {
    pub(super) const fn new() -> Self {
        Self(Link::none())
    }

    /// Its mappings, newest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Found<'_>> {
        let mut link = &self.0;
        core::iter::from_fn(move || {
            let mapping = link.get()?;
            let found = Found { link, mapping };
            link = &mapping.next;
            Some(found)
        })
    }

    /// Inserts a mapping that is in no list in front of the others.
    pub(super) fn insert(&self, mapping: &'static Mapping) {
        mapping.next.set(self.0.get());
        self.0.set(Some(mapping));
    }

    /// Removes the newest mapping.
    pub(super) fn remove_newest(&self) -> Option<&'static Mapping> {
        self.iter().next().map(Found::remove)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.get().is_none()
    }

    /// Hands all mappings to a list that is empty. A child of a fork in between has lost them, and
    /// does not find them in both.
    pub(super) fn move_to(&self, empty: &Self) {
        let all = self.0.get();
        self.0.set(None);
        empty.0.set(all);
    }
}

impl Found<'_> {
    /// Removes the mapping from its list.
    pub(super) fn remove(self) -> &'static Mapping {
        self.link.set(self.mapping.next.get());
        self.mapping
    }

    pub(super) fn length(&self) -> usize {
        self.mapping.length.get()
    }
}
