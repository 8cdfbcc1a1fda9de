//! A sweep: what nothing with a name leads to is free. For heaps whose processes were killed with blocks that nobody else
//! knows of.

use core::ops::Range;
use core::ptr::NonNull;

use super::Mapped;
use super::area::Area;
use super::error::MappedError;
use super::geometry::{BITS, blocks_of};
use super::header::ROOTS;
use super::inside::Persist;
use super::lock::Held;
use super::named::{all_names, typed};
use super::names::Named;
use super::roots::name_of;
use super::slab::WORDS;
use super::source::no_memory;
use super::words::Unit;
use crate::os::{self, Access, PageLen};
use crate::size_class::SizeClass;
use crate::sync::{AtomicU64, Ordering};
use crate::units::UNIT;

/// What a [sweep](Mapped::sweep) has seen so far.
pub struct Sweep<'a> {
    area: &'a Area,
    marks: Marks,
    /// Names that are still to be told.
    left: u128,
    /// What names without a type lead to. Marked last: what lies in these blocks may have been told of by others.
    blocks: [Option<NonNull<u8>>; ROOTS + 1],
    names: &'a [Option<Named>],
}

/// What a sweep freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// Blocks that nothing led to.
    pub blocks: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// A bit for each block that something leads to, in memory of this process; of a run the first.
struct Marks {
    words: NonNull<AtomicU64>,
    /// The units that somebody had when the sweep began: others are left alone.
    units: Range<u32>,
    length: PageLen,
}

impl Marks {
    fn new(area: &Area) -> Result<Self, MappedError> {
        let units = area.touched();
        let bytes = units.len() * WORDS * size_of::<u64>();
        let length = PageLen::holding(bytes.max(1)).ok_or(no_memory())?;
        let page = PageLen::pages(1).bytes();
        let words = os::map(length, page, Access::Committed).ok_or(no_memory())?;
        Ok(Self {
            words: words.cast(),
            units,
            length,
        })
    }

    /// A word of a unit that somebody had.
    fn word(&self, unit: u32, word: usize) -> &AtomicU64 {
        let place = (unit - self.units.start) as usize * WORDS + word % WORDS;
        // SAFETY: 1. as many words for each of these units.
        let word: NonNull<AtomicU64> =
            unsafe { crate::ptr::advance(self.words.cast(), place * size_of::<u64>()) };
        // SAFETY: 1. mapped, zero at first, until this is dropped.
        unsafe { word.as_ref() }
    }

    /// Marks a block; `false` if it was marked.
    fn mark(&self, unit: u32, block: usize) -> bool {
        let bit = 1_u64 << (block % BITS);
        // ORDERING: this thread's own.
        self.word(unit, block / BITS)
            .fetch_or(bit, Ordering::Relaxed)
            & bit
            == 0
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        // SAFETY: 1. our own mapping, which nobody uses any more.
        let _ = unsafe { os::unmap(self.words.cast(), self.length) };
    }
}

impl Sweep<'_> {
    /// Tells of a name, whose value is a `T`: it stays, and all that it leads to.
    ///
    /// # Errors
    ///
    /// [`MappedError::Type`] if the name has no `T`; [`Name`](MappedError::Name) if there is no such name.
    pub fn root<T: Persist>(&mut self, name: &str) -> Result<(), MappedError> {
        let value = typed::<T>(self.area, self.find(name)?)?;
        let (area, marks) = (self.area, &self.marks);
        let mut visit = |place| note(area, marks, place);
        if visit(NonNull::from(value).cast()) {
            // SAFETY: 1. nobody changes what lies in the heap meanwhile: `Mapped::sweep`.
            unsafe { value.visit(&mut visit) };
        }
        self.told(name)
    }

    /// Tells of a name that was given without a type ([`Mapped::set_root`]): its block stays, and no other.
    ///
    /// # Errors
    ///
    /// [`MappedError::Name`] if there is no such name.
    pub fn block(&mut self, name: &str) -> Result<(), MappedError> {
        let place = self.area.place_of::<u8>(self.find(name)?.distance());
        let place = place.ok_or(MappedError::Damaged)?;
        let free = self.blocks.iter_mut().find(|block| block.is_none());
        *free.ok_or(MappedError::Name)? = Some(place);
        self.told(name)
    }

    /// The first of a name, as others find it.
    fn find(&self, name: &str) -> Result<Named, MappedError> {
        let name = name_of(name)?;
        let mut names = self.names.iter().flatten();
        let found = names.find(|named| named.name == name);
        found.copied().ok_or(MappedError::Name)
    }

    /// All of that name: a process that was killed may have left two.
    fn told(&mut self, name: &str) -> Result<(), MappedError> {
        let name = name_of(name)?;
        for (at, named) in self.names.iter().enumerate() {
            if named.is_some_and(|named| named.name == name) {
                self.left &= !(1 << at);
            }
        }
        Ok(())
    }
}

/// Marks the block that an address lies in; `false` if it was marked, or there is none.
fn note(area: &Area, marks: &Marks, place: NonNull<u8>) -> bool {
    let Some((unit, distance)) = area.locate(place.addr().get()) else {
        return false;
    };
    match area.unit(unit) {
        _ if !marks.units.contains(&unit) => false,
        Unit::Slab { class, .. } => {
            let class = SizeClass::of_table(class.into());
            let (block, _) = class.info().locate(distance);
            block < blocks_of(class) && marks.mark(unit, block)
        }
        Unit::Head => marks.mark(unit, 0),
        Unit::Tail { distance } => unit
            .checked_sub(distance)
            .filter(|head| marks.units.contains(head) && area.unit(*head) == Unit::Head)
            .is_some_and(|head| marks.mark(head, 0)),
        _ => false,
    }
}

impl Held<'_> {
    /// Frees what is not marked.
    fn free_unmarked(&self, marks: &Marks) -> Swept {
        let (area, mut swept) = (self.area, Swept::default());
        for unit in marks.units.clone() {
            let (blocks, bytes) = match area.unit(unit) {
                Unit::Slab { class, .. } => {
                    let size = SizeClass::new(class.into());
                    let marked = |word: usize| marks.word(unit, word).load(Ordering::Relaxed);
                    let blocks = area.slab(unit).keep(blocks_of(size), marked);
                    if area.slab(unit).is_empty(blocks_of(size)) {
                        area.clear_hint(size.index(), unit);
                        self.release_slab(unit);
                    } else {
                        area.set_hint(size.index(), unit);
                    }
                    (blocks, blocks * size.size())
                }
                Unit::Head if marks.mark(unit, 0) => {
                    let bytes = area.run(unit) as usize * UNIT;
                    self.release_run(unit);
                    (1, bytes)
                }
                _ => (0, 0),
            };
            swept.blocks += blocks;
            swept.bytes += bytes;
        }
        swept
    }
}

impl Mapped {
    /// Frees all blocks that nothing with a name leads to: what processes had that were killed, and names that were taken
    /// away. `tell` names each type once: all names have to be told.
    ///
    /// ```
    /// use flagstone::Mapped;
    /// use flagstone::mapped::{Box, String, Vec};
    ///
    /// let heap = Mapped::create(16 << 20)?;
    /// let mut lines = Vec::new_in(heap.handle());
    /// lines.push(String::try_from_str_in("kept", heap.handle())?);
    /// let lines = heap.insert("lines", lines)?;
    /// Box::leak(Box::new_in([0_u64; 100], heap.handle()));
    /// // SAFETY: nobody else has the heap, and nothing is kept of it but what has a name.
    /// let swept = unsafe { heap.sweep(|sweep| sweep.root::<Vec<String>>("lines")) }?;
    /// assert_eq!(swept.blocks, 1);
    /// assert_eq!(lines[0].as_str(), "kept");
    /// # Ok::<(), flagstone::MappedError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`MappedError::InUse`] if other processes have the heap; [`Name`](MappedError::Name) if a name was not told, and what
    /// `tell` answers: then nothing is freed. As for an allocation, else.
    ///
    /// # Safety
    ///
    /// 1. No other thread or process uses the heap meanwhile. 2. Whatever is used afterwards is reached from a name that was
    ///    told: blocks that values of this process hold, outside the heap, are freed.
    pub unsafe fn sweep(
        &self,
        tell: impl FnOnce(&mut Sweep<'_>) -> Result<(), MappedError>,
    ) -> Result<Swept, MappedError> {
        let process = self.attachment.process()?;
        let area = &self.attachment.area;
        self.attachment.reap(process);
        if area.process_numbers().count() != 1 {
            return Err(MappedError::InUse);
        }
        let names = all_names(area);
        let given = names
            .iter()
            .enumerate()
            .filter(|(_, named)| named.is_some());
        let left = given.fold(0, |all, (at, _)| all | (1 << at));
        let mut sweep = Sweep {
            area,
            marks: Marks::new(area)?,
            left,
            blocks: [None; ROOTS + 1],
            names: &names,
        };
        tell(&mut sweep)?;
        if sweep.left != 0 {
            return Err(MappedError::Name);
        }
        for place in sweep.blocks.into_iter().flatten() {
            note(area, &sweep.marks, place);
        }
        self.attachment.give_up_all(process);
        let held = area.lock(process)?;
        Ok(held.free_unmarked(&sweep.marks))
    }
}

impl core::fmt::Debug for Sweep<'_> {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.debug_struct("Sweep").finish_non_exhaustive()
    }
}
