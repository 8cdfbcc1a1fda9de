//! The mapping, by its places. Whatever stands there may be anything: a number from it is checked before it is a place.

use core::ptr::NonNull;

use super::geometry::{BITS, CLASSES, Geometry};
use super::header::{Header, Line};
use super::log::Commits;
use super::slab::Slab;
use super::source::Source;
use super::words::Unit;
use crate::sync::{AtomicU64, Ordering};
use crate::units::{CHUNK, UNIT};

/// A heap's mapping, which stays until the process ends, shared or as a private copy.
pub(super) struct Area {
    base: NonNull<u8>,
    pub(super) geometry: Geometry,
    pub(super) source: Source,
    /// Of a heap that commits.
    pub(super) commits: Option<Commits>,
}

// SAFETY: 1. what lies there is atomic, or blocks of the program's.
unsafe impl Send for Area {}
// SAFETY: 1. as above.
unsafe impl Sync for Area {}

impl Area {
    /// # Safety
    /// 1. So many bytes are mapped there, until the process ends, for the heap alone.
    pub(super) unsafe fn new(
        base: NonNull<u8>,
        geometry: Geometry,
        source: Source,
        commits: Option<Commits>,
    ) -> Self {
        Self {
            base,
            geometry,
            source,
            commits,
        }
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// # Safety
    /// 1. The place is one of a `T`, by the geometry, and all of that is atomic.
    #[inline(always)]
    unsafe fn at<T>(&self, place: usize) -> &'static T {
        debug_assert!(place + size_of::<T>() <= self.geometry.bytes());
        // SAFETY: 1. inside the mapping.
        let place = unsafe { crate::ptr::advance::<T>(self.base, place) };
        // SAFETY: 1. our own; the mapping stays. Any bytes are such a value.
        unsafe { place.as_ref() }
    }

    pub(super) fn header(&self) -> &'static Header {
        // SAFETY: 1. the heap begins with it.
        unsafe { self.at(0) }
    }

    /// The line of a slot, by its number from 1.
    pub(super) fn line(&self, slot: u32) -> Option<&'static Line> {
        self.header().lines.get((slot as usize).checked_sub(1)?)
    }

    /// The word of a unit, if it is none of the tables'.
    pub(super) fn word(&self, unit: u32) -> Option<&'static AtomicU64> {
        let is_one = (self.geometry.first..self.geometry.units).contains(&unit);
        let place = self.geometry.words + unit as usize * size_of::<AtomicU64>();
        // SAFETY: 1. one of the units' words.
        is_one.then(|| unsafe { self.at(place) })
    }

    /// The word of a unit of the heap; that of a table's is Free.
    #[inline(always)]
    pub(super) fn raw_word(&self, unit: u32) -> u64 {
        let place = self.geometry.words + unit as usize * size_of::<AtomicU64>();
        // SAFETY: 1. one of the units' words.
        let word: &AtomicU64 = unsafe { self.at(place) };
        // ORDERING: as in `unit`.
        word.load(Ordering::Acquire)
    }

    /// What a unit is. Acquire: of a slab, its owner's bitmaps are seen.
    pub(super) fn unit(&self, unit: u32) -> Unit {
        // ORDERING: pairs with the releases by which units become something, and owners give up.
        let word = self.word(unit).map(|word| word.load(Ordering::Acquire));
        match word.map_or(Unit::Unknown, Unit::from_bits) {
            Unit::Slab { class, .. } if usize::from(class) >= CLASSES => Unit::Unknown,
            unit => unit,
        }
    }

    /// The descriptor of a unit of the heap.
    #[inline(always)]
    pub(super) fn slab(&self, unit: u32) -> &'static Slab {
        let place = self.geometry.slabs + unit as usize * size_of::<Slab>();
        // SAFETY: 1. one of the units' descriptors.
        unsafe { self.at(place) }
    }

    fn bits(&self, table: usize, word: usize) -> &'static AtomicU64 {
        // SAFETY: 1. one of the words of a bitmap with a bit for each unit.
        unsafe { self.at(table + word * size_of::<AtomicU64>()) }
    }

    /// A word of the bitmap of free units.
    pub(super) fn free(&self, word: usize) -> &'static AtomicU64 {
        self.bits(self.geometry.free, word)
    }

    /// A word of the bitmap of units that have space: see `space`.
    pub(super) fn reserved(&self, word: usize) -> &'static AtomicU64 {
        self.bits(self.geometry.reserved, word)
    }

    fn hints(&self, class: usize) -> usize {
        self.geometry.hints + class * self.geometry.hints_of_class
    }

    /// A word of the hints of a class, and the word in which that has a bit.
    pub(super) fn hint(
        &self,
        class: usize,
        word: usize,
    ) -> (&'static AtomicU64, &'static AtomicU64) {
        let table = self.hints(class);
        let place = table + self.geometry.summary + word / BITS * size_of::<AtomicU64>();
        // SAFETY: 1. one of the words that sum the hints up, which are fewer than these.
        (self.bits(table, word), unsafe { self.at(place) })
    }

    /// The units that somebody has or had.
    pub(super) fn touched(&self) -> core::ops::Range<u32> {
        // ORDERING: raised before the word of a unit is written.
        let high = self.header().high.0.load(Ordering::Relaxed);
        let Geometry { first, units, .. } = self.geometry;
        first..u32::try_from(high).unwrap_or(units).clamp(first, units)
    }

    /// The first byte of a unit of the heap.
    #[inline(always)]
    pub(super) fn start(&self, unit: u32) -> NonNull<u8> {
        // SAFETY: 1. a unit of the heap.
        unsafe { crate::ptr::advance(self.base, unit as usize * UNIT) }
    }

    /// The unit at an address, and how far inside, if it is one of the heap's.
    #[inline(always)]
    pub(super) fn locate(&self, address: usize) -> Option<(u32, usize)> {
        // OVERFLOW: what lies before the base wraps to more than the heap has.
        let distance = address.wrapping_sub(self.base.addr().get());
        #[expect(
            clippy::cast_possible_truncation,
            reason = "units are counted by 32 bits"
        )]
        (distance < self.geometry.bytes()).then_some(((distance / UNIT) as u32, distance % UNIT))
    }

    /// Where a `T` so many bytes from the base would be, if all of it lies behind the tables, aligned.
    pub(super) fn place_of<T>(&self, distance: u64) -> Option<NonNull<T>> {
        let distance = usize::try_from(distance).ok()?;
        let first = self.geometry.first as usize * UNIT;
        let last = self.geometry.bytes().checked_sub(size_of::<T>())?;
        // The base is aligned to a chunk, in every process.
        let is_aligned = distance.is_multiple_of(align_of::<T>()) && align_of::<T>() <= CHUNK;
        // SAFETY: 1. inside the heap.
        ((first..=last).contains(&distance) && is_aligned)
            .then(|| unsafe { crate::ptr::advance(self.base, distance) })
    }
}
