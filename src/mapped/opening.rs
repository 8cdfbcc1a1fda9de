//! How a file becomes a heap, and how a heap is found in one.

use core::ptr::NonNull;

use super::Mapped;
use super::area::Area;
use super::attachment::{Attachment, Found, State};
use super::error::{MappedError, MappingName};
use super::geometry::Geometry;
use super::header::{CONSTANTS, Constants, Kind};
use super::log::{Commits, LEAST};
use super::opened::Opened;
use super::processes::{Joined, let_go};
use super::source::{Source, kind_for_heaps, refused};
use crate::config::Attributes;
use crate::os::files::FileKind;
use crate::os::paths::Path;
use crate::os::shared::{File, FileId, NO_MEMORY, SEALED, Sharing, TAKEN};
use crate::os::{self, Held, PageLen};
use crate::sync::Ordering;
use crate::units::CHUNK;

/// Addresses that heaps lie at: where neither programs, libraries nor stacks lie, in spaces of 47 bits and of 39.
const PLACES: [[usize; 2]; 2] = [
    [0x1000_0000_0000, 0x5000_0000_0000],
    [0x10_0000_0000, 0x40_0000_0000],
];
/// Places that are tried in each of these: one is found where nine in ten are taken. A try is a call of some microseconds.
const TRIES: usize = 64;

/// What a process wants of a heap, whatever it lies in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) may_be_dirty: bool,
    pub(super) is_for_reading: bool,
    pub(super) may_lie_anywhere: bool,
    pub(super) is_populated: bool,
    /// Whether it is a heap that commits.
    pub(super) commits: bool,
    pub(super) attributes: Attributes,
}

impl Settings {
    pub(super) const NONE: Self = Self {
        may_be_dirty: false,
        is_for_reading: false,
        may_lie_anywhere: false,
        is_populated: false,
        commits: false,
        attributes: Attributes::NONE,
    };

    /// Maps a heap by the name that its file just got: else the kernel would list it as deleted. If that is refused, or
    /// somebody took the name meanwhile, it stays as it is.
    pub(super) fn map_by_name(self, area: &Area, path: &Path) -> Result<(), MappedError> {
        let Ok(file) = path.open(false) else {
            return Ok(());
        };
        let is_same = file.identify().is_ok_and(|(id, _)| id == area.source.id);
        let length = PageLen::kept(area.geometry.bytes());
        // SAFETY: 1. our own mapping of this file.
        let mapped =
            is_same && unsafe { file.map_over(area.base(), length, self.sharing()) }.is_ok();
        if mapped {
            // The descriptor may lead to the same file by either name.
            let _ = area.source.file().become_other(file);
        }
        file.close();
        if !mapped {
            return Ok(());
        }
        area.forget_notes();
        self.tell(area)?;
        if self.is_populated {
            area.populate_all()?;
        }
        Ok(())
    }

    /// What no heap over a mapping can have.
    fn check(self) -> Result<(), MappedError> {
        if self.attributes.is_merged {
            return Err(MappedError::Unsupported);
        }
        Ok(())
    }

    /// Tells the kernel what the mapping is to be.
    fn tell(self, area: &Area) -> Result<(), MappedError> {
        let length = PageLen::kept(area.geometry.bytes());
        let told = self.attributes.give_to(area.base(), length);
        told.map_err(|_| MappedError::Unsupported)
    }

    fn sharing(self) -> Sharing {
        match self {
            Self { commits: true, .. } => Sharing::Copy,
            Self {
                is_for_reading: true,
                ..
            } => Sharing::Reader,
            _ => Sharing::All,
        }
    }

    /// The heap of a file that was opened for it, which is closed if it is not needed.
    pub(super) fn find(self, file: File) -> Result<Mapped, MappedError> {
        self.check()?;
        let (id, bytes) = file.identify().map_err(refused)?;
        let kind = file.kind().map_err(refused)?;
        let bytes = match kind {
            FileKind::Regular | FileKind::Memory => Some(bytes),
            // Longer than the heap, as a rule.
            FileKind::Device => None,
            FileKind::Elsewhere => return Err(MappedError::Unsupported),
            FileKind::Other => return Err(MappedError::NoHeap),
        };
        let constants = read_constants(file, bytes)?;
        let commits = constants.kind == Kind::Committed;
        if commits != self.commits && !(commits && self.is_for_reading) {
            return Err(MappedError::Kind);
        }
        let own = Self { commits, ..self };
        own.find_heap(file, id, kind, bytes, constants)
    }

    fn find_heap(
        self,
        file: File,
        id: FileId,
        kind: FileKind,
        bytes: Option<usize>,
        constants: Constants,
    ) -> Result<Mapped, MappedError> {
        let geometry = constants.geometry().ok_or(MappedError::Damaged)?;
        if bytes.is_none() {
            let length = file.device_length().map_err(refused)?;
            if length != 0 && length < geometry.bytes() {
                return Err(MappedError::Length);
            }
        }
        let entering = Attachment::entering();
        let join = |area: &Area| self.join(area);
        if let Some(attachment) = Attachment::of(id, constants) {
            let base = attachment.area.base().addr().get();
            if base as u64 != constants.base && !self.may_lie_anywhere {
                // This process has it elsewhere.
                return Err(busy(constants));
            }
            if attachment.state() == State::Closed {
                attachment.open_again(&entering, (file, self.sharing()), join)?;
            } else {
                file.close();
            }
            return Ok(Mapped { attachment });
        }
        let base = self.map(file, geometry, constants)?;
        let source = Source::new(file, id, constants, kind);
        let area = area_at(base, geometry, source)?;
        enter(&entering, area, join)
    }

    /// Maps a heap where it lies in every process, or elsewhere if it may.
    fn map(
        self,
        file: File,
        geometry: Geometry,
        constants: Constants,
    ) -> Result<NonNull<u8>, MappedError> {
        #[expect(clippy::cast_possible_truncation, reason = "it was checked to fit")]
        let base = constants.base as usize;
        let bytes = geometry.bytes();
        // Elsewhere it could lie in the way of a stack that grows.
        let is_in = |[from, to]: &[usize; 2]| (*from..*to).contains(&base) && bytes <= to - base;
        if !PLACES.iter().any(is_in) {
            return Err(MappedError::Damaged);
        }
        let length = PageLen::kept(bytes);
        let place = NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(base));
        let map = |sharing| file.map(length, place, sharing);
        let mapped = match map(self.sharing()) {
            // Older kernels take it for a mapping in which something could be stored later.
            Err(SEALED) if self.is_for_reading => map(Sharing::Frozen),
            mapped => mapped,
        };
        match mapped {
            Err(TAKEN) if self.may_lie_anywhere => {
                map_somewhere(file, geometry, self.sharing(), os::random()[0])
            }
            Err(TAKEN) => Err(busy(constants)),
            Err(SEALED) => Err(MappedError::ReadOnly),
            mapped => mapped.map_err(refused),
        }
    }

    /// Has this process use a heap that is in a file; others are used once somebody allocates.
    fn join(self, area: &Area) -> Result<Found, MappedError> {
        self.tell(area)?;
        if self.is_for_reading {
            let opened = area.look(self.may_be_dirty)?;
            if self.is_populated {
                area.populate_touched()?;
            }
            return Ok(Found {
                opened,
                joined: None,
                state: State::ReadOnly,
            });
        }
        let mut found = Found {
            opened: Opened::Joined,
            joined: None,
            state: State::Open,
        };
        if area.source.kind().is_found_by_path() {
            let joined = area.join(self.may_be_dirty)?;
            found.opened = joined.opened;
            found.joined = Some(joined);
        }
        let fit = self.make_fit(area, found.joined.as_ref());
        fit.inspect_err(|_| undo(area, found.joined.as_ref()))?;
        Ok(found)
    }

    /// What is left to do once the process has joined.
    fn make_fit(self, area: &Area, joined: Option<&Joined>) -> Result<(), MappedError> {
        if let Some(joined) = joined.filter(|joined| joined.opened == Opened::Dirty) {
            // Tables that were torn are mended with the lock, or say so.
            area.lock(joined.process)?.verify()?;
        }
        if self.is_populated {
            area.populate_touched()?;
        }
        Ok(())
    }
}

/// Something lies where a heap does.
fn busy(constants: Constants) -> MappedError {
    let [base, bytes] = [constants.base, constants.bytes].map(|number| {
        // They were checked to be an address and a length here.
        usize::try_from(number).unwrap_or(0)
    });
    let by = MappingName::at(base, base.saturating_add(bytes));
    MappedError::BaseBusy { base, by }
}

/// Gives up a slot that a process got of a heap that it does not use after all.
fn undo(area: &Area, joined: Option<&Joined>) {
    if let Some(joined) = joined {
        area.leave(joined.process);
        let_go(joined.kept);
        if joined.opened == Opened::Clean {
            // As it was found, if nobody else came meanwhile. What is refused leaves it as one that nobody closed.
            let close = |own| area.alone_at_openings(own, || area.end_use(own));
            let _ = area.source.with_own(close);
        }
    }
}

/// Enters a heap that was just mapped, or unmaps it.
fn enter(
    entering: &Held<'static, ()>,
    area: Area,
    join: impl FnOnce(&Area) -> Result<Found, MappedError>,
) -> Result<Mapped, MappedError> {
    let (base, length) = (area.base(), PageLen::kept(area.geometry.bytes()));
    let entered = join(&area).and_then(|found| Attachment::enter(entering, area, found));
    let attachment = entered.inspect_err(|_| {
        // SAFETY: 1. just mapped, and nobody knows it.
        let _ = unsafe { os::unmap(base, length) };
    })?;
    Ok(Mapped { attachment })
}

/// A file that is to be a heap.
pub(super) struct Whole {
    settings: Settings,
    file: File,
    geometry: Geometry,
}

impl Whole {
    pub(super) fn new(settings: Settings, file: File, geometry: Geometry) -> Self {
        Self {
            settings,
            file,
            geometry,
        }
    }

    /// Makes the heap, then does what lets others find it.
    pub(super) fn begin(
        self,
        kind: Kind,
        publish: impl FnOnce(&Area) -> Result<(), MappedError>,
    ) -> Result<Mapped, MappedError> {
        let Self {
            settings,
            file,
            geometry,
        } = self;
        settings.check()?;
        if settings.is_for_reading {
            return Err(MappedError::ReadOnly);
        }
        let on = kind_for_heaps(file)?;
        if kind.is_on_disk() {
            let log = if settings.commits { LEAST } else { 0 };
            let length = PageLen::kept(geometry.bytes() + log);
            file.set_length(length).map_err(refused)?;
        }
        let (id, _) = file.identify().map_err(refused)?;
        let random = os::random();
        let base = map_somewhere(file, geometry, settings.sharing(), random[0])?;
        let constants = Constants {
            bytes: geometry.bytes() as u64,
            base: base.addr().get() as u64,
            id: random[1],
            kind,
            page: PageLen::pages(1).bytes() as u64,
        };
        let area = area_at(base, geometry, Source::new(file, id, constants, on))?;
        enter(&Attachment::entering(), area, |area| {
            area.reserve_first()?;
            area.begin_free(geometry.first);
            // ORDERING: nobody else knows the heap yet.
            let high = &area.header().high.0;
            high.store(geometry.first.into(), Ordering::Relaxed);
            area.header().begin(constants);
            settings.tell(area)?;
            if settings.is_populated {
                let all = geometry.first..geometry.units;
                area.reserve_all(all)?;
                area.populate_all()?;
            }
            area.begin_log()?;
            // Before others can find it: they find it in use.
            let joined = match kind.is_found_by_path() {
                true => Some(area.join(false)?),
                false => None,
            };
            let published = area.commit_first().and_then(|()| publish(area));
            published.inspect_err(|_| undo(area, joined.as_ref()))?;
            Ok(Found {
                opened: Opened::Created,
                joined,
                state: State::Open,
            })
        })
    }
}

/// A heap that was just mapped, with what it has besides; it is unmapped if that cannot be had.
fn area_at(base: NonNull<u8>, geometry: Geometry, source: Source) -> Result<Area, MappedError> {
    let commits = match source.kind() {
        Kind::Committed => {
            let made = Commits::new(source.file(), geometry.bytes(), source.constants.id);
            Some(made.inspect_err(|_| {
                // SAFETY: 1. just mapped, and nobody knows it.
                let _ = unsafe { os::unmap(base, PageLen::kept(geometry.bytes())) };
            })?)
        }
        _ => None,
    };
    // SAFETY: 1. just mapped, for this.
    Ok(unsafe { Area::new(base, geometry, source, commits) })
}

/// The constants that stand in a file.
fn read_constants(file: File, bytes: Option<usize>) -> Result<Constants, MappedError> {
    let mut words = [0; CONSTANTS];
    let read = file.read_words(0, &mut words).map_err(refused)?;
    if read < size_of_val(&words) {
        return Err(MappedError::NoHeap);
    }
    let page = PageLen::pages(1).bytes();
    Ok(Constants::from_words(words, bytes, page)?)
}

/// Maps a file where nothing lies, and where other processes are likely to have room for it, too.
fn map_somewhere(
    file: File,
    geometry: Geometry,
    sharing: Sharing,
    random: u64,
) -> Result<NonNull<u8>, MappedError> {
    let length = geometry.bytes();
    let mut refusal = NO_MEMORY;
    for [from, to] in PLACES {
        let Some(room) = (to - from).checked_sub(length).map(|room| room / CHUNK + 1) else {
            continue;
        };
        for number in 0..TRIES {
            // OVERFLOW: any number will do.
            let random = random.wrapping_add((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let base = from + (random >> 16) as usize % room * CHUNK;
            let place = NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(base));
            match file.map(PageLen::kept(length), place, sharing) {
                Ok(base) => return Ok(base),
                Err(errno) => refusal = errno,
            }
        }
    }
    // What lies at a place that was tried is no file of that name.
    Err(match refusal {
        TAKEN => MappedError::System { errno: TAKEN },
        errno => refused(errno),
    })
}
