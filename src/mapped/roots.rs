//! Things in the heap that are found by name.

use core::ptr::NonNull;

use super::Mapped;
use super::attachment::State;
use super::error::MappedError;
use super::header::ROOTS;
use super::names::{NAME, Name, Named};

pub(super) fn name_of(name: &str) -> Result<Name, MappedError> {
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
        let place = (place.addr() - area.base().addr().get()) as u64;
        let is_set = held
            .area
            .header()
            .names()
            .set(ROOTS, Named { place, kind, name });
        is_set.then_some(()).ok_or(MappedError::Name)
    }

    /// What has a name, and what the program said that it is. The place is one of the heap's. Takes no lock.
    #[must_use]
    pub fn root(&self, name: &str) -> Option<(NonNull<u8>, u64)> {
        if self.attachment.state() == State::Closed {
            return None;
        }
        let area = &self.attachment.area;
        let root = area.header().names().find(&name_of(name).ok()?)?;
        Some((area.place_of(root.distance())?, root.kind))
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
        Ok(area.header().names().forget(&name))
    }
}
