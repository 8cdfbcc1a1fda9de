//! Things in the heap that are found by name, with their types.

use core::iter::FusedIterator;
use core::str;

use super::Mapped;
use super::area::Area;
use super::attachment::State;
use super::error::MappedError;
use super::header::ROOTS;
use super::inside::{Box, Persist, shape_of};
use super::names::{NAME, Named, Root, TYPED};
use super::roots::name_of;

/// A name in a heap, and what the program said that has it: the shape of a type, for what [`Mapped::insert`] put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RootName {
    bytes: [u8; NAME],
    length: usize,
    /// What [`Mapped::root`] answers.
    pub kind: u64,
}

impl RootName {
    pub(super) fn new(named: &Named) -> Self {
        let mut bytes = [0; NAME];
        for (part, word) in bytes.chunks_mut(8).zip(named.name) {
            part.copy_from_slice(&word.to_le_bytes());
        }
        let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(NAME);
        Self {
            bytes,
            length,
            kind: named.kind,
        }
    }

    pub(super) fn has_bytes(&self) -> bool {
        self.length != 0
    }

    /// The name; empty if somebody wrote there what is no text.
    #[must_use]
    pub fn name(&self) -> &str {
        str::from_utf8(&self.bytes[..self.length]).unwrap_or("")
    }
}

/// The names of a heap at one moment: see [`Mapped::roots`].
#[derive(Clone, Debug)]
pub struct RootNames {
    found: [Option<Named>; ROOTS + 1],
    next: usize,
}

impl Iterator for RootNames {
    type Item = RootName;

    fn next(&mut self) -> Option<RootName> {
        loop {
            let at = self.next;
            let found = self.found.get(at)?;
            self.next += 1;
            // A process that was killed while it gave a name may have left two: the first is the one.
            let is_new = |named: &&Named| {
                let mut before = self.found[..at].iter().flatten();
                !before.any(|other| other.name == named.name)
            };
            if let Some(named) = found.as_ref().filter(is_new) {
                return Some(RootName::new(named));
            }
        }
    }
}

impl FusedIterator for RootNames {}

/// All names at one moment.
pub(super) fn all_names(area: &Area) -> [Option<Named>; ROOTS + 1] {
    let read = |roots: &[Root]| {
        let mut found = [None; ROOTS + 1];
        for (place, root) in found.iter_mut().zip(roots) {
            *place = root.read();
        }
        found
    };
    area.header().names().look(read)
}

/// What has a name, if it is a `T`.
pub(super) fn typed<T: Persist>(area: &Area, named: Named) -> Result<&'static T, MappedError> {
    if !named.is_typed() || named.kind != shape_of::<T>() {
        return Err(MappedError::Type);
    }
    let place = area.place_of::<T>(named.distance());
    // SAFETY: 1. put there as a `T`, as the shape says; removed once nobody uses it any more. The mapping stays.
    place
        .map(|place| unsafe { place.as_ref() })
        .ok_or(MappedError::Damaged)
}

impl Mapped {
    /// Moves a value into a block of the heap, and gives it a name of [1 to 48 bytes](Self::set_root). What others find by
    /// that name is this value: they and this process share it.
    ///
    /// A process that is killed meanwhile leaves the name or none. Without the name the block is lost.
    ///
    /// ```
    /// use flagstone::mapped::Mutex;
    /// use flagstone::{Mapped, MappedError};
    ///
    /// let heap = Mapped::create(16 << 20)?;
    /// heap.insert("limit", Mutex::new(10_u32))?;
    /// // In another process, perhaps:
    /// let limit = heap.get::<Mutex<u32>>("limit")?.expect("just put there");
    /// assert!(limit.lock().is_ok_and(|limit| *limit == 10));
    /// assert_eq!(heap.get::<u64>("limit"), Err(MappedError::Type));
    /// # Ok::<(), flagstone::MappedError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`MappedError::Exists`] if something has the name; [`Name`](MappedError::Name) as for [`set_root`](Self::set_root);
    /// [`Foreign`](MappedError::Foreign) if the value holds a block of another heap itself: of what lies in its blocks nobody
    /// looks; [`NoSpace`](MappedError::NoSpace), [`Closed`](MappedError::Closed), [`System`](MappedError::System). The value is
    /// dropped.
    pub fn insert<T: Persist + Send + Sync>(
        &self,
        name: &str,
        value: T,
    ) -> Result<&'static T, MappedError> {
        self.put(name, value, |found| match found {
            Some(_) => Err(MappedError::Exists),
            None => Ok(()),
        })
        .map(|(new, ())| new)
    }

    /// The same for a name that something may have: what had it stays, as others may use it, and is the second of the two.
    /// Once nobody does, [`Box::from_raw_in`] frees it.
    ///
    /// A process that is killed meanwhile leaves the one or the other. The block of the one without a name is lost.
    ///
    /// # Errors
    ///
    /// As of [`insert`](Self::insert), but that [`MappedError::Type`] takes the place of [`Exists`](MappedError::Exists): what
    /// has the name is of another type.
    pub fn replace<T: Persist + Send + Sync>(
        &self,
        name: &str,
        value: T,
    ) -> Result<(&'static T, Option<&'static T>), MappedError> {
        let area = &self.attachment.area;
        self.put(name, value, |found| {
            found.map(|found| typed(area, found)).transpose()
        })
    }

    /// Puts a value into a block, and gives it a name if `check` allows, with the lock.
    fn put<T: Persist + Send + Sync, R>(
        &self,
        name: &str,
        value: T,
        check: impl FnOnce(Option<Named>) -> Result<R, MappedError>,
    ) -> Result<(&'static T, R), MappedError> {
        const { assert!(size_of::<T>() != 0, "a name leads to a block") };
        let name = name_of(name)?;
        let area = &self.attachment.area;
        let process = self.attachment.process()?;
        let mut is_own = true;
        // SAFETY: 1. nobody else has the value yet.
        unsafe {
            value.visit(&mut |place| {
                is_own &= area.locate(place.addr().get()).is_some();
                false
            });
        }
        if !is_own {
            return Err(MappedError::Foreign);
        }
        let block = Box::try_new_in(value, self.handle()).map_err(|_| MappedError::NoSpace)?;
        let held = area.lock(process)?;
        let names = held.area.header().names();
        let checked = check(names.find_held(&name))?;
        let place = (&raw const *block).addr() - area.base().addr().get();
        let new = Named {
            place: place as u64 | TYPED,
            kind: shape_of::<T>(),
            name,
        };
        if !names.set(ROOTS, new) {
            return Err(MappedError::Name);
        }
        Ok((Box::leak(block), checked))
    }

    /// What has a name, with its type. Takes no lock.
    ///
    /// # Errors
    ///
    /// [`MappedError::Type`] if what has the name is no `T`, or a `T` with another layout;
    /// [`Damaged`](MappedError::Damaged) if it lies nowhere; [`Name`](MappedError::Name); [`Closed`](MappedError::Closed).
    pub fn get<T: Persist + Send + Sync>(
        &self,
        name: &str,
    ) -> Result<Option<&'static T>, MappedError> {
        if self.attachment.state() == State::Closed {
            return Err(MappedError::Closed);
        }
        let area = &self.attachment.area;
        let found = area.header().names().find(&name_of(name)?);
        found.map(|found| typed(area, found)).transpose()
    }

    /// Takes a name away, and what has it: dropping that frees it.
    ///
    /// A process that is killed meanwhile leaves the name, or a block that nobody has.
    ///
    /// # Errors
    ///
    /// As of [`get`](Self::get); [`MappedError::System`].
    ///
    /// # Safety
    ///
    /// 1. Nobody uses what has the name any more, in any process, nor will: all that [`get`](Self::get), [`insert`](Self::insert)
    ///    and [`replace`](Self::replace) answered for it is gone.
    pub unsafe fn remove<T: Persist + Send + Sync>(
        &self,
        name: &str,
    ) -> Result<Option<Box<T>>, MappedError> {
        let name = name_of(name)?;
        let area = &self.attachment.area;
        let held = area.lock(self.attachment.process()?)?;
        let names = held.area.header().names();
        let Some(found) = names.find_held(&name) else {
            return Ok(None);
        };
        typed::<T>(area, found)?;
        let place = area
            .place_of::<T>(found.distance())
            .ok_or(MappedError::Damaged)?;
        names.forget(&name);
        // SAFETY: 1. a block that `put` made, and that nobody uses, as the caller says.
        Ok(Some(unsafe {
            Box::from_raw_in(place.as_ptr(), self.handle())
        }))
    }

    /// All names and what has them, at one moment. Takes no lock.
    #[must_use]
    pub fn roots(&self) -> RootNames {
        RootNames {
            found: all_names(&self.attachment.area),
            next: 0,
        }
    }
}
