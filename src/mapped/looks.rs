//! What can be seen of a heap without changing it: what it lies in, who has it, what its units are, and whether they agree.
#![forbid(unsafe_code)]

use core::iter::FusedIterator;

use super::Mapped;
use super::area::Area;
use super::error::MappedError;
use super::geometry::blocks_of;
use super::header::{Kind, is_of_any_version};
use super::holder::FREE;
use super::named::RootName;
use super::names::Root;
use super::opened::{LOCKS, Opened};
use super::words::Unit;
use crate::os;
use crate::size_class::SizeClass;
use crate::sync::Ordering;
use crate::units::UNIT;

/// Looks at what seems to be wrong, and pauses of 50 microseconds between two of them: what others are at is over by then,
/// unless they are stopped.
const LOOKS: u32 = 3;
const PAUSES: u32 = 40;

/// A process that has a slot of a heap: see [`Mapped::users`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct User {
    /// The number of the process, as it saw its own: in another container it may have another.
    pub process: u32,
    /// Whether it lives. One that does not has not been counted out yet.
    pub lives: bool,
}

/// What some units of a heap are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpanKind {
    /// The heap's tables.
    Tables,
    /// Blocks of one size.
    Slab {
        /// Bytes of each.
        block: usize,
    },
    /// A long block.
    Run,
    /// A long block on its way back.
    Going,
    /// Nobody's, but somebody's once.
    Free,
    /// Never anybody's.
    Fresh,
    /// What no heap would have left there.
    Unknown,
}

/// Units of one kind that follow each other: see [`Mapped::occupancy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Span {
    /// What they are.
    pub kind: SpanKind,
    /// Bytes from the heap's base to the first.
    pub offset: usize,
    /// Bytes of all, whole units of 64 KiB.
    pub bytes: usize,
    /// Bytes of blocks in use.
    pub live: usize,
}

/// The units of a heap from the first to the last, in [`Span`]s: one slab, one long block, one free unit, all tables, all that
/// was never used.
#[derive(Clone)]
pub struct Occupancy {
    area: &'static Area,
    next: u32,
}

impl Iterator for Occupancy {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let first = self.next;
        let (count, kind, live) = self.area.span_at(first)?;
        self.next = first + count;
        Some(Span {
            kind,
            offset: first as usize * UNIT,
            bytes: count as usize * UNIT,
            live,
        })
    }
}

impl FusedIterator for Occupancy {}

impl core::fmt::Debug for Occupancy {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.debug_struct("Occupancy")
            .field("next", &self.next)
            .finish()
    }
}

impl Area {
    /// Units from this one on that are one thing, what, and bytes in use; `None` behind the last.
    fn span_at(&self, unit: u32) -> Option<(u32, SpanKind, usize)> {
        let (touched, all) = (self.touched(), self.geometry.units);
        if unit < touched.start {
            return Some((touched.start - unit, SpanKind::Tables, 0));
        }
        if unit >= touched.end {
            return (unit < all).then(|| (all - unit, SpanKind::Fresh, 0));
        }
        Some(match self.unit(unit) {
            Unit::Slab { class, .. } => {
                let class = SizeClass::new(class.into());
                let (block, blocks) = (class.size(), blocks_of(class));
                let used = blocks.saturating_sub(self.slab(unit).free_blocks(blocks));
                (1, SpanKind::Slab { block }, used * block)
            }
            Unit::Head => {
                let count = self.run(unit);
                (count, SpanKind::Run, count as usize * UNIT)
            }
            Unit::Going { owner } if self.lives(owner) => (self.run(unit), SpanKind::Going, 0),
            // A run whose process is gone, and tails without a head, are mended by who takes the lock next.
            Unit::Free | Unit::Tail { .. } | Unit::Going { .. } => (1, SpanKind::Free, 0),
            Unit::Unknown => (1, SpanKind::Unknown, 0),
        })
    }

    /// The processes that have a slot by its line or its lock. An error if the descriptor is gone, by which one can tell.
    fn users(&self) -> Result<impl Iterator<Item = User>, MappedError> {
        let file = self.source.open().ok_or(MappedError::Closed)?;
        let lines = self.header().lines.iter().zip(LOCKS + 1..);
        Ok(lines.filter_map(move |(line, byte)| {
            // Who cannot be asked counts as one who lives.
            let lives = file.is_locked_by_others(byte, 1).unwrap_or(true);
            // ORDERING: for people.
            let process = line.process.load(Ordering::Relaxed);
            (lives || line.is_used()).then_some(User { process, lives })
        }))
    }

    /// Whether somebody may be at the units, or was when it ended: the next who takes the lock mends them.
    fn is_torn(&self) -> bool {
        let header = self.header();
        // ORDERING: hints. Who finds something wrong looks again.
        let is_held = header.lock.0.load(Ordering::Relaxed) != FREE;
        let reaped = header.reaped.0.load(Ordering::Relaxed);
        let is_due = reaped != header.mended.0.load(Ordering::Relaxed);
        let users = self.users();
        is_held || is_due || users.is_ok_and(|mut users| users.any(|user| !user.lives))
    }

    /// Units from this one on that agree with each other and the bitmap, as one thing; `None` if they contradict.
    fn agreeing(&self, unit: u32, is_torn: bool) -> Option<u32> {
        let is_taken = |unit: u32| is_torn || !self.is_free(unit);
        match self.unit(unit) {
            Unit::Free => Some(1),
            Unit::Slab { class, .. } => {
                let blocks = blocks_of(SizeClass::new(class.into()));
                let is_sound = is_taken(unit) && !self.slab(unit).has_stray_bits(blocks);
                is_sound.then_some(1)
            }
            Unit::Head => {
                let count = self.run(unit);
                let is_tail = |distance: u32| {
                    self.unit(unit + distance) == (Unit::Tail { distance })
                        && is_taken(unit + distance)
                };
                (is_taken(unit) && (1..count).all(is_tail)).then_some(count)
            }
            Unit::Going { owner } if self.lives(owner) => Some(self.run(unit)),
            Unit::Going { .. } => is_torn.then_some(1),
            Unit::Tail { distance } => {
                // Of a run that was claimed behind this walk.
                let head = unit.checked_sub(distance);
                let is_of = |head: &u32| {
                    matches!(self.unit(*head), Unit::Head | Unit::Going { .. })
                        && self.run(*head) > distance
                };
                (is_torn || head.as_ref().is_some_and(is_of)).then_some(1)
            }
            Unit::Unknown => None,
        }
    }

    /// Whether the tables agree, as far as one can tell who takes no lock: what contradicts is looked at again before it
    /// counts, and what a lock would mend does not.
    pub(super) fn verify_by_looks(&self) -> Result<(), MappedError> {
        // ORDERING: raised before the word of a unit is written.
        let high = self.header().high.0.load(Ordering::Relaxed);
        let is_high = (self.geometry.first.into()..=self.geometry.units.into()).contains(&high);
        let is_place = |root: &Root| {
            root.read().is_none_or(|named| {
                self.place_of::<u8>(named.distance()).is_some() && RootName::new(&named).has_bytes()
            })
        };
        let names = self.header().names();
        if !is_high || !names.look(|roots| roots.iter().all(is_place)) {
            return Err(MappedError::Damaged);
        }
        let is_torn = self.is_torn();
        let mut unit = self.geometry.first;
        while unit < self.touched().end {
            let agreeing = self.agreeing(unit, is_torn);
            let count = agreeing.or_else(|| self.agreeing_later(unit));
            unit += count.ok_or(MappedError::Damaged)?;
        }
        Ok(())
    }

    #[cold]
    fn agreeing_later(&self, unit: u32) -> Option<u32> {
        (0..LOOKS).find_map(|_| {
            (0..PAUSES).for_each(|_| os::pause());
            let is_torn = self.is_torn();
            self.agreeing(unit, is_torn)
        })
    }
}

impl Mapped {
    /// What the heap lies in.
    ///
    /// ```
    /// use flagstone::Mapped;
    /// use flagstone::mapped::Kind;
    ///
    /// let heap = Mapped::create(16 << 20)?;
    /// assert_eq!(heap.kind(), Kind::Object);
    /// # Ok::<(), flagstone::MappedError>(())
    /// ```
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.attachment.area.source.kind()
    }

    /// The address that the heap's creator chose. It is [`base`](Self::base), unless the heap lies
    /// [elsewhere](super::MappedOptions::anywhere) in this process.
    #[must_use]
    pub fn home(&self) -> usize {
        usize::try_from(self.attachment.area.source.constants.base).unwrap_or(0)
    }

    /// How a process that opens the heap now finds it: [`Opened::Joined`] while processes have it. Changes nothing.
    ///
    /// Heaps that are in no [file](Kind::File) need no closing: they are [`Opened::Recovered`] where a killed process has not
    /// been counted out yet, and else [`Opened::Clean`].
    ///
    /// # Errors
    ///
    /// [`MappedError::Closed`] if the program has closed the heap or its descriptor; [`System`](MappedError::System).
    pub fn condition(&self) -> Result<Opened, MappedError> {
        self.attachment.area.condition()
    }

    /// The processes that allocate or free in the heap, and those that did when they were killed and have not been counted
    /// out yet. Changes nothing; takes a call of the kernel for each of the 512 slots.
    ///
    /// ```
    /// use flagstone::Mapped;
    /// use flagstone::allocator_api2::boxed::Box;
    ///
    /// let heap = Mapped::create(16 << 20)?;
    /// let block = Box::new_in(1, heap.handle());
    /// let users: Vec<_> = heap.users()?.collect();
    /// assert_eq!(users.len(), 1);
    /// assert!(users[0].process == std::process::id() && users[0].lives);
    /// # Ok::<(), flagstone::MappedError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`condition`](Self::condition).
    pub fn users(&self) -> Result<impl Iterator<Item = User>, MappedError> {
        self.attachment.area.users()
    }

    /// What each part of the heap is, from its first byte to its last. Takes no lock: while others are in calls, a block
    /// may be missed, or seen twice.
    ///
    /// ```
    /// use flagstone::Mapped;
    /// use flagstone::mapped::SpanKind;
    ///
    /// let heap = Mapped::create(16 << 20)?;
    /// let kinds: Vec<_> = heap.occupancy().map(|span| span.kind).collect();
    /// assert_eq!(kinds, [SpanKind::Tables, SpanKind::Fresh]);
    /// # Ok::<(), flagstone::MappedError>(())
    /// ```
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        let area = &self.attachment.area;
        Occupancy { area, next: 0 }
    }

    /// Whether a file that begins with these bytes, eight or more, is that of a heap, of whatever version.
    #[must_use]
    pub fn is_heap(first: &[u8]) -> bool {
        let word = first.first_chunk().copied();
        word.is_some_and(|word| is_of_any_version(u64::from_le_bytes(word)))
    }
}
