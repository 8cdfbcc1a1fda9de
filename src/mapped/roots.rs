//! Things in the heap that are found by name.

use core::ptr::NonNull;

use super::Mapped;
use super::area::Area;
use super::error::MappedError;
use super::header::{NAME, ROOTS, Root};
use crate::sync::Ordering;

type Name = [u64; NAME / 8];

/// A name as it stands in a root: with zeros behind it.
fn name_of(name: &str) -> Result<Name, MappedError> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > NAME || bytes.contains(&0) {
        return Err(MappedError::Name);
    }
    let mut words = [0; NAME / 8];
    for (word, part) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut whole = [0; 8];
        whole[..part.len()].copy_from_slice(part);
        *word = u64::from_le_bytes(whole);
    }
    Ok(words)
}

impl Root {
    fn is(&self, name: &Name) -> bool {
        // ORDERING: by who has the lock, or for a look that `place` orders.
        let own = self
            .name
            .each_ref()
            .map(|word| word.load(Ordering::Relaxed));
        self.place.load(Ordering::Acquire) != 0 && own == *name
    }
}

fn find(area: &Area, name: &Name) -> Option<&'static Root> {
    area.header().roots.iter().find(|root| root.is(name))
}

/// Takes a name from all but one. A process that was killed while it gave one may have left two.
fn forget_others(area: &Area, name: &Name, kept: Option<&Root>) {
    let others = area.header().roots.iter().filter(|root| root.is(name));
    for root in others.filter(|root| kept.is_none_or(|kept| !core::ptr::eq(kept, *root))) {
        root.place.store(0, Ordering::Release);
    }
}

impl Mapped {
    /// Gives something in the heap a name, or another that name: a place, and what the program says it is. Names have 1 to
    /// 48 bytes, and no zeros. There are up to 64.
    ///
    /// A process that is killed meanwhile leaves the old one or the new one.
    ///
    /// # Errors
    ///
    /// [`MappedError::Name`]; [`Foreign`](MappedError::Foreign) for a place that is none of the heap's;
    /// [`Closed`](MappedError::Closed) and [`System`](MappedError::System) as for an allocation.
    pub fn set_root<T>(&self, name: &str, place: *const T, kind: u64) -> Result<(), MappedError> {
        let name = name_of(name)?;
        let area = &self.attachment.area;
        let is_block = |(unit, _): &(u32, usize)| *unit >= area.geometry.first;
        let located = area.locate(place.addr()).filter(is_block);
        located.ok_or(MappedError::Foreign)?;
        let held = area.lock(self.attachment.process()?)?;
        let distance = (place.addr() - area.base().addr().get()) as u64;
        let roots = &held.area.header().roots;
        // ORDERING: the lock orders them; `place`, last, publishes the others to who looks without it.
        let is_free = |root: &&Root| root.place.load(Ordering::Relaxed) == 0;
        let taken = roots.iter().filter(|root| !is_free(root)).count();
        if taken >= ROOTS && find(area, &name).is_none() {
            return Err(MappedError::Name);
        }
        let root = roots.iter().find(is_free).ok_or(MappedError::Name)?;
        for (to, word) in root.name.iter().zip(name) {
            to.store(word, Ordering::Relaxed);
        }
        root.kind.store(kind, Ordering::Relaxed);
        root.place.store(distance, Ordering::Release);
        forget_others(area, &name, Some(root));
        Ok(())
    }

    /// What has a name, and what the program said that it is. The place is one of the heap's.
    #[must_use]
    pub fn root(&self, name: &str) -> Option<(NonNull<u8>, u64)> {
        let area = &self.attachment.area;
        let name = name_of(name).ok()?;
        let _held = area.lock(self.attachment.process().ok()?).ok()?;
        let root = find(area, &name)?;
        let distance = usize::try_from(root.place.load(Ordering::Relaxed)).ok()?;
        let place = area.base().addr().get().checked_add(distance)?;
        // Whatever stands there: no place in the tables.
        area.locate(place)
            .filter(|(unit, _)| *unit >= area.geometry.first)?;
        // SAFETY: 1. inside the heap, as was just asked.
        let place = unsafe { crate::ptr::advance(area.base(), distance) };
        Some((place, root.kind.load(Ordering::Relaxed)))
    }

    /// Takes a name away; whether there was one. What had it stays.
    ///
    /// # Errors
    ///
    /// As [`set_root`](Self::set_root).
    pub fn remove_root(&self, name: &str) -> Result<bool, MappedError> {
        let area = &self.attachment.area;
        let name = name_of(name)?;
        let _held = area.lock(self.attachment.process()?)?;
        let found = find(area, &name).is_some();
        forget_others(area, &name, None);
        Ok(found)
    }
}
