//! What lists of mappings are looked through for.

use super::Mapping;
use crate::sync::Link;

/// The best mapping from `link` on that will do, and the link to it. Locked.
pub(super) fn best(
    mut link: &'static Link<Mapping>,
    will_do: impl Fn(&Mapping) -> bool,
    is_better: impl Fn(&Mapping, &Mapping) -> bool,
) -> Option<(&'static Link<Mapping>, &'static Mapping)> {
    let mut found: Option<(&'static Link<Mapping>, &'static Mapping)> = None;
    while let Some(mapping) = link.get() {
        if will_do(mapping) && found.is_none_or(|(_, best)| is_better(mapping, best)) {
            found = Some((link, mapping));
        }
        link = &mapping.next;
    }
    found
}
